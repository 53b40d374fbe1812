package extauthz

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/policy"
)

// decoded compares what decode gives: headers of the map come in no order.
var decoded = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b policy.Header) bool { return a.Name+"\x00"+a.Value < b.Name+"\x00"+b.Value }),
}

// A delivery comes out as it went in, in both forms of headers.
func TestDecode(t *testing.T) {
	d := &delivery{
		extension: map[string]string{"hookauthz.endpoint": "ci", "other": "x"},
		peer:      "192.0.2.10", id: "1234567890", method: "POST", host: "hooks.example.com:8443", path: "/hook?a=b",
		headers: []policy.Header{{Name: "x-request-id", Value: "r-1"}, {Name: "x-obs", Value: "\xe4\xff"}, {Name: "x-two", Value: "1"}, {Name: "x-two", Value: "2"}},
		body:    []byte("\x00\xff{}"),
	}
	want := policy.Request{
		StreamID: "1234567890", RequestID: "r-1", Named: true, Endpoint: "ci", Method: "POST", Host: "hooks.example.com:8443", Path: "/hook?a=b",
		Peer: netip.MustParseAddr("192.0.2.10"), Body: [][]byte{d.body}, BodyState: policy.WholeBody,
		Headers: []policy.Header{{Name: ":method", Value: "POST"}, {Name: ":path", Value: "/hook?a=b"}, {Name: ":authority", Value: "hooks.example.com:8443"},
			{Name: "x-request-id", Value: "r-1"}, {Name: "x-obs", Value: "\xe4\xff"}, {Name: "x-two", Value: "1"}, {Name: "x-two", Value: "2"}, {Name: "x-envoy-auth-partial-body", Value: "false"}},
	}
	t.Run("header_map", func(t *testing.T) {
		got := decodeMessage(t, d.request(false))
		if diff := cmp.Diff(want, *got, decoded); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want.Headers, got.Headers); diff != "" {
			t.Errorf("the order of headers (-want +got):\n%s", diff)
		}
	})
	t.Run("headers", func(t *testing.T) {
		want := want
		want.Merged = true
		want.Headers = slices.Concat(want.Headers[:4], []policy.Header{{Name: "x-obs", Value: "!!"}, {Name: "x-two", Value: "1,2"}}, want.Headers[7:])
		if diff := cmp.Diff(want, *decodeMessage(t, d.request(true)), decoded); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("both", func(t *testing.T) { // the list says more
		m := d.request(false)
		m.Attributes.Request.Http.Headers = map[string]string{"x-request-id": "other"}
		if diff := cmp.Diff(want, *decodeMessage(t, m), decoded); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Nothing is required of a message.
func TestDecodeNothing(t *testing.T) {
	nothing := policy.Request{Merged: true}
	for name, m := range map[string]*authv3.CheckRequest{
		"nil":           nil,
		"empty":         {},
		"no request":    {Attributes: &authv3.AttributeContext{}},
		"no http":       {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}},
		"empty http":    {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}}}},
		"empty list":    {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{}}}}},
		"empty source":  {Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{}}},
		"empty address": {Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{}}}},
		"nil socket":    {Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(nothing, *decodeMessage(t, m), decoded); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("nil headers in the list", func(t *testing.T) {
		m := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{nil, {}}}}}}}
		if diff := cmp.Diff(policy.Request{Headers: []policy.Header{{}, {}}}, *decodeMessage(t, m), decoded); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestDecodeHeaderValues(t *testing.T) {
	tests := []struct {
		name   string
		header *corev3.HeaderValue
		want   policy.Header
	}{
		{"raw", &corev3.HeaderValue{Key: "a", RawValue: []byte("\xff")}, policy.Header{Name: "a", Value: "\xff"}},
		{"text", &corev3.HeaderValue{Key: "a", Value: "x"}, policy.Header{Name: "a", Value: "x"}},
		{"both: the raw bytes are what was received", &corev3.HeaderValue{Key: "a", Value: "x!", RawValue: []byte("x\xff")}, policy.Header{Name: "a", Value: "x\xff"}},
		{"capitals", &corev3.HeaderValue{Key: "X-Hub-Signature", RawValue: []byte("S")}, policy.Header{Name: "x-hub-signature", Value: "S"}},
		{"empty", &corev3.HeaderValue{Key: "a"}, policy.Header{Name: "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{tt.header}}}}}}
			if diff := cmp.Diff([]policy.Header{tt.want}, decodeMessage(t, m).Headers); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodePeer(t *testing.T) {
	tests := []struct {
		name    string
		address *corev3.Address
		want    string // "": none
	}{
		{"v4", socket("192.0.2.1"), "192.0.2.1"},
		{"v6", socket("2001:db8::1"), "2001:db8::1"},
		{"v4 in v6", socket("::ffff:192.0.2.1"), "192.0.2.1"},
		{"zone", socket("fe80::1%eth0"), ""},
		{"port inside", socket("192.0.2.1:80"), ""},
		{"brackets", socket("[2001:db8::1]"), ""},
		{"name", socket("localhost"), ""},
		{"leading zeros", socket("192.0.02.1"), ""},
		{"empty", socket(""), ""},
		{"pipe", &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/envoy.sock"}}}, ""},
		{"Envoy's own", &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decodeMessage(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: tt.address}}}).Peer
			var want netip.Addr
			if tt.want != "" {
				want = netip.MustParseAddr(tt.want)
			}
			if got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Only Envoy's own word, given once, makes a body whole.
func TestDecodeBody(t *testing.T) {
	const header = "x-envoy-auth-partial-body"
	tests := []struct {
		name    string
		headers []policy.Header
		raw     string
		text    string
		want    policy.BodyState
		body    string
	}{
		{"none", nil, "", "", policy.NoBody, ""},
		{"whole", []policy.Header{{Name: header, Value: "false"}}, "{}", "", policy.WholeBody, "{}"},
		{"whole and empty", []policy.Header{{Name: header, Value: "false"}}, "", "", policy.WholeBody, ""},
		{"capitals in the name", []policy.Header{{Name: "X-Envoy-Auth-Partial-Body", Value: "false"}}, "{}", "", policy.WholeBody, "{}"},
		{"partial", []policy.Header{{Name: header, Value: "true"}}, "{}", "", policy.PartialBody, "{}"},
		{"partial and empty", []policy.Header{{Name: header, Value: "true"}}, "", "", policy.PartialBody, ""},
		{"partial text", []policy.Header{{Name: header, Value: "true"}}, "", "{}", policy.PartialBody, "{}"},
		{"text", []policy.Header{{Name: header, Value: "false"}}, "", "{}", policy.TextBody, "{}"},
		{"bytes and text", []policy.Header{{Name: header, Value: "false"}}, "{}", "[]", policy.PartialBody, "{}"},
		{"nobody's word", nil, "{}", "", policy.PartialBody, "{}"},
		{"nobody's word on a text", nil, "", "{}", policy.PartialBody, "{}"},
		{"the client's word, too", []policy.Header{{Name: header, Value: "false"}, {Name: header, Value: "false"}}, "{}", "", policy.PartialBody, "{}"},
		{"two words", []policy.Header{{Name: header, Value: "true"}, {Name: header, Value: "false"}}, "{}", "", policy.PartialBody, "{}"},
		{"two words and nothing else", []policy.Header{{Name: header, Value: "false"}, {Name: header, Value: "false"}}, "", "", policy.PartialBody, ""},
		{"another spelling", []policy.Header{{Name: "x_envoy_auth_partial_body", Value: "false"}}, "{}", "", policy.PartialBody, "{}"},
		{"capitals in the value", []policy.Header{{Name: header, Value: "False"}}, "{}", "", policy.PartialBody, "{}"},
		{"space", []policy.Header{{Name: header, Value: "false "}}, "{}", "", policy.PartialBody, "{}"},
		{"no value", []policy.Header{{Name: header}}, "{}", "", policy.PartialBody, "{}"},
	}
	for _, tt := range tests {
		for _, form := range headerForms {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				d := &delivery{headers: tt.headers, partial: "-"}
				m := d.request(form.merged)
				m.Attributes.Request.Http.RawBody, m.Attributes.Request.Http.Body = []byte(tt.raw), tt.text
				got := decodeMessage(t, m)
				if got.BodyState != tt.want || string(slices.Concat(got.Body...)) != tt.body {
					t.Errorf("got state %d with %q, want state %d with %q", got.BodyState, got.Body, tt.want, tt.body)
				}
			})
		}
	}
}

func TestDecodeHost(t *testing.T) {
	for _, form := range headerForms {
		t.Run(form.name, func(t *testing.T) {
			d := &delivery{host: "hooks.example.com"}
			m := d.request(form.merged)
			m.Attributes.Request.Http.Host = ""
			if got := decodeMessage(t, m).Host; got != "hooks.example.com" {
				t.Errorf("from :authority: got %q", got)
			}
			m.Attributes.Request.Http.Host = "other.example.com"
			if got := decodeMessage(t, m).Host; got != "other.example.com" {
				t.Errorf("from the attributes: got %q", got)
			}
		})
	}
}

func TestDecodeEndpoint(t *testing.T) {
	tests := []struct {
		name       string
		extensions map[string]string
		endpoint   string
		named      bool
	}{
		{"none", nil, "", false},
		{"others", map[string]string{"endpoint": "ci"}, "", false},
		{"named", map[string]string{"hookauthz.endpoint": "ci"}, "ci", true},
		{"named nothing", map[string]string{"hookauthz.endpoint": ""}, "", true},
		{"as it is", map[string]string{"hookauthz.endpoint": " CI "}, " CI ", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := decodeMessage(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{ContextExtensions: tt.extensions}})
			if r.Endpoint != tt.endpoint || r.Named != tt.named {
				t.Errorf("got %q, %v; want %q, %v", r.Endpoint, r.Named, tt.endpoint, tt.named)
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		want   string
	}{
		{"none", nil, ""},
		{"one", []string{"9c1a-77"}, "9c1a-77"},
		{"two", []string{"a", "a"}, ""},
		{"at the cap", []string{strings.Repeat("x", 256)}, strings.Repeat("x", 256)},
		{"over the cap", []string{strings.Repeat("x", 257)}, ""},
		{"control", []string{"a\x1b"}, ""},
		{"newline", []string{"a\nb"}, ""},
		{"not ASCII", []string{"ü"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &delivery{}
			for _, v := range tt.values {
				d.add("x-request-id", v)
			}
			if got := decodeMessage(t, d.request(false)).RequestID; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTraceID(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	tests := []struct {
		name, value, want string
	}{
		{"good", "00-" + trace + "-00f067aa0ba902b7-01", trace},
		{"later version with more parts", "01-" + trace + "-00f067aa0ba902b7-01-what-ever", trace},
		{"none", "", ""},
		{"capitals", "00-" + strings.ToUpper(trace) + "-00f067aa0ba902b7-01", ""},
		{"zero trace", "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", ""},
		{"zero parent", "00-" + trace + "-0000000000000000-01", ""},
		{"forbidden version", "ff-" + trace + "-00f067aa0ba902b7-01", ""},
		{"version without digits", "0-" + trace + "-00f067aa0ba902b7-01", ""},
		{"short trace", "00-" + trace[1:] + "-00f067aa0ba902b7-01", ""},
		{"no parent", "00-" + trace, ""},
		{"no flags", "00-" + trace + "-00f067aa0ba902b7", ""},
		{"more parts than this version has", "00-" + trace + "-00f067aa0ba902b7-01-x", ""},
		{"odd flags", "00-" + trace + "-00f067aa0ba902b7-0x", ""},
		{"flags with a tail", "00-" + trace + "-00f067aa0ba902b7-01x", ""},
		{"line break", "00-" + trace + "\n-00f067aa0ba902b7-01", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := traceID([]policy.Header{{Name: "traceparent", Value: tt.value}}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := traceID([]policy.Header{{Name: "traceparent", Value: tests[0].value}, {Name: "traceparent", Value: tests[0].value}}); got != "" {
		t.Errorf("two headers: got %q", got)
	}
}

// Any message that decodes as protobuf decodes here, and what is said of its body is never more than Envoy said.
func FuzzDecode(f *testing.F) {
	for _, form := range headerForms {
		d := &delivery{peer: "192.0.2.1", method: "POST", path: "/hook", headers: []policy.Header{{Name: "x-obs", Value: "\xff"}}, body: []byte("{}")}
		data, err := proto.Marshal(d.request(form.merged))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m authv3.CheckRequest
		if proto.Unmarshal(data, &m) != nil {
			return
		}
		r := decodeMessage(t, &m)
		http := m.GetAttributes().GetRequest().GetHttp()
		if r.BodyState == policy.WholeBody && (http.GetBody() != "" || r.BodyLen() != len(http.GetRawBody())) {
			t.Errorf("a body of %d bytes that came as %d bytes and %d of text is whole", r.BodyLen(), len(http.GetRawBody()), len(http.GetBody()))
		}
		if word, once := only(r.Headers, partialBodyHeader); (r.BodyState == policy.WholeBody || r.BodyState == policy.TextBody) && (!once || word != "false") {
			t.Errorf("a body is whole although Envoy said %q, once: %v", word, once)
		}
		if r.BodyState == policy.NoBody && r.BodyLen() > 0 {
			t.Errorf("no body of %d bytes", r.BodyLen())
		}
		if r.Merged == (len(http.GetHeaderMap().GetHeaders()) > 0) {
			t.Errorf("merged: %v with %d headers in the list", r.Merged, len(http.GetHeaderMap().GetHeaders()))
		}
		if r.Peer.Zone() != "" || r.Peer.Is4In6() {
			t.Errorf("the peer is %v", r.Peer)
		}
		traceID(r.Headers)
	})
}

// A decoder that is used again tells nothing of the message before, whatever was in that.
func TestDecodeAgain(t *testing.T) {
	many := func(order func(i int) int) *delivery {
		d := &delivery{method: "POST", path: "/many"}
		for i := range 2 * fewHeaders {
			d.add("x-"+strconv.Itoa(order(i)), "value "+strconv.Itoa(order(i)))
		}
		return d
	}
	full := &delivery{extension: map[string]string{endpointExtension: "named"}, peer: "192.0.2.1", id: "stream", method: "POST", host: "host", path: "/full",
		headers: []policy.Header{{Name: "x-request-id", Value: "request"}, {Name: "x-other", Value: "v"}}, body: []byte("body")}
	text := &delivery{method: "POST", path: "/text", body: []byte("text"), text: true}
	var messages [][]byte
	for _, d := range []*delivery{full, {}, many(func(i int) int { return i }), many(func(i int) int { return 2*fewHeaders - i }), text, {path: "/partial", partial: "true"}, {peer: "198.51.100.1"}} {
		for _, form := range headerForms {
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.request(form.merged))
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, data)
		}
	}
	messages = append(messages, []byte{0x0a, 7, 0x22, 5, 0x12, 3, 0x12, 1, 0xff}) // no message
	for a := range messages {
		for b := range messages {
			var again, fresh decoder
			var first, got, want policy.Request
			_ = again.decode([][]byte{messages[a]}, &first)
			again.reset()
			err := again.decode([][]byte{messages[b]}, &got)
			if alone := fresh.decode([][]byte{messages[b]}, &want); !errors.Is(err, alone) {
				t.Errorf("message %d after %d: %v, alone %v", b, a, err, alone)
			}
			if diff := cmp.Diff(want, got, decoded); diff != "" {
				t.Errorf("message %d after %d (-alone +again):\n%s", b, a, diff)
			}
		}
	}
}
