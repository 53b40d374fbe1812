package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/e2e/stack"
	"github.com/hookauthz/hookauthz/envoy/lint/mutation"
)

// bypass is a weakening that lets a delivery in which nobody signed, and the fix that lint names.
type bypass struct {
	mutation string // of those that lint is proven by
	more     string // edits that make the way in certain, or give what it needs
	fix      string // edits
	attack   attack
	status   int // of the answer once it is fixed; 0: none, or any
}

// attack is what somebody without a secret sends.
type attack struct {
	listener string // "hooks", which speaks TLS, as no other does
	path     string
	headers  []header
	signed   bool // by a secret that the attacker has; the address is what is forged
	from     string
	down     bool // the authorizer cannot be reached
}

const (
	routerOnly = `{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
	second     = `"$listeners[1].filter_chains[0].filters[0].typed_config.http_filters"`
	// guarded puts the filter of the hook listener before the router of the second one.
	guarded = `
- {at: ` + second + `, set: []}
- {at: ` + second + `, copy: $entry}
- {at: ` + second + `, add: ` + routerOnly + `}`
	plain = "internal"
	// webhooks is the path of a policy that counts no failures; the example's route for another one leads there.
	webhooks = "/e2e/raw"
)

var bypasses = []bypass{
	{"a second listener without the filter", "", guarded, attack{listener: plain, path: webhooks}, 401},
	{"another cluster with the application's address, on a listener without the filter", "", guarded, attack{listener: plain, path: webhooks}, 401},
	{"a cluster of clusters on a listener without the filter holds the application", `
- {at: "$clusters[name=all].cluster_type.typed_config.clusters", set: [app]}`, guarded, attack{listener: plain, path: webhooks}, 401},
	{"a listener that hands on raw connections", `
- {at: $clusters, add: {name: www, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: www, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8090}}}}]}]}}}`,
		`- {at: "$listeners[1].filter_chains[0].filters[0].typed_config.cluster", set: www}`, attack{listener: "raw", path: webhooks}, 0},
	{"raw connections reach the application by an internal listener", "", `
- {at: "$listeners[2].filter_chains[0].filters[0].typed_config.http_filters", set: []}
- {at: "$listeners[2].filter_chains[0].filters[0].typed_config.http_filters", copy: $entry}
- {at: "$listeners[2].filter_chains[0].filters[0].typed_config.http_filters", add: ` + routerOnly + `}`, attack{listener: "raw", path: webhooks}, 0},
	{"raw connections go to the application by a filter's word", "", `
- {at: "$listeners[1].filter_chains[0].filters[0].typed_config.on_new_connection[0].format_string.text_format_source.inline_string", set: www}`, attack{listener: "raw", path: webhooks}, 0},
	{"a listener without the filter redirects to TLS, but believes a header that says so", "", `
- {at: "$listeners[1].filter_chains[0].filters[0].typed_config.use_remote_address", set: true}`, attack{listener: plain, path: webhooks, headers: []header{{"X-Forwarded-Proto", "https"}}}, 301},
	{"the filter is off on a hook's own route", "", `
- {at: $perroute.disabled, remove: true}
- {at: $perroute.check_settings, set: {context_extensions: {hookauthz.endpoint: raw}}}`, attack{path: webhooks}, 401},
	{"the filter is off on a virtual host by a FilterConfig, and one route says nothing", "", `- {at: $host.typed_per_filter_config, remove: true}`, attack{path: webhooks}, 401},
	{"the filter is off on one of two weighted clusters", `- {at: "$github.route.weighted_clusters.clusters[1].weight", set: 99}`,
		`- {at: "$github.route.weighted_clusters.clusters[1].typed_per_filter_config", remove: true}`, attack{path: webhooks}, 401},
	{"the filter is off in the chain, and one route does not turn it on", "", `- {at: $entry.disabled, set: false}`, attack{path: webhooks}, 401},
	{"everything passes while the authorizer is away", "", `- {at: $authz.failure_mode_allow, set: false}`, attack{path: webhooks, down: true}, 503},
	{"half of the requests are checked", "", `- {at: $authz.filter_enabled, remove: true}`, attack{path: webhooks}, 401},
	{"a runtime layer turns the Check off", "", `- {at: $authz.deny_at_disable, set: {default_value: true, runtime_key: hooks.closed}}`, attack{path: webhooks}, 503},
	{"metadata decides whether there is a Check", "", `- {at: $authz.filter_enabled_metadata, remove: true}`, attack{path: webhooks}, 401},
	{"denials are only noted down", "", `- {at: $authz.shadow_mode, set: false}`, attack{path: webhooks}, 401},
	{"websocket upgrades run filters of their own", "", `- {at: $hcm.upgrade_configs, remove: true}`,
		attack{path: webhooks, headers: []header{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}}}, 403},
	{"a header of the request names the cluster", "", `- {at: "$routes[-1].route", set: {cluster: webhook_authz}}`, attack{path: "/to", headers: []header{{"X-Cluster", "app"}}}, 0},
	{"a header of the request names the address", "", `- {at: "$clusters[name=anywhere].original_dst_lb_config", remove: true}`, attack{path: "/to"}, 503},
	{"unchecked requests are mirrored to the application", "", `- {at: "$routes[-1].route.request_mirror_policies", remove: true}`, attack{path: "/www"}, 503},
	{"a matcher decides whether there is a Check", `- {at: "$config.virtual_hosts[0].routes[0].match.prefix", set: /e2e/}`, `- {at: $entry.typed_config, set: *authz}`, attack{path: webhooks, headers: []header{{"X-Internal", "1"}}}, 401},
	{"nothing sets the header that a policy believes", `
- {at: $routes, add: {match: {path: /e2e/by-header}, route: {cluster: app, timeout: 15s}}}`, `
- at: $filters
  first:
    name: envoy.filters.http.header_mutation
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
      mutations:
        request_mutations:
        - append: {header: {key: x-hookauthz-client-ip, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}`,
		attack{path: "/e2e/by-header", signed: true, from: "127.1.9.9", headers: []header{{"X-Hookauthz-Client-Ip", "127.1.1.7"}}}, 403},
}

// Each of these weakenings lets a delivery in that nobody signed, in an Envoy that runs; lint finds it. With the fix that lint names the
// same delivery is refused, and lint finds it no more.
func TestBypasses(t *testing.T) {
	s := setup(t)
	all, config, _ := mutants(t)
	config = bytes.ReplaceAll(config, []byte("/webhooks/github"), []byte(webhooks))
	config = bytes.ReplaceAll(config, []byte("hookauthz.endpoint: github"), []byte("hookauthz.endpoint: raw"))
	policies, err := s.Policies()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bypasses {
		scenario(t, b.mutation, func(t *testing.T) {
			i := slices.IndexFunc(all.Mutations, func(m mutation.Mutation) bool { return m.Name == b.mutation })
			if i < 0 {
				t.Fatal("there is no such mutation")
			}
			m := all.Mutations[i]
			weak := edited(t, all, edited(t, all, config, m.Edits), edits(t, config, b.more))
			fixed := edited(t, all, weak, edits(t, config, b.fix))

			finds := func(config []byte) bool {
				file := filepath.Join(t.TempDir(), "envoy.yaml")
				if err := os.WriteFile(file, config, 0o600); err != nil {
					t.Fatal(err)
				}
				findings, _ := lint(t, "--policies", policies, file)
				return slices.Contains(lintRules(findings), m.Rule)
			}
			if !finds(weak) {
				t.Errorf("lint does not find %s", m.Rule)
			}
			if finds(fixed) {
				t.Errorf("lint finds %s in what is fixed", m.Rule)
			}

			open := attacked(t, s, weak, b.attack)
			agent := newAgent()
			eventually(t, func() error {
				// Some of these are a matter of chance: whoever attacks tries again.
				status := b.attack.send(t, open, agent)
				if got, err := s.Received(agent); err != nil || len(got) > 0 {
					return err
				}
				return fmt.Errorf("the delivery is answered %d and does not reach the application", status)
			})

			closed := attacked(t, s, fixed, b.attack)
			agent = newAgent()
			for range 20 {
				if status := b.attack.send(t, closed, agent); b.status != 0 && status != b.status {
					t.Fatalf("with the fix it is answered %d, want %d", status, b.status)
				}
			}
			if got := arrived(t, s, agent); len(got) > 0 {
				t.Errorf("with the fix %d of 20 reach the application", len(got))
			}
		})
	}
}

// edits reads edits; *authz in them is the filter's right configuration.
func edits(t *testing.T, config []byte, text string) []mutation.Edit {
	t.Helper()
	if strings.Contains(text, "*authz") {
		set, err := mutation.All()
		if err != nil {
			t.Fatal(err)
		}
		var root yaml.Node
		if err := yaml.Unmarshal(config, &root); err != nil {
			t.Fatal(err)
		}
		right, err := set.Find(root.Content[0], "$authz")
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := right.Decode(&tree); err != nil {
			t.Fatal(err)
		}
		var node yaml.Node
		if err := node.Encode(tree); err != nil {
			t.Fatal(err)
		}
		return []mutation.Edit{{At: "$entry.typed_config", Set: node}}
	}
	var list []mutation.Edit
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func edited(t *testing.T, all *mutation.Set, config []byte, edits []mutation.Edit) []byte {
	t.Helper()
	text, err := all.Apply(config, mutation.Mutation{Edits: edits})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// attacked runs an Envoy with a configuration, before the application and the authorizer of the stack.
func attacked(t *testing.T, s *stack.Stack, config []byte, a attack) *stack.Stack {
	t.Helper()
	admin := startEnvoy(t, onLoopback(t, config, func(was string) string {
		switch {
		case strings.EqualFold(was, "app:8080"):
			return s.AppAddr
		case was == "hookauthz:9001" && !a.down:
			return s.AuthzAddr
		}
		return "127.0.0.1:1" // where nobody listens
	}), s.TLS)
	through, err := s.Through(admin)
	if err != nil {
		t.Fatal(err)
	}
	return through
}

// send attacks once and gives the status of the answer; 0 where there is none.
func (a attack) send(t *testing.T, s *stack.Stack, agent string) int {
	t.Helper()
	listener := a.listener
	if listener == "" {
		listener = "hooks"
	}
	dialer := &net.Dialer{Timeout: patience}
	if a.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(a.from)}
	}
	conn, err := dialer.Dial("tcp", s.Listeners[listener])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if listener == "hooks" {
		conn = tls.Client(conn, s.ClientTLS())
	}
	conn.SetDeadline(time.Now().Add(patience))
	body, length := `{"forged":true}`, "Content-Length: 15\r\n"
	headers := a.headers
	if a.signed {
		headers = append(slices.Clone(headers), guide(a.path, secret, []byte(body)).Headers...)
	}
	if slices.ContainsFunc(headers, func(h header) bool { return h[0] == "Upgrade" }) {
		body, length = "", "" // Envoy holds it back until the application has agreed
	} else {
		headers = append(slices.Clone(headers), header{"Connection", "close"})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nX-Envoy-Original-Dst-Host: %s\r\n%s", a.path, stack.Host, agent, s.AppAddr, length)
	for _, h := range headers {
		fmt.Fprintf(&text, "%s: %s\r\n", h[0], h[1])
	}
	if _, err := io.WriteString(conn, text.String()+"\r\n"+body); err != nil {
		return 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
