package signature_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Signatures, tokens and digests are compared by hmac.Equal and crypto/subtle alone. A comparison that ends at the first difference is used
// only with a text that stands in the source.
func TestComparisonsTakeTheirTime(t *testing.T) {
	hasty := map[string]bool{"bytes.Equal": true, "bytes.Compare": true, "slices.Equal": true, "slices.Compare": true, "reflect.DeepEqual": true}
	careful := 0
	files := token.NewFileSet()
	var paths []string
	for _, dir := range []string{".", "..", "../secret", "../../extauthz/admin"} {
		found, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(found), err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, ok := s.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch name := from.Name + "." + s.Sel.Name; {
			case name == "hmac.Equal", name == "subtle.ConstantTimeCompare":
				careful++
			case hasty[name] && !withLiteral(call.Args):
				t.Errorf("%s: %s tells by its time how far two texts agree", files.Position(call.Pos()), name)
			}
			return true
		})
	}
	if careful < 8 {
		t.Errorf("%d careful comparisons: is this the right place?", careful)
	}
}

// withLiteral says whether one side stands in the source.
func withLiteral(args []ast.Expr) (found bool) {
	for _, a := range args {
		ast.Inspect(a, func(n ast.Node) bool {
			_, literal := n.(*ast.BasicLit)
			found = found || literal
			return !found
		})
	}
	return found
}
