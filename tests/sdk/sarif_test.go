package sdk

import (
	"encoding/json"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/xeipuuv/gojsonschema"

	"github.com/hookauthz/hookauthz/envoy/lint"
	"github.com/hookauthz/hookauthz/envoy/lint/mutation"
)

// sarifSchema is the schema that OASIS publishes, from the constant in which a module carries it.
func sarifSchema(t *testing.T) *gojsonschema.Schema {
	t.Helper()
	p, err := build.Import("github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.BasicLit); ok && v.Kind == token.STRING && text == "" {
			text, err = strconv.Unquote(v.Value)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := gojsonschema.NewSchema(gojsonschema.NewStringLoader(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// Reports for code scanning hold to the schema of SARIF 2.1.0, and have no field that it does not have.
func TestSARIFSchema(t *testing.T) {
	config, err := os.ReadFile("../../examples/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema := sarifSchema(t)
	all, err := mutation.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(all.Mutations, mutation.Mutation{Name: "nothing"}) {
		text, err := all.Apply(config, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"envoy.yaml", "-", "/a folder/envoy: new#1.yaml", "http://127.0.0.1:9901/config_dump"} {
			r, err := lint.Lint(lint.Config{Name: name, Text: text})
			if err != nil {
				t.Fatal(err)
			}
			out, err := json.Marshal(r.SARIF("v1.2.3"))
			if err != nil {
				t.Fatal(err)
			}
			result, err := schema.Validate(gojsonschema.NewBytesLoader(out))
			if err != nil {
				t.Fatal(err)
			}
			if !result.Valid() {
				t.Errorf("%s in %s: %v", m.Name, name, result.Errors())
			}
			log, err := sarif.FromBytes(out)
			if err != nil {
				t.Fatal(err)
			}
			if len(log.Runs) != 1 || len(log.Runs[0].Results) != len(r.Findings) {
				t.Errorf("%s: %d findings did not become as many results", m.Name, len(r.Findings))
			}
		}
	}
}
