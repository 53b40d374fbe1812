package envoy

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// one is the policy of most tests.
var one = policy.EndpointInfo{Name: "github", Paths: []string{"/webhooks/github"}, MaxBytes: 1 << 20, Headers: []string{"x-hub-signature-256"}}

var many = []policy.EndpointInfo{
	{Name: "acme", Hosts: []string{"*.example.com"}, Paths: []string{"/acme/*", "/acme/special"}, MaxBytes: 64 << 10},
	{Name: "everywhere", Paths: []string{"/hook", "/acme/special"}, MaxBytes: 1 << 20},
	{Name: "github", Hosts: []string{"hooks.example.com", "localhost", "::1"}, Paths: []string{"/webhooks/github"}, MaxBytes: 25 << 20},
	{Name: "mercado", Hosts: []string{"hooks.example.com"}, Paths: []string{"/webhooks/mercado"}, MaxBytes: 1 << 20, Headers: []string{"x-signature", "x-request-id"}},
	{Name: "nowhere", MaxBytes: 1 << 30},
	{Name: "orders", Hosts: []string{"hooks.example.com", "localhost", "::1"}, Paths: []string{"/webhooks/orders"}, MaxBytes: 1 << 20, Reservation: 10 * time.Second},
}

func address(t *testing.T, s string) Address {
	t.Helper()
	a, err := ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func newPlan(t *testing.T, c Config) *Plan {
	t.Helper()
	if c.Listen == (Address{}) {
		c.Listen = address(t, "127.0.0.1:8443")
	}
	if c.Authz == (Address{}) {
		c.Authz = address(t, "127.0.0.1:9001")
	}
	c.Upstream = address(t, "127.0.0.1:8080")
	p, err := NewPlan(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// files that the end-to-end tests make, so that Envoy can be asked about the golden files.
func files(name string) KeyPair {
	return KeyPair{"/run/hookauthz-tls/" + name + ".pem", "/run/hookauthz-tls/" + name + ".key"}
}

func cases(t *testing.T) map[string]Config {
	senders := files("hooks")
	mutual := &MutualTLS{"/run/hookauthz-tls/ca.pem", files("envoy")}
	underscored := one
	underscored.Headers = []string{"x_signature"}
	return map[string]Config{
		"plain":       {Endpoints: []policy.EndpointInfo{one}},
		"socket":      {Endpoints: []policy.EndpointInfo{one}, Authz: address(t, "unix:/run/hookauthz/authz.sock")},
		"many":        {Endpoints: many, Listen: address(t, "0.0.0.0:8443"), AdminPort: 9901, TLS: &senders, Authz: address(t, "hookauthz:9001"), AuthzTLS: mutual},
		"addresses":   {Endpoints: []policy.EndpointInfo{one}, Listen: address(t, "[::]:8443"), TLS: &senders, Authz: address(t, "10.20.30.40:9001"), AuthzTLS: mutual},
		"proxied":     {Endpoints: []policy.EndpointInfo{one}, ProxyProtocol: true, ProxyFrom: prefixes("10.20.30.0/28", "fd00::/64"), XFFTrusted: prefixes("10.20.40.1/32")},
		"unpinned":    {Endpoints: []policy.EndpointInfo{one}, ProxyProtocol: true, MaxConnections: 100, MaxHeap: 1 << 30},
		"pass":        {Endpoints: many, PassOthers: true},
		"underscored": {Endpoints: []policy.EndpointInfo{underscored}},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".yaml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is stale; run go test ./envoy -update and look at the difference (-want +got):\n%s", path, diff)
	}
}

func TestBootstrap(t *testing.T) {
	for name, c := range cases(t) {
		t.Run(name, func(t *testing.T) {
			p := newPlan(t, c)
			got, err := p.Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			again, err := newPlan(t, c).Bootstrap()
			if err != nil || again != got {
				t.Errorf("a second time it is not the same (error %v)", err)
			}
			golden(t, name, got)

			// What is written is what was validated.
			want, err := p.bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			var read bootstrapv3.Bootstrap
			if err := protojson.Unmarshal(toJSON(t, got), &read); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, &read, protocmp.Transform()); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFilter(t *testing.T) {
	for _, name := range []string{"many", "proxied"} {
		t.Run(name, func(t *testing.T) {
			got, err := newPlan(t, cases(t)[name]).Filter()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "filter-"+name, got)
			// Every part says the same as in the bootstrap.
			bootstrap, err := newPlan(t, cases(t)[name]).Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			var parts, whole map[string]any
			decode(t, got, &parts)
			decode(t, bootstrap, &whole)
			listener := whole["static_resources"].(map[string]any)["listeners"].([]any)[0].(map[string]any)
			manager := listener["filter_chains"].([]any)[0].(map[string]any)["filters"].([]any)[0].(map[string]any)["typed_config"].(map[string]any)
			put := parts["http_connection_manager"].(map[string]any)
			for _, key := range []string{"http_filters", "access_log", "route_config"} {
				put[key] = parts[key]
			}
			delete(manager, "@type")
			delete(manager, "stat_prefix")
			if diff := cmp.Diff(manager, put); diff != "" {
				t.Errorf("connection manager (-bootstrap +parts):\n%s", diff)
			}
			if diff := cmp.Diff(whole["static_resources"].(map[string]any)["clusters"], parts["clusters"]); diff != "" {
				t.Errorf("clusters (-bootstrap +parts):\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, text string) []byte {
	t.Helper()
	var v any
	decode(t, text, &v)
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// meshed is a Config whose application and authorizer are services.
func meshed(t *testing.T, endpoints []policy.EndpointInfo) Config {
	return Config{Endpoints: endpoints, Authz: address(t, "hookauthz.security:9001")}
}

func meshPlan(t *testing.T, c Config) *Plan {
	t.Helper()
	p := newPlan(t, c)
	p.config.Upstream = address(t, "app:8080")
	return p
}

var mesh = Mesh{Namespace: "webhooks", Gateway: "hooks", Listener: "https", Certificate: "hooks-tls"}

// formats are the writers of manifests.
var formats = map[string]func(*Plan, Mesh) (string, error){
	"istio": (*Plan).Istio, "envoy-gateway": (*Plan).EnvoyGateway, "contour": (*Plan).Contour,
}

func TestMeshes(t *testing.T) {
	named := slices.DeleteFunc(slices.Clone(many), func(e policy.EndpointInfo) bool { return e.Name == "everywhere" }) // Contour wants hosts
	for i := range named {
		named[i].Hosts = slices.DeleteFunc(slices.Clone(named[i].Hosts), func(h string) bool { return h == "::1" })
	}
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			got, err := format(meshPlan(t, meshed(t, named)), mesh)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("..", "mesh", name), got)
			for _, want := range []string{"failOpen: false", "maxRequestBytes: 26214400", "8s", "# No route: nowhere."} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q", want)
				}
			}
			docs := yaml.NewDecoder(strings.NewReader(got))
			seen := make(map[string]bool)
			for {
				var doc struct {
					APIVersion string `yaml:"apiVersion"`
					Kind       string
					Metadata   struct{ Name, Namespace string }
					Spec       map[string]any
				}
				err := docs.Decode(&doc)
				if errors.Is(err, io.EOF) {
					break
				}
				id := doc.Kind + " " + doc.Metadata.Namespace + "/" + doc.Metadata.Name
				if err != nil || doc.APIVersion == "" || doc.Metadata.Name == "" || len(doc.Spec) == 0 || seen[id] {
					t.Errorf("%s (error %v): not whole, or there twice", id, err)
				}
				seen[id] = true
			}
			if len(seen) < 4 {
				t.Errorf("%d objects, want 4 and more", len(seen))
			}
		})
	}
}

func TestMeshesRefuse(t *testing.T) {
	byName, addressed := one, one
	byName.Hosts = []string{"hooks.example.com"}
	addressed.Hosts = []string{"10.0.0.1"}
	spoofed := byName
	spoofed.ClientHeader = "x-hookauthz-client-ip"
	twin := byName
	twin.Name, twin.Paths = "git_hub", []string{"/x"}
	other := byName
	other.Name, other.Paths = "git-hub", []string{"/y"}
	all := []string{"istio", "envoy-gateway", "contour"}
	for _, tt := range []struct {
		name    string
		formats []string
		change  func(*Config)
		want    string
	}{
		{"others that pass", all, func(c *Config) { c.PassOthers = true }, "others can only be denied"},
		{"an authorizer at an address", all, func(c *Config) { c.Authz = address(t, "127.0.0.1:9001") }, "127.0.0.1 is no service"},
		{"an authorizer at a socket", all, func(c *Config) { c.Authz = address(t, "unix:/run/a.sock") }, "are services"},
		{"proxies", all, func(c *Config) { c.XFFTrusted = prefixes("10.0.0.1/32") }, "the gateway's own settings"},
		{"certificates", all, func(c *Config) { c.TLS = &KeyPair{"a", "b"} }, "the gateway's own settings"},
		{"a host that is an address", all, func(c *Config) { c.Endpoints = []policy.EndpointInfo{addressed} }, "the host 10.0.0.1 is an address"},
		{"names that become one", []string{"envoy-gateway"}, func(c *Config) { c.Endpoints = []policy.EndpointInfo{twin, other} }, "rename one"},
		{"any host", []string{"contour"}, func(c *Config) { c.Endpoints = []policy.EndpointInfo{one} }, "want match.hosts"},
		{"a header that nobody overwrites", []string{"contour"}, func(c *Config) { c.Endpoints = []policy.EndpointInfo{spoofed} }, "anybody could claim any address"},
	} {
		for _, name := range tt.formats {
			c := meshed(t, []policy.EndpointInfo{byName})
			if text, err := formats[name](meshPlan(t, c), mesh); err != nil || text == "" {
				t.Fatalf("%s: unchanged: %v", name, err)
			}
			tt.change(&c)
			if text, err := formats[name](meshPlan(t, c), mesh); text != "" || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, %s: error %v, want one with %q and nothing written", tt.name, name, err, tt.want)
			}
		}
	}
}

// What the EnvoyFilter merges is valid in a filter as Istio makes it, and says the same as a bootstrap.
func TestIstioFilterFits(t *testing.T) {
	p := meshPlan(t, meshed(t, many[:4]))
	whole := p.extAuthz()
	whole.FailureModeAllow, whole.ClearRouteCache = false, false
	theirs := &extauthzv3.ExtAuthz{
		Services: whole.Services, TransportApiVersion: whole.TransportApiVersion, StatusOnError: whole.StatusOnError,
		WithRequestBody: whole.WithRequestBody, EmitFilterStateStats: true, StatPrefix: whole.StatPrefix,
	}
	proto.Merge(theirs, p.istioAuthz())
	if err := check(theirs); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(whole, theirs, protocmp.Transform()); diff != "" {
		t.Errorf("merged (-bootstrap +Istio's):\n%s", diff)
	}
}

// Each setting that keeps a way around closed is written out, in every configuration.
func TestNothingIsLeftOpen(t *testing.T) {
	for name, c := range cases(t) {
		got, err := newPlan(t, c).Bootstrap()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"failure_mode_allow: false", "status_on_error: {code: ServiceUnavailable}", "allow_partial_message: false, pack_as_bytes: true",
			"clear_route_cache: false", "encode_raw_headers: true", "validate_mutations: true", "disallow_is_error: true",
			"normalize_path: true", "merge_slashes: false", "path_with_escaped_slashes_action: REJECT_REQUEST",
			"request_headers_timeout: 5s", "request_timeout: 30s", "stream_idle_timeout: 30s", "transport_api_version: V3",
			"envoy.resource_monitors.global_downstream_max_connections", "envoy.resource_monitors.fixed_heap", "grpc_health_check:", "connection_keepalive:",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		for _, never := range []string{"upgrade_configs:", "allow_connect", "retry_policy", "filter_enabled", "0.0.0.0, port_value: 9901"} {
			if strings.Contains(got, never) {
				t.Errorf("%s: holds %q", name, never)
			}
		}
		if open := strings.Contains(got, "disabled: true"); open != c.PassOthers {
			t.Errorf("%s: routes without the filter: %t, want %t", name, open, c.PassOthers)
		}
	}
}

func TestWhatFollowsFromPolicies(t *testing.T) {
	of := func(change func(*policy.EndpointInfo)) []policy.EndpointInfo {
		e := one
		change(&e)
		return []policy.EndpointInfo{one, e}
	}
	for _, tt := range []struct {
		name      string
		endpoints []policy.EndpointInfo
		want      string
		without   string // not there with the one policy alone
	}{
		{"largest body", of(func(e *policy.EndpointInfo) { e.MaxBytes = 25 << 20 }), "max_request_bytes: 26214400", "26214400"},
		{"time for it", of(func(e *policy.EndpointInfo) { e.MaxBytes = 25 << 20 }), "authority: hookauthz}, timeout: 8s}", "timeout: 8s"},
		{"fewer at once", of(func(e *policy.EndpointInfo) { e.MaxBytes = 25 << 20 }), "max_requests: 164", "164"},
		{"x-request-id", of(func(e *policy.EndpointInfo) { e.Headers = []string{"x-request-id"} }), "preserve_external_request_id: true", "preserve_external_request_id"},
		{"outcomes", of(func(e *policy.EndpointInfo) { e.Reservation = time.Minute }), "path: [{key: reservation}]", "reservation"},
		{"short reservation", of(func(e *policy.EndpointInfo) { e.Reservation, e.Paths = 5*time.Second, []string{"/a"} }), "route: {cluster: app, timeout: 5s}", "app, timeout: 5s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			alone, err := newPlan(t, Config{Endpoints: []policy.EndpointInfo{one}}).Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			got, err := newPlan(t, Config{Endpoints: tt.endpoints}).Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got, tt.want) || strings.Contains(alone, tt.without) {
				t.Errorf("holds %q: %t, want true; alone it holds %q: %t, want false", tt.want, strings.Contains(got, tt.want), tt.without, strings.Contains(alone, tt.without))
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	nowhere, forwarded, huge, none := one, one, one, one
	none.MaxBytes = 0
	nowhere.Paths = nil
	forwarded.Headers = []string{"x-forwarded-for"}
	huge.MaxBytes = 2 << 30
	for _, tt := range []struct {
		name      string
		endpoints []policy.EndpointInfo
		want      string
	}{
		{"no path", []policy.EndpointInfo{nowhere}, "nothing to route"},
		{"no policy", nil, "nothing to route"},
		{"a header of Envoy's", []policy.EndpointInfo{forwarded}, `webhook "github": its scheme reads the header "x-forwarded-for"`},
		{"no size", []policy.EndpointInfo{none}, "a body of 0 bytes"},
		{"too large", []policy.EndpointInfo{huge}, "a body of 2147483648 bytes"},
	} {
		if _, err := NewPlan(Config{Endpoints: tt.endpoints}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// An invalid configuration is not written, however deep the fault lies.
func TestCheckLooksIntoEverything(t *testing.T) {
	p := newPlan(t, Config{Endpoints: []policy.EndpointInfo{one}})
	p.hosts[0].domains = []string{"a\x00"}
	if _, err := p.Bootstrap(); err == nil || !strings.Contains(err.Error(), "Domains") {
		t.Errorf("error %v, want one about Domains", err)
	}
	p = newPlan(t, Config{Endpoints: []policy.EndpointInfo{one}})
	p.maxBytes = 0
	if _, err := p.Filter(); err == nil || !strings.Contains(err.Error(), "MaxRequestBytes") {
		t.Errorf("error %v, want one about MaxRequestBytes", err)
	}
	p = newPlan(t, Config{Endpoints: []policy.EndpointInfo{one}})
	p.config.Authz.Port, p.config.Authz.Host = 0, ""
	if _, err := p.Filter(); err == nil || !strings.Contains(err.Error(), "Address") {
		t.Errorf("error %v, want one about Address", err)
	}
}

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		text  string
		want  Address
		local bool
	}{
		{"127.0.0.1:9001", Address{Host: "127.0.0.1", Port: 9001}, true},
		{"[::1]:9001", Address{Host: "::1", Port: 9001}, true},
		{"localhost:1", Address{Host: "localhost", Port: 1}, true},
		{"app.team_a.svc:65535", Address{Host: "app.team_a.svc", Port: 65535}, false},
		{"0.0.0.0:80", Address{Host: "0.0.0.0", Port: 80}, false},
		{"unix:/run/authz.sock", Address{Path: "/run/authz.sock"}, true},
	} {
		got, err := ParseAddress(tt.text)
		if err != nil || got != tt.want || got.Local() != tt.local {
			t.Errorf("ParseAddress(%q) = %+v (local %t), %v; want %+v (local %t)", tt.text, got, got.Local(), err, tt.want, tt.local)
		}
	}
	for _, text := range []string{"", "app", ":80", "app:0", "app:65536", "app:http", "a b:80", "a..b:80", "http://app:80", "unix:authz.sock", "unix:/" + strings.Repeat("a", 107), "[fe80::1%eth0:80"} {
		if got, err := ParseAddress(text); err == nil {
			t.Errorf("ParseAddress(%q) = %+v, want an error", text, got)
		}
	}
}

// asEnvoy finds a request's route as Envoy does: one virtual host (the exact domain, the longest wildcard, any), its first match.
func asEnvoy(hosts []virtualHost, host, path string) (route, bool) {
	best, length := -1, -1
	for i, h := range hosts {
		for _, d := range h.domains {
			n := -1
			switch suffix, wild := strings.CutPrefix(d, "*"); {
			case d == host:
				n = 1 << 10
			case wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix):
				n = len(suffix)
			}
			if n > length {
				best, length = i, n
			}
		}
	}
	if best < 0 {
		return route{}, false
	}
	for _, r := range hosts[best].routes {
		beginning, open := strings.CutSuffix(r.pattern, "*")
		switch {
		case r.action == pass && regexp.MustCompile("^(?:"+clean+")$").MatchString(path),
			r.action == refuse && open && strings.HasPrefix(strings.ToLower(path), beginning),
			r.action == refuse && r.pattern == path,
			r.action == toEndpoint && open && strings.HasPrefix(path, beginning),
			r.action == toEndpoint && r.pattern == path:
			return r, true
		}
	}
	return route{}, false
}

// asHookauthz finds the policy by the rule of docs/policy.md: the host exactly, by its longest suffix, or any; within it the path
// exactly or by its longest prefix; the next host pattern where none matches.
func asHookauthz(endpoints []policy.EndpointInfo, host, path string) string {
	best, name := -1, ""
	for _, e := range endpoints {
		hosts := e.Hosts
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		for _, h := range hosts {
			hostScore := -1
			switch suffix, wild := strings.CutPrefix(h, "*"); {
			case h == host:
				hostScore = 500
			case wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix):
				hostScore = len(suffix)
			}
			if hostScore < 0 {
				continue
			}
			for _, p := range e.Paths {
				pathScore := -1
				switch beginning, open := strings.CutSuffix(p, "*"); {
				case p == path:
					pathScore = 500
				case open && strings.HasPrefix(path, beginning):
					pathScore = len(beginning)
				}
				if score := hostScore*1000 + pathScore; pathScore >= 0 && score > best {
					best, name = score, e.Name
				}
			}
		}
	}
	return name
}

// Envoy's routes choose the policy that hookauthz would choose by host and path, for any set of policies.
func TestRoutesChooseAsHookauthzDoes(t *testing.T) {
	hosts := []string{"*.com", "*.a.com", "*.b.a.com", "a.com", "b.a.com", "c.b.a.com", "other.com", "::1"}
	paths := []string{"/*", "/", "/a", "/a/*", "/a/b", "/a/b/*", "/a/b/c", "/A", "/ab"}
	requests := []string{"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/A", "/ab", "/x", "/a/x"}
	rapid.Check(t, func(t *rapid.T) {
		taken := make(map[string]bool) // equally specific policies are a fault at load time
		var endpoints []policy.EndpointInfo
		for i := range rapid.IntRange(1, 6).Draw(t, "policies") {
			e := policy.EndpointInfo{Name: string(rune('p' + i)), MaxBytes: 1}
			e.Hosts = rapid.SliceOfNDistinct(rapid.SampledFrom(hosts), 0, 3, rapid.ID).Draw(t, "hosts")
			for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom(paths), 1, 4, rapid.ID).Draw(t, "paths") {
				free := true
				for _, h := range append([]string{}, hostsOf(e)...) {
					free = free && !taken[h+" "+path]
				}
				if !free {
					continue
				}
				for _, h := range hostsOf(e) {
					taken[h+" "+path] = true
				}
				e.Paths = append(e.Paths, path)
			}
			if len(e.Paths) > 0 {
				endpoints = append(endpoints, e)
			}
		}
		passOthers := rapid.Bool().Draw(t, "pass")
		made := virtualHosts(endpoints, passOthers)
		host := rapid.SampledFrom([]string{"a.com", "b.a.com", "c.b.a.com", "d.c.b.a.com", "x.a.com", "other.com", "localhost"}).Draw(t, "host")
		path := rapid.SampledFrom(requests).Draw(t, "path")
		want := asHookauthz(endpoints, host, path)
		got, found := asEnvoy(made, host, path)
		if got.endpoint != want {
			t.Fatalf("%s%s goes to %q, want %q\n%+v", host, path, got.endpoint, want, made)
		}
		if found && got.endpoint == "" && !passOthers {
			t.Fatalf("%s%s has a route without a policy", host, path)
		}
		seen := make(map[string]bool)
		for _, h := range made {
			for _, d := range h.domains {
				if seen[d] {
					t.Fatalf("the domain %s occurs twice: Envoy refuses that", d)
				}
				seen[d] = true
			}
		}
	})
}

func hostsOf(e policy.EndpointInfo) []string {
	if len(e.Hosts) == 0 {
		return []string{"*"}
	}
	return e.Hosts
}

// Where others pass, nothing that an application could take for a webhook does.
func TestOthersThatPass(t *testing.T) {
	made := virtualHosts([]policy.EndpointInfo{
		{Name: "github", Hosts: []string{"hooks.example.com"}, Paths: []string{"/webhooks/github"}},
		{Name: "acme", Hosts: []string{"hooks.example.com"}, Paths: []string{"/acme/*"}},
		{Name: "root", Hosts: []string{"root.example.com"}, Paths: []string{"/"}},
	}, true)
	for _, path := range []string{
		"/webhooks/GitHub", "/webhooks/github/", "/webhooks/github.json", "/webhooks/github;x=1", "/webhooks//github", "//webhooks/github",
		"/webhooks/github%00", "/webhooks%2fgithub", "/x/..;/webhooks/github", "/webhooks/%67ithub", "/webhooks/github%3bx", "/webhooks/github%20",
		"/ACME", "/acme", "/x\\y", "/%5cx", "/x#y", "/x%23", "/x%3Fy", "/x%2e%2e/", "/x%zz", "/x%", "*", "",
	} {
		for _, host := range []string{"hooks.example.com", "other.example.com"} {
			if r, found := asEnvoy(made, host, path); found && r.action != refuse {
				t.Errorf("%s%s has the route %+v, want none", host, path, r)
			}
		}
	}
	for host, path := range map[string]string{"other.example.com": "/webhooks/github", "hooks.example.com": "/", "localhost": "/acme/x"} {
		if r, found := asEnvoy(made, host, path); !found || r.action != refuse {
			t.Errorf("%s%s has the route %+v (%t), want a refusal: the application may not look at the host", host, path, r, found)
		}
	}
	for _, path := range []string{"/index.html", "/a/b/", "/caf%C3%A9", "/a%20b", "/webhooks", "/@user/x:y"} {
		if r, _ := asEnvoy(made, "hooks.example.com", path); r.action != pass {
			t.Errorf("%s has the route %+v, want it to pass", path, r)
		}
	}
	// A policy for every path of a host leaves nothing to pass at another.
	all := virtualHosts([]policy.EndpointInfo{{Name: "all", Hosts: []string{"a.com"}, Paths: []string{"/*"}}}, true)
	if r, found := asEnvoy(all, "b.com", "/x"); !found || r.action != refuse {
		t.Errorf("b.com/x has the route %+v (%t), want a refusal", r, found)
	}
}

// Any string is read back as it was written, at its key and in flow style.
func TestStringsAreReadBack(t *testing.T) {
	odd := []string{"", "y", "No", "null", "~", "1", "1.5", "1e3", "0x1F", "1_000", "2026-11-24", "12:30:45", "a: b", "a #b", "- a", "[a]", "{a}", "a,b", "*a", "&a", "!a", "%a", "@a", "`a", "'", `"`, `\`, "\n", "a\tb", "é", "<&>", ".5", ".", "..", "._", "=", "<<", "a:", "a:b", ":a", "-", "---", "/a/*", "0.0.0.0", "1.2.3", "15s", "\u2028", "\x7f"}
	check := func(t interface{ Fatalf(string, ...any) }, s string) {
		doc := (&node{kind: mapNode, fields: []field{
			{key: s, value: text(s)},
			{key: "list", value: &node{kind: listNode, items: []*node{text(s), text(s)}}, comment: "one\ntwo"},
		}}).print()
		var got map[string]any
		if err := yaml.Unmarshal([]byte(doc), &got); err != nil {
			t.Fatalf("%q: %v\n%s", s, err, doc)
		}
		want := map[string]any{s: s, "list": []any{s, s}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s\n%s", s, diff, doc)
		}
	}
	for _, s := range odd {
		check(t, s)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.StringN(0, 30, -1).Draw(t, "string")) })
}

// What is an address is written as Envoy's API takes it, whatever the text.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:9001", "[::1]:9001", "app.svc:80", "unix:/run/a.sock", ":80", "a:b:c", "[fe80::1%eth0]:80", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if err := check(socket(a)); err != nil || (a.Path == "") == (a.Host == "") || (a.Path == "" && a.Port == 0) {
			t.Errorf("ParseAddress(%q) = %+v, which is not valid: %v", s, a, err)
		}
	})
}
