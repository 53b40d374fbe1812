package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// validate asks Envoy whether it would run a configuration.
func validate(t *testing.T, text []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(within(t), envoy, "--mode", "validate", "-c", path, "--log-level", "error").CombinedOutput()
	if err != nil {
		t.Errorf("envoy --mode validate: %v\n%s", err, out)
	}
}

// Envoy takes every golden file of envoy/, bootstraps as they are and parts in a listener, and the file of the sidecar in deploy/.
func TestEnvoyTakesWhatIsRendered(t *testing.T) {
	setup(t)
	dir := t.TempDir()
	if out, err := exec.Command(binaries.Certs, dir).CombinedOutput(); err != nil {
		t.Fatalf("make certificates: %v: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(root, "envoy", "testdata", "golden", "*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d golden files (error %v), want 10 and more", len(files), err)
	}
	files = append(files, filepath.Join(root, "deploy", "kustomize", "overlays", "uds-sidecar", "envoy.yaml"))
	made := strings.NewReplacer("/run/hookauthz-tls", dir, "/run/envoy-tls/tls.crt", dir+"/hooks.pem", "/run/envoy-tls/tls.key", dir+"/hooks.key")
	for _, file := range files {
		scenario(t, filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text = []byte(made.Replace(string(text)))
			if strings.HasPrefix(filepath.Base(file), "filter-") {
				text = inListener(t, text)
			}
			validate(t, text)
		})
	}
}

// inListener puts the parts that --format filter writes where its keys say.
func inListener(t *testing.T, text []byte) []byte {
	t.Helper()
	var parts map[string]any
	if err := yaml.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	manager := parts["http_connection_manager"].(map[string]any)
	manager["@type"] = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	manager["stat_prefix"] = "edge"
	for _, key := range []string{"http_filters", "access_log", "route_config"} {
		manager[key] = parts[key]
	}
	out, err := json.Marshal(map[string]any{"static_resources": map[string]any{
		"clusters": parts["clusters"],
		"listeners": []any{map[string]any{
			"name":          "edge",
			"address":       map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
			"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}}}},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rendered starts a stack whose Envoy file is made with these flags, for the policies of all tests.
func rendered(t *testing.T, flags ...string) *stack.Stack {
	t.Helper()
	setup(t)
	dir := t.TempDir()
	policies, err := makePolicies(dir)
	if err != nil {
		t.Fatal(err)
	}
	return up(t, stack.Config{Dir: dir, Policies: policies, Render: flags})
}

// unchecked sends a request that must reach the application without a Check, and returns it as it arrived there.
func unchecked(t *testing.T, s *stack.Stack, d delivery) stack.Arrived {
	t.Helper()
	r := send(t, s, d)
	got := arrived(t, s, r.agent)
	if r.Status != http.StatusOK || len(got) != 1 {
		t.Fatalf("status %d, %d times at the application, want 200 and once", r.Status, len(got))
	}
	if decision := logged(t, s, r.agent)["decision"]; decision != nil {
		t.Errorf("hookauthz was asked, and decided %v", decision)
	}
	return got[0]
}

func TestRenderedOthersPass(t *testing.T) {
	s := rendered(t, "--others", "pass")
	get := func(path string, h ...header) delivery { return delivery{Method: "GET", Path: path, Headers: h} }
	scenario(t, "what no policy is for", func(t *testing.T) {
		got := unchecked(t, s, get("/shop/caf%C3%A9?a=b", header{"X-Hookauthz-Endpoint", "github"}, header{"X-Hookauthz-Anything", "1"},
			header{"X-Original-Url", "/webhooks/github"}, header{"X-Rewrite-Url", "/webhooks/github"}))
		for name := range got.Headers {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-hookauthz-") && name != "x-hookauthz-client-ip" || name == "x-original-url" || name == "x-rewrite-url" {
				t.Errorf("the application sees %s", name)
			}
		}
	})
	scenario(t, "at any host", func(t *testing.T) {
		d := get("/shop")
		d.Host = "shop.example.org"
		unchecked(t, s, d)
	})
	scenario(t, "a valid delivery", func(t *testing.T) {
		passes(t, s, guide("/e2e/raw", secret, []byte("others pass")), "ok")
	})
	scenario(t, "a forged delivery", func(t *testing.T) {
		denied(t, s, guide("/e2e/raw", "wrong", []byte("x")), 401, "signature_mismatch")
	})
	for _, path := range []string{"/e2e/RAW", "/e2e/raw/", "/e2e/raw.json", "/e2e/raw;x=1", "/e2e//raw", "//e2e/raw", "/e2e/raw%20", "/e2e/raw%3bx", "/E2E/raw/x"} {
		scenario(t, "another spelling: "+path, func(t *testing.T) { refused(t, s, guide(path, secret, []byte("x")), 404) })
	}
	for _, host := range []string{"other.example.org", "10.0.0.1", "hooks.example.com."} {
		scenario(t, "another host: "+host, func(t *testing.T) {
			d := guide("/e2e/raw", secret, []byte("x"))
			d.Host = host
			refused(t, s, d, 404)
		})
	}
}

func TestRenderedBehindProxies(t *testing.T) {
	s := rendered(t, "--xff-trusted", "127.1.1.8/32,127.1.1.9/32")
	d := func(endpoint, from string, forwarded ...string) delivery {
		d := guide("/e2e/"+endpoint, secret, []byte("x"))
		d.From = from
		for _, v := range forwarded {
			d = d.With(header{"X-Forwarded-For", v})
		}
		return d
	}
	for _, tt := range []struct {
		name   string
		d      delivery
		status int
		reason string
	}{
		{"a trusted proxy forwards", d("by-header", "127.1.1.8", "127.1.1.7"), 200, "ok"},
		{"two do", d("by-header", "127.1.1.8", "127.1.1.7, 127.1.1.9"), 200, "ok"},
		{"forged left of the client", d("by-header", "127.1.1.8", "127.1.1.7, 203.0.113.7"), 403, "source_denied"},
		{"an allowed peer, without a proxy", d("by-header", "127.1.1.7"), 200, "ok"},
		{"no proxy that is trusted", d("by-header", "127.1.9.9", "127.1.1.7"), 403, "source_denied"},
		{"a forged header", d("by-header", "127.1.1.8", "203.0.113.7").With(header{"X-Hookauthz-Client-Ip", "127.1.1.7"}), 403, "source_denied"},
		{"hookauthz's own walk", d("proxied", "127.1.1.8", "203.0.113.7"), 200, "ok"},
		{"hookauthz's own walk, forged", d("proxied", "127.1.1.8", "203.0.113.7, 192.0.2.1"), 403, "source_denied"},
		{"hookauthz's own count", d("hops", "127.1.1.8", "203.0.113.7"), 200, "ok"},
	} {
		scenario(t, tt.name, func(t *testing.T) {
			if tt.status != 200 {
				denied(t, s, tt.d, tt.status, tt.reason)
				return
			}
			got := passes(t, s, tt.d.With(header{"X-Envoy-Retry-On", "5xx"}, header{"X-Envoy-External-Address", "127.1.1.7"}), tt.reason)
			for name := range got.Headers {
				if strings.HasPrefix(strings.ToLower(name), "x-envoy-") {
					t.Errorf("the application sees %s", name)
				}
			}
		})
	}
}

func TestRenderedProxyProtocol(t *testing.T) {
	s := rendered(t, "--proxy-protocol", "--proxy-from", "127.1.1.8/32")
	d := guide("/e2e/peers", secret, []byte("x"))
	for _, tt := range []struct {
		name, from string
		preface    []byte
		status     int // 0: the connection ends
		reason     string
	}{
		{"an allowed client", "127.1.1.8", preface("203.0.113.7"), 200, "ok"},
		{"a client that is not", "127.1.1.8", preface("203.0.113.9"), 403, "source_denied"},
		{"the balancer says nothing", "127.1.1.8", nil, 0, ""},
		{"the balancer speaks version 1", "127.1.1.8", []byte("PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"), 0, ""},
		{"somebody else claims an address", "127.1.1.7", preface("203.0.113.7"), 0, ""},
		{"somebody else claims none", "127.1.1.7", nil, 0, ""},
	} {
		scenario(t, tt.name, func(t *testing.T) {
			transport := s.Transport(false, tt.from)
			defer transport.CloseIdleConnections()
			dial := transport.DialContext
			transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err == nil {
					_, err = conn.Write(tt.preface)
				}
				return conn, err
			}
			d := d
			d.Agent = newAgent()
			r, err := sendBy(t.Context(), transport, s, d)
			if tt.status == 0 {
				if err == nil {
					t.Errorf("status %d, want no reply", r.Status)
				}
			} else if err != nil || r.Status != tt.status {
				t.Fatalf("status %d (error %v), want %d", r.Status, err, tt.status)
			}
			want := 0
			if tt.status == 200 {
				want = 1
			}
			if got := arrived(t, s, d.Agent); len(got) != want {
				t.Errorf("the application got it %d times, want %d", len(got), want)
			}
			if tt.status != 0 {
				if got := logged(t, s, d.Agent)["reason"]; got != tt.reason {
					t.Errorf("reason %v, want %s", got, tt.reason)
				}
			}
		})
	}
}

// preface is what a balancer says before a connection for a client at this address, in version 2 of the PROXY protocol.
func preface(client string) []byte {
	out := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
	from, to := netip.MustParseAddr(client).As4(), netip.MustParseAddr("127.0.0.1").As4()
	out = append(append(out, from[:]...), to[:]...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, 40000), 8443)
}
