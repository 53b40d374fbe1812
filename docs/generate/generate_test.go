package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/envoy/lint"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
)

func allPages(t *testing.T) map[string]string {
	t.Helper()
	all, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPagesAreUpToDate(t *testing.T) {
	for name, want := range allPages(t) {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); diff != "" {
			t.Errorf("docs/%s is stale; run make docs (-want +got):\n%s", name, diff)
		}
	}
}

// columns of a row, with its escapes left in.
func columns(row string) int { return strings.Count(row, "|") - strings.Count(row, `\|`) - 1 }

func TestTablesAreWhole(t *testing.T) {
	for name, page := range allPages(t) {
		wide := 0
		for i, line := range strings.Split(page, "\n") {
			if !strings.HasPrefix(line, "|") {
				wide = 0
				continue
			}
			if wide == 0 {
				wide = columns(line)
			}
			if got := columns(line); got != wide {
				t.Errorf("%s:%d has %d columns, want %d:\n%s", name, i+1, got, wide, line)
			}
		}
	}
	for what, c := range map[string]struct{ rows, want int }{
		"presets":    {strings.Count(schemesPage()[len(schemesHead):], "\n| `"), len(signature.Presets())},
		"handshakes": {strings.Count(handshakesPage(), "\n| `"), len(signature.AllHandshakes())},
		"lists":      {strings.Count(listsPage(), "\n| `"), len(policy.ShippedLists())},
		"rules":      {strings.Count(allPages(t)["lint.md"], "\n| `HA"), len(lint.Rules())},
	} {
		if c.rows != c.want || c.want == 0 {
			t.Errorf("%d rows of %s, want %d", c.rows, what, c.want)
		}
	}
}

// fenced gives the blocks of YAML in a page.
func fenced(page string) []string {
	var blocks []string
	for {
		_, rest, found := strings.Cut(page, "```yaml\n")
		if !found {
			return blocks
		}
		var block string
		block, page, _ = strings.Cut(rest, "```\n")
		blocks = append(blocks, block)
	}
}

// load loads a folder with one policy file. Secrets are not read.
func load(t *testing.T, file string) (*policy.Set, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return policy.Load(dir, policy.LoadOptions{Secrets: policy.SkipSecrets})
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by) + "\n"
}

// Every scheme that the page shows loads in a policy.
func TestSchemesOfThePageLoad(t *testing.T) {
	blocks := fenced(schemesHead)
	if len(blocks) < 10 {
		t.Fatalf("only %d blocks of YAML are found", len(blocks))
	}
	for i, block := range blocks {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			more := ""
			if strings.Contains(block, "{url}") || strings.Contains(block, "url: ") || strings.Contains(block, "@target-uri") {
				more += "    publicURL: https://hooks.example.com/acme\n"
			}
			if strings.Contains(block, "{form:") {
				more += "    acceptUnsignedBody: true\n"
			}
			keys := "    secrets: [{version: \"1\", env: ACME_SECRET}]\n"
			if strings.Contains(block, "{aws-sns}") {
				keys = "    topics: [\"arn:aws:sns:eu-west-1:123456789012:orders\"]\n    tolerance: 65m\n"
			} else if strings.Contains(block, "alg: jws-es") || strings.Contains(block, "alg: http-signature-ed") {
				keys = "    publicKeys: [{version: \"1\", env: ACME_KEY}]\n"
			}
			file := "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: acme}\nspec:\n  match: {paths: [/acme]}\n  signature:\n" + more +
				keys + "    scheme:\n" + indent(block, "      ")
			if _, err := load(t, file); err != nil {
				t.Errorf("%v\n%s", err, file)
			}
		})
	}
}

// Every field of the language occurs in a scheme that the page shows.
func TestEveryFieldHasAnExample(t *testing.T) {
	all := strings.Join(fenced(schemesHead), "")
	for _, field := range []string{"alg", "key", "strip", "normalize", "append", "decode", "hash", "sign", "sig", "in", "numbered", "split", "kv", "pick", "drop_first", "prefix", "prefix_optional", "enc",
		"ts", "unit", "tolerance", "optional", "id", "event", "require", "header", "equals", "check", "a", "b", "if_present", "only", "certificate", "freshPerAttempt", "nonce",
		"jwt", "body", "url", "digest", "body_optional", "issuer", "jws", "list", "headers", "parameters", "components", "keyid", "label"} {
		found := slices.ContainsFunc([]string{"\n" + field + ": ", "{" + field + ": ", ", " + field + ": "}, func(s string) bool { return strings.Contains(all, s) })
		if !found {
			t.Errorf("no example has %s", field)
		}
	}
}

// What the pages show of policies loads.
func TestPoliciesOfThePagesLoad(t *testing.T) {
	const hook = "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: hook}\nspec:\n  match: {paths: [/hook]}\n" +
		"  signature: {scheme: meta, secrets: [{version: \"1\", env: SECRET}]}\n"
	onHandshakes, onLists := fenced(handshakesHead), fenced(listsHead)
	if len(onHandshakes) != 1 || len(onLists) != 2 {
		t.Fatalf("%d and %d blocks of YAML are found, want 1 and 2", len(onHandshakes), len(onLists))
	}
	for _, file := range []string{
		hook + indent(onHandshakes[0], "  "),
		hook + indent(onLists[0], "  ") + "---\n" + onLists[1],
	} {
		set, err := load(t, file)
		if err != nil {
			t.Errorf("%v\n%s", err, file)
			continue
		}
		if warnings := set.Warnings(); len(warnings) > 0 {
			t.Errorf("%v\n%s", warnings, file)
		}
	}
}
