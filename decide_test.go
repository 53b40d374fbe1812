package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hookauthz/hookauthz/policy"
)

func TestSplitURL(t *testing.T) {
	for _, c := range []struct{ url, host, target string }{
		{"https://hooks.example.com/webhooks/github", "hooks.example.com", "/webhooks/github"},
		{"http://hooks.example.com/a", "hooks.example.com", "/a"},
		{"https://hooks.example.com", "hooks.example.com", "/"},
		{"https://hooks.example.com?x=1", "hooks.example.com", "/?x=1"},
		{"https://Hooks.Example.com:8443/A?b=/c", "Hooks.Example.com:8443", "/A?b=/c"},
		{"https://[::1]:8443/a", "[::1]:8443", "/a"},
		// How a path is spelt decides, so nothing of it is changed.
		{"https://h/a//b/../c;d=e/%2f%zz?q#f", "h", "/a//b/../c;d=e/%2f%zz?q#f"},
		{"https://h#f", "h", "/#f"},
	} {
		host, target, err := splitURL(c.url)
		if err != nil || host != c.host || target != c.target {
			t.Errorf("splitURL(%q) = %q, %q, %v; want %q, %q", c.url, host, target, err, c.host, c.target)
		}
	}
	for _, url := range []string{"", "hooks.example.com/a", "/a", "https:/h/a", "https://", "https:///a", "ftp://h/a", "HTTPS//h", "https://user:pw@h/a"} {
		if host, target, err := splitURL(url); err == nil {
			t.Errorf("splitURL(%q) = %q, %q, want an error", url, host, target)
		}
	}
}

// The request is what Envoy sends for this delivery.
func TestDeliveryRequest(t *testing.T) {
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	pseudo := func(host string) []policy.Header {
		return []policy.Header{{Name: ":authority", Value: host}, {Name: ":path", Value: "/a"}, {Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}}
	}
	whole := policy.Header{Name: "x-envoy-auth-partial-body", Value: "false"}
	for _, c := range []struct {
		name  string
		flags deliveryFlags
		stdin string
		want  policy.Request
	}{
		{
			name: "no body",
			want: policy.Request{Host: "h", Headers: pseudo("h")},
		},
		{
			name:  "body",
			flags: deliveryFlags{body: "-", headers: []string{"X-A:  b c\t", "X-Empty:"}},
			stdin: "hello",
			want: policy.Request{Host: "h", Body: [][]byte{[]byte("hello")}, BodyState: policy.WholeBody,
				Headers: append(pseudo("h"), policy.Header{Name: "x-a", Value: "b c"}, policy.Header{Name: "x-empty"}, policy.Header{Name: "content-length", Value: "5"}, whole)},
		},
		{
			name:  "empty body",
			flags: deliveryFlags{body: "-"},
			want:  policy.Request{Host: "h", Headers: append(pseudo("h"), policy.Header{Name: "content-length", Value: "0"})},
		},
		{
			name:  "chunked",
			flags: deliveryFlags{body: "-", headers: []string{"Transfer-Encoding: chunked"}},
			stdin: "hello",
			want: policy.Request{Host: "h", Body: [][]byte{[]byte("hello")}, BodyState: policy.WholeBody,
				Headers: append(pseudo("h"), whole)},
		},
		{
			name:  "host header",
			flags: deliveryFlags{headers: []string{"Host: other"}},
			want:  policy.Request{Host: "other", Headers: pseudo("other")},
		},
		{
			name:  "named by the route",
			flags: deliveryFlags{endpoint: "github"},
			want:  policy.Request{Host: "h", Named: true, Endpoint: "github", Headers: pseudo("h")},
		},
	} {
		c.flags.method, c.flags.from = "POST", address{netip.MustParseAddr("192.0.2.1")}
		got, err := c.flags.request(process{stdin: strings.NewReader(c.stdin), now: func() time.Time { return at }}, "https://h/a")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		c.want.Time, c.want.Method, c.want.Path, c.want.Peer = at, "POST", "/a", c.flags.from.Addr
		if diff := cmp.Diff(&c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
