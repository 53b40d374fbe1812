package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hookauthz/hookauthz/envoy/lint"
	"github.com/hookauthz/hookauthz/envoy/lint/mutation"
)

const lintHead = `# Linting Envoy's configuration

Most ways around an external authorizer are in Envoy's configuration.

` + "```sh" + `
hookauthz envoy lint envoy.yaml                                          # a bootstrap: YAML or JSON, - is standard input
hookauthz envoy lint --policies policies/ http://127.0.0.1:9901          # a running Envoy: its /config_dump
hookauthz envoy lint -o sarif envoy.yaml > hookauthz.sarif               # for code scanning; -o json for other machines
` + "```" + `

reads a configuration and follows what a request can do: every listener, filter chain, virtual host and route, weighted clusters, upgrades
with filters of their own, mirrors, and clusters of other names with the same addresses. An **error** is a way to an application that
webhooks reach which no Check guards, or something that an attacker can forge; a **warning** is about availability and hygiene. Each
comes with its place (` + "`file:line:column`" + ` and the path), the reason and the fix. A clean configuration prints one line. The exit code is 1
where there is an error, and 2 for what is no Envoy configuration or an address that does not answer.

` + "`-o json`" + ` prints one object. Its fields stay; others may come.

` + "```json" + `
{
  "source": "envoy.yaml",
  "dump": false,
  "listeners": 1,
  "guarded": 7,
  "findings": [
    {
      "rule": "HA005",
      "name": "fail-open",
      "severity": "error",
      "place": {"file": "envoy.yaml", "line": 114, "column": 15, "path": "static_resources.listeners[0]...failure_mode_allow"},
      "what": "failure_mode_allow is true",
      "why": "Every delivery passes unchecked while the authorizer is down, slow or sent too much, which an attacker can bring about.",
      "fix": "failure_mode_allow: false"
    }
  ]
}
` + "```" + `

` + "`guarded`" + ` counts routes that a Check guards, ` + "`dump`" + ` says that the source is a config_dump, and ` + "`line`" + ` and ` + "`column`" + ` begin at 1; they are 0 where a
finding is about what is not there at all. Findings are in the order of their places. ` + "`-o sarif`" + ` holds to the schema of SARIF 2.1.0.

Which ext_authz filters are hookauthz's: those that call what a filter with the context extension ` + "`hookauthz.endpoint`" + ` on some route
calls; where no route has it, all of them. What their routes reach is what must be guarded. Filters, routes and listeners that have
nothing to do with it are not judged: a site or an API beside the hooks, with other applications behind it, gives no finding.

What cannot be read, or is not here, is reported and the rest is judged. A bootstrap whose listeners, clusters or routes come from a control
plane says little: lint the running Envoy. In a dump Envoy leaves out the values of context extensions, so that HA100 and HA101 have
nothing to go by there; the other rules find in a dump what they find in a file.

What lint does not know: what a firewall in front keeps away (HA051, HA054 and HA055 look for limits in the configuration itself), what Lua,
Wasm and external services really do, and what runtime, RTDS or an xDS server will say next.

Every rule is proven by at least one weakening of [examples/envoy.yaml](../examples/envoy.yaml), that Envoy 1.40 loads without a word unless
the table says otherwise, and that is found by this rule at the place shown, and by no other. HA025 looks at the release that a dump names.
`

// lintGroups are the parts of the table: each begins with a rule.
var lintGroups = []struct{ from, title string }{
	{"HA001", "Ways around"},
	{"HA030", "What the authorizer sees"},
	{"HA050", "The address of the client"},
	{"HA060", "TLS, and the way to the authorizer"},
	{"HA080", "Availability and hygiene"},
	{"HA100", "What needs the policies"},
	{"HA900", "What could not be judged"},
}

// lintPage is a table of the rules and of the mutations that prove them.
func lintPage() (string, error) {
	all, err := mutation.All()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(lintHead)
	head := []string{"rule", "severity", "why", "fix", "proven by", "found at"}
	rules := lint.Rules()
	for i, group := range lintGroups {
		b.WriteString("\n## " + group.title + "\n\n")
		rows := [][]string{head}
		for _, r := range rules {
			if r.ID < group.from || i+1 < len(lintGroups) && r.ID >= lintGroups[i+1].from {
				continue
			}
			var what, where []string
			for _, m := range all.Mutations {
				if m.Rule == r.ID {
					what = append(what, mutationCell(m))
					where = append(where, code(m.Where()))
				}
			}
			rows = append(rows, []string{lines("`"+r.ID+"`", text(r.Name)), string(r.Severity), prose(r.Why), fixCell(r.Fix), lines(what...), lines(where...)})
		}
		b.WriteString(table(rows))
	}
	b.WriteString("\n## Places\n\nThe names in the column of places stand for:\n\n")
	rows := [][]string{{"name", "path"}}
	for _, name := range slices.Sorted(maps.Keys(all.Paths)) {
		rows = append(rows, []string{code("$" + name), code(all.Paths[name])})
	}
	b.WriteString(table(rows))
	return b.String(), nil
}

func mutationCell(m mutation.Mutation) string {
	cell := text(m.Name)
	if m.Policies {
		cell += " (with --policies)"
	}
	if m.Refused != "" {
		cell += " (Envoy 1.40 does not load it: " + text(m.Refused) + ")"
	}
	return cell
}

// prose is text in a cell with what stands in backticks as code.
func prose(s string) string {
	parts := strings.Split(s, "`")
	for i, part := range parts {
		if i%2 == 1 {
			parts[i] = code(part)
		} else if part != "" {
			// Spaces at the ends part words from code.
			parts[i] = strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "_", `\_`).Replace(part)
		}
	}
	return strings.Join(parts, "")
}

// configuration is a fix that is nothing else.
var configuration = regexp.MustCompile(`^[a-z0-9_]+: [^\x60]*$`)

func fixCell(s string) string {
	if configuration.MatchString(s) {
		return code(s)
	}
	return prose(s)
}
