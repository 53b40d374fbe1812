package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
)

// request is a signed delivery as it arrives.
func request(t rapid.TB, d policy.SignedDelivery, merged bool) *policy.Request {
	t.Helper()
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, target, _ := strings.Cut(d.URL, "://")
	r := &policy.Request{
		Time: now, Method: d.Method, Host: u.Host, Path: target[strings.IndexByte(target, '/'):], Merged: merged, Peer: netip.MustParseAddr("192.0.2.10"),
		Headers: append([]policy.Header{{Name: "content-length", Value: strconv.Itoa(len(d.Body))}}, d.Headers...),
	}
	if len(d.Body) > 0 {
		r.Body, r.BodyState = [][]byte{d.Body}, policy.WholeBody
	}
	seen := map[string]bool{}
	for _, h := range r.Headers {
		if seen[h.Name] {
			t.Fatalf("the header %s is there twice", h.Name)
		}
		seen[h.Name] = true
	}
	return r
}

// presetPolicy is a policy for a preset that says no more than it must.
func presetPolicy(name string, s *signature.Scheme) string {
	spec := fmt.Sprintf(`scheme: %s, secrets: [{version: "1", env: SECRET}]`, name)
	if s.HasTimestamp() && s.TimestampSigned() && s.Tolerance() == 0 {
		spec += ", tolerance: 5m"
	}
	if s.NeedsURL() {
		spec += ", publicURL: 'https://hooks.example.com/hook'"
	}
	if !s.BodySigned() && !s.IsToken() {
		spec += ", acceptUnsignedBody: true"
	}
	return webhook(spec, "body: {allowEmpty: true}")
}

// Whatever the body, what Sign makes for a preset is what the engine allows, in both forms of headers, with nothing of the body lost; with
// another secret it is denied.
func TestSignedDeliveriesAreAllowed(t *testing.T) {
	const secret, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210" // text, hex and base64 at once
	signed, publicKey := 0, []string{}
	for _, info := range signature.Presets() {
		scheme, _ := signature.Preset(info.Name)
		if scheme.NeedsPublicKey() {
			publicKey = append(publicKey, info.Name)
			continue
		}
		signed++
		t.Run(info.Name, func(t *testing.T) {
			dir := folder(t, "policy.yaml", presetPolicy(info.Name, scheme))
			loadWith := func(value string) *policy.Set {
				set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: func(string) (string, bool) { return value, true }})
				if err != nil {
					t.Fatalf("loading:\n%v", err)
				}
				return set
			}
			set, impostor := loadWith(secret), loadWith(other)
			rapid.Check(t, func(t *rapid.T) {
				o := policy.SignOptions{Time: now, Body: presetBody(t, info)}
				d, err := set.Sign("hook", o)
				if err != nil {
					t.Fatalf("signing %q: %v", o.Body, err)
				}
				for _, merged := range []bool{false, true} {
					e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
					if got := e.Decide(t.Context(), request(t, d, merged)); got.Outcome != policy.Allow || got.Reason != policy.OK {
						t.Fatalf("merged %v: %v %v\n%+v\n%s", merged, got.Outcome, got.Reason, d, d.Body)
					}
					e.Swap(impostor)
					if got := e.Decide(t.Context(), request(t, d, merged)); got.Outcome != policy.Deny || got.Reason != policy.SignatureMismatch {
						t.Fatalf("merged %v, by another secret: %v %v\n%+v", merged, got.Outcome, got.Reason, d)
					}
				}
			})
		})
	}
	t.Logf("%d presets are signed and allowed; the private key is the sender's for %d: %q", signed, len(publicKey), publicKey)
	if signed < 170 {
		t.Errorf("%d presets were signed, want at least 170", signed)
	}
}

// presetBody draws a body such as the sender might send.
func presetBody(t *rapid.T, info signature.Info) []byte {
	fields := rapid.MapOfN(rapid.StringMatching(`[a-z]{1,8}`), rapid.StringN(0, 20, 40), 0, 5).Draw(t, "fields")
	inForm := func(s string) bool { return strings.Contains(s, "form:") || strings.Contains(s, "{form.sorted}") }
	switch spec := info.Spec; {
	case info.Name == "braintree": // its form has no other fields
		return []byte("bt_payload=" + url.QueryEscape(rapid.StringMatching(`[A-Za-z0-9+/]{1,60}`).Draw(t, "payload")))
	case slices.ContainsFunc(spec.Sign, inForm), slices.ContainsFunc(spec.Sig.In, inForm):
		form := url.Values{}
		for name, value := range fields {
			form.Add(name, value)
		}
		return []byte(form.Encode())
	}
	var b strings.Builder
	b.WriteString(`{"type":"test"`)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name != "type" {
			fmt.Fprintf(&b, ",%q:%q", name, strings.Map(printable, fields[name]))
		}
	}
	b.WriteString("}")
	return []byte(b.String())
}

// printable drops what Go and JSON quote differently.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

func TestSignKeepsTheURL(t *testing.T) {
	tests := []struct{ name, scheme, given, want string }{
		{"of the policy", githubScheme, "", "https://localhost/hook"},
		{"given", githubScheme, "http://127.0.0.1:8080/hook?a=1&b=%20#part", "http://127.0.0.1:8080/hook?a=1&b=%20"},
		{"without a path", githubScheme, "https://example.com", "https://example.com/"},
		{"with a query alone", githubScheme, "https://example.com?a=b/c", "https://example.com/?a=b/c"},
		{"with a digest", `scheme: twilio-json, publicURL: 'https://example.com/hook', secrets: [{version: "1", env: SECRET}]`, "",
			"https://example.com/hook?bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, err := load(t, webhook(test.scheme)).Sign("hook", policy.SignOptions{Time: now, Body: []byte("{}"), URL: test.given})
			if err != nil {
				t.Fatal(err)
			}
			if d.URL != test.want {
				t.Errorf("got %s, want %s", d.URL, test.want)
			}
		})
	}
}
