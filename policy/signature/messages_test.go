package signature

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"go.yaml.in/yaml/v3"
)

// rfc9421 is appendix B of the RFC.
type rfc9421 struct {
	Request struct {
		Method  string            `yaml:"method"`
		URL     string            `yaml:"url"`
		Target  string            `yaml:"target"`
		Headers map[string]string `yaml:"headers"`
		Body    string            `yaml:"body"`
	} `yaml:"request"`
	Keys       map[string]string `yaml:"keys"`
	Signatures []struct {
		Section    string   `yaml:"section"`
		Algorithm  string   `yaml:"algorithm"`
		Key        string   `yaml:"key"`
		Response   bool     `yaml:"response"`
		Input      string   `yaml:"input"`
		Signature  string   `yaml:"signature"`
		Components []string `yaml:"components"`
		Base       string   `yaml:"base"`
	} `yaml:"signatures"`
}

func readRFC9421(t testing.TB) (r rfc9421) {
	t.Helper()
	file, err := os.ReadFile("testdata/rfc9421.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(file, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRFC9421 checks the examples of appendix B.2: those of requests as deliveries, all of them by their signature base.
func TestRFC9421(t *testing.T) {
	r := readRFC9421(t)
	created := time.Unix(1618884473, 0)
	verified := 0
	for _, x := range r.Signatures {
		t.Run(x.Section, func(t *testing.T) {
			components := x.Components
			if len(components) == 0 {
				components = []string{digestHeader}
			}
			s := compile(t, Spec{Alg: x.Algorithm, Key: KeySpec{Decode: "base64"}, Sig: SigSpec{In: []string{"header:Signature"}, KeyID: x.Key}, Components: components, TS: TimestampSpec{Tolerance: 300}})
			make := s.NewKey
			if s.NeedsPublicKey() {
				make = s.NewPublicKey
			}
			k, err := make([]byte(r.Keys[x.Key]))
			if err != nil {
				t.Fatal(err)
			}
			values, err := httpsfv.UnmarshalDictionary([]string{x.Signature})
			if err != nil {
				t.Fatal(err)
			}
			member, _ := values.Get(values.Names()[0])
			raw := member.(httpsfv.Item).Value.([]byte)
			method := s.alg.methods[0]
			if s.NeedsPublicKey() {
				if err := method.Verify(x.Base, raw, k.public); err != nil {
					t.Errorf("the signature of the published base: %v", err)
				}
			} else if err := method.Verify(x.Base, raw, k.material); err != nil {
				t.Errorf("the signature of the published base: %v", err)
			}
			if x.Response {
				return
			}
			d := &Delivery{Method: r.Request.Method, PublicURL: r.Request.URL, Path: r.Request.Target, Body: [][]byte{[]byte(r.Request.Body)}}
			for _, name := range slices.Sorted(maps.Keys(r.Request.Headers)) {
				d.Headers = append(d.Headers, Header{name, r.Request.Headers[name]})
			}
			d.Headers = append(d.Headers, Header{inputHeader, x.Input}, Header{signatureHeader, x.Signature})
			var v Verification
			got := s.Parse(&v, d)
			if len(x.Components) == 0 { // the base is made before it is found that too little is covered
				v.Reset()
				v.scheme, v.delivery = s, d
				v.readHeaders()
				if f := v.parseMessageSignature(); f != Malformed || got != Malformed || v.signed[0] != x.Base {
					t.Errorf("%v and %v with the base %q, want %v with %q", got, f, v.signed, Malformed, x.Base)
				}
				return
			}
			if got != None || v.signed[0] != x.Base {
				t.Fatalf("%v with the base\n%s\nwant\n%s", got, v.signed, x.Base)
			}
			if !v.Matches(k) || !v.Fresh(created.Add(300*time.Second), 300*time.Second) || v.Fresh(created.Add(301*time.Second), 300*time.Second) {
				t.Error("the delivery is not valid, or for too long")
			}
			d.Body[0][2] ^= 1
			if want := !s.BodySigned(); s.Parse(&v, d) != None || v.Matches(k) != want {
				t.Errorf("another body: matches %v, want %v", !want, want)
			}
			verified++
		})
	}
	if verified != 4 {
		t.Errorf("%d examples are verified as deliveries, want 4", verified)
	}
}

// message is a valid delivery for the scheme that messageSpec gives, made by hand.
const (
	messageParams = `("@method" "@target-uri" "content-digest");created=1767225600;keyid="k1";alg="hmac-sha256"`
	messageTarget = "/hooks?a=1"
)

func messageSpec(change func(*Spec)) Spec {
	s := Spec{Alg: "http-signature-hmac-sha256", Sig: SigSpec{In: []string{"header:signature"}}, Components: []string{"@method", "@target-uri", "content-digest"}, TS: TimestampSpec{Tolerance: 300}}
	if change != nil {
		change(&s)
	}
	return s
}

func contentDigest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func sha512Digest(body string) string {
	sum := sha512.Sum512([]byte(body))
	return "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// signedMessage signs any parameters over any digest header, however wrong they are.
func signedMessage(params, digest string) *Delivery {
	base := "\"@method\": POST\n\"@target-uri\": https://hooks.example.com" + messageTarget + "\n\"content-digest\": " + digest + "\n\"@signature-params\": " + params
	return &Delivery{
		Method: "POST", Path: messageTarget, PublicURL: "https://hooks.example.com/hooks", Body: [][]byte{[]byte(body)},
		Headers: headers("content-digest: "+digest, "signature-input: sig1="+params, "signature: sig1=:"+base64MAC(base)+":"),
	}
}

func TestMessageSignatureTable(t *testing.T) {
	digest := contentDigest(body)
	replace := func(old, text string) string { return strings.Replace(messageParams, old, text, 1) }
	set := func(name, value string) func(*Delivery) {
		return func(d *Delivery) {
			d.Headers = slices.DeleteFunc(d.Headers, func(h Header) bool { return h.Name == name })
			if value != "" {
				d.Headers = append(d.Headers, Header{name, value})
			}
		}
	}
	add := func(name, value string) func(*Delivery) {
		return func(d *Delivery) { d.Headers = append(d.Headers, Header{name, value}) }
	}
	manyComponents := ""
	for i := range maxMembers {
		manyComponents += fmt.Sprintf(`"x-%d" `, i)
	}
	tests := []struct {
		name   string
		spec   func(*Spec)
		params string
		digest string
		change func(*Delivery)
		want   string
	}{
		{name: "valid", want: verdictValid},
		{name: "merged", change: func(d *Delivery) { d.Merged = true }, want: verdictValid},
		{name: "key id pinned", spec: func(s *Spec) { s.Sig.KeyID = "k1" }, want: verdictValid},
		{name: "another key id", spec: func(s *Spec) { s.Sig.KeyID = "k2" }, want: Malformed.String()},
		{name: "no key id where it is pinned", spec: func(s *Spec) { s.Sig.KeyID = "k1" }, params: replace(`;keyid="k1"`, ""), want: Malformed.String()},
		{name: "no algorithm", params: replace(`;alg="hmac-sha256"`, ""), want: verdictValid},
		{name: "another algorithm", params: replace("hmac-sha256", "ed25519"), want: Malformed.String()},
		{name: "algorithm none", params: replace("hmac-sha256", "none"), want: Malformed.String()},
		{name: "algorithm as a token", params: replace(`"hmac-sha256"`, "hmac-sha256"), want: Malformed.String()},
		{name: "tag pinned", spec: func(s *Spec) { s.Sig.Tag = "t" }, params: messageParams + `;tag="t"`, want: verdictValid},
		{name: "no tag where it is pinned", spec: func(s *Spec) { s.Sig.Tag = "t" }, want: Malformed.String()},
		{name: "nonce", params: messageParams + `;nonce="n"`, want: verdictValid},
		{name: "nonce that is a number", params: messageParams + `;nonce=1`, want: Malformed.String()},
		{name: "unknown parameter", params: messageParams + `;x="1"`, want: Malformed.String()},
		{name: "parameter twice", params: messageParams + `;keyid="k1"`, want: Malformed.String()},
		{name: "created twice", params: messageParams + `;created=1767225600`, want: Malformed.String()},
		{name: "not created", params: replace(";created=1767225600", ""), want: TimestampMissing.String()},
		{name: "not created, which may be", spec: func(s *Spec) { s.TS.Optional = true }, params: replace(";created=1767225600", ""), want: verdictValid},
		{name: "created as a text", params: replace("=1767225600", `="1767225600"`), want: TimestampMalformed.String()},
		{name: "created with a fraction", params: replace("=1767225600", "=1767225600.0"), want: TimestampMalformed.String()},
		{name: "created before 1970", params: replace("=1767225600", "=-1"), want: TimestampMalformed.String()},
		{name: "created with a zero before", params: replace("=1767225600", "=01767225600"), want: Malformed.String()},
		{name: "300 s old", params: replace("1767225600", "1767225300"), want: verdictValid},
		{name: "301 s old", params: replace("1767225600", "1767225299"), want: verdictStale},
		{name: "300 s ahead", params: replace("1767225600", "1767225900"), want: verdictValid},
		{name: "301 s ahead", params: replace("1767225600", "1767225901"), want: verdictStale},
		{name: "expired 300 s ago", params: messageParams + ";expires=1767225300", want: verdictValid},
		{name: "expired 301 s ago", params: messageParams + ";expires=1767225299", want: verdictStale},
		{name: "expires late, created long ago", params: replace("1767225600", "1767220000") + ";expires=1767229999", want: verdictStale},
		{name: "less is covered", spec: func(s *Spec) { s.Components = append(s.Components, "date") }, change: add("date", "now"), want: Malformed.String()},
		{name: "more is covered", spec: func(s *Spec) { s.Components = s.Components[1:] }, want: verdictValid},
		{name: "component twice", params: replace(`"@method"`, `"@method" "@method"`), want: Malformed.String()},
		{name: "unknown derived component", params: replace(`"@method"`, `"@status" "@method"`), want: Malformed.String()},
		{name: "signature-params as a component", params: replace(`"@method"`, `"@signature-params" "@method"`), want: Malformed.String()},
		{name: "component in capitals", params: replace(`"content-digest"`, `"Content-Digest"`), want: Malformed.String()},
		{name: "component with sf", params: replace(`"content-digest"`, `"content-digest";sf`), want: Malformed.String()},
		{name: "component with bs", params: replace(`"content-digest"`, `"content-digest";bs`), want: Malformed.String()},
		{name: "component of the request", params: replace(`"@method"`, `"@method";req`), want: Malformed.String()},
		{name: "component as a token", params: replace(`"content-digest"`, `content-digest`), want: Malformed.String()},
		{name: "header that is absent", params: replace(`"@method"`, `"date" "@method"`), want: Malformed.String()},
		{name: "header twice", params: replace(`"@method"`, `"date" "@method"`), change: func(d *Delivery) { add("date", "a")(d); add("date", "b")(d) }, want: Malformed.String()},
		{name: "header with a line break", params: replace(`"@method"`, `"date" "@method"`), change: add("date", "a\nb"), want: Malformed.String()},
		{name: "too many components", params: replace(`"@method"`, manyComponents+`"@method"`), change: func(d *Delivery) {
			for i := range maxMembers {
				add("x-"+strconv.Itoa(i), "a")(d)
			}
		}, want: Malformed.String()},
		{name: "another method", change: func(d *Delivery) { d.Method = "PUT" }, want: verdictMismatch},
		{name: "another query", change: func(d *Delivery) { d.Path = "/hooks?a=2" }, want: verdictMismatch},
		{name: "another URL", change: func(d *Delivery) { d.PublicURL = "https://other.example/hooks" }, want: verdictMismatch},
		{name: "no URL", change: func(d *Delivery) { d.PublicURL = "" }, want: Malformed.String()},
		{name: "another body", change: func(d *Delivery) { d.Body = [][]byte{[]byte("x")} }, want: verdictMismatch},
		{name: "body in segments", change: func(d *Delivery) { d.Body = [][]byte{[]byte(body[:3]), []byte(body[3:])} }, want: verdictValid},
		{name: "digest of another body", digest: contentDigest("x"), want: verdictMismatch},
		{name: "one digest of two wrong", digest: contentDigest(body) + ", sha-512=:" + base64.StdEncoding.EncodeToString(make([]byte, 64)) + ":", want: verdictMismatch},
		{name: "the other digest of two wrong", digest: contentDigest("x") + ", " + sha512Digest(body), want: verdictMismatch},
		{name: "two right digests", digest: contentDigest(body) + ", " + sha512Digest(body), want: verdictValid},
		{name: "unknown digest beside", digest: "md5=:AAAA:, " + contentDigest(body), want: verdictValid},
		{name: "unknown digest alone", digest: "md5=:AAAA:", want: Malformed.String()},
		{name: "digest of SHA-1 alone", digest: "sha=:AAAA:", want: Malformed.String()},
		{name: "digest too short", digest: "sha-256=:AAAA:", want: Malformed.String()},
		{name: "digest twice", digest: contentDigest("x") + ", " + contentDigest(body), want: Malformed.String()},
		{name: "digest with a parameter", digest: contentDigest(body) + ";a=1", want: Malformed.String()},
		{name: "digest that is no dictionary", digest: "sha-256=" + contentDigest(body)[9:20], want: Malformed.String()},
		{name: "empty digest", digest: " ", want: Malformed.String()},
		{name: "digest not canonical", digest: strings.Replace(contentDigest(body), "=:", "::", 1), want: Malformed.String()},
		{name: "no digest", change: set(digestHeader, ""), want: Malformed.String()},
		{name: "no signature", change: set(signatureHeader, ""), want: Missing.String()},
		{name: "no input", change: set(inputHeader, ""), want: Missing.String()},
		{name: "blank signature", change: set(signatureHeader, " , "), want: Missing.String()},
		{name: "input for another label", change: set(inputHeader, "sig2="+messageParams), want: Malformed.String()},
		{name: "input twice", change: add(inputHeader, "sig1="+messageParams), want: Malformed.String()},
		{name: "another signature beside", change: func(d *Delivery) {
			add(inputHeader, "sig2="+messageParams)(d)
			add(signatureHeader, "sig2=:AAAA:")(d)
		}, want: Malformed.String()},
		{name: "another signature beside the one that is named", spec: func(s *Spec) { s.Sig.Label = "sig1" }, change: func(d *Delivery) {
			add(inputHeader, "sig2="+messageParams)(d)
			add(signatureHeader, "sig2=:AAAA:")(d)
		}, want: verdictValid},
		{name: "input without a signature beside", change: add(inputHeader, "sig2="+messageParams), want: Malformed.String()},
		{name: "signature without an input beside", change: add(signatureHeader, "sig2=:AAAA:"), want: Malformed.String()},
		{name: "label that is not there", spec: func(s *Spec) { s.Sig.Label = "sig2" }, want: Malformed.String()},
		{name: "signature that is a text", change: set(signatureHeader, `sig1="AAAA"`), want: Malformed.String()},
		{name: "signature with a parameter", change: func(d *Delivery) { d.Headers[2].Value += ";a=1" }, want: Malformed.String()},
		{name: "signature too short", change: set(signatureHeader, "sig1=:AAAA:"), want: Malformed.String()},
		{name: "signature of zeros", change: set(signatureHeader, "sig1=:"+base64.StdEncoding.EncodeToString(make([]byte, 32))+":"), want: verdictMismatch},
		{name: "input that is an item", change: set(inputHeader, "sig1=1"), want: Malformed.String()},
		{name: "input that is no dictionary", change: set(inputHeader, "sig1=("), want: Malformed.String()},
		{name: "a byte that cannot be seen", params: messageParams + `;nonce="!"`, change: func(d *Delivery) { d.Merged = true }, want: Malformed.String()},
		{name: "too long", params: messageParams + `;nonce="` + strings.Repeat("n", maxCarried) + `"`, want: Malformed.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, messageSpec(tt.spec))
			params, digestValue := messageParams, digest
			if tt.params != "" {
				params = tt.params
			}
			if tt.digest != "" {
				digestValue = tt.digest
			}
			d := signedMessage(params, digestValue)
			if tt.change != nil {
				tt.change(d)
			}
			if got := decide(s, d, []*Key{key(t, s, "secret")}, &moment, 300*time.Second); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestComponentValues gives the values of components as RFC 9421, section 2.2, has them.
func TestComponentValues(t *testing.T) {
	tests := []struct{ component, url, target, want string }{
		{"@method", "", "/", "POST"},
		{"@target-uri", "https://www.example.com/path", "/path?param=value", "https://www.example.com/path?param=value"},
		{"@authority", "https://WWW.example.com/path", "/path", "www.example.com"},
		{"@authority", "https://www.example.com:443", "/", "www.example.com"},
		{"@authority", "https://www.example.com:8443/path", "/path", "www.example.com:8443"},
		{"@authority", "http://www.example.com:80/path", "/path", "www.example.com"},
		{"@authority", "http://www.example.com:443/path", "/path", "www.example.com:443"},
		{"@authority", "", "/", "www.example.com"},
		{"@scheme", "HTTPS://www.example.com/path", "/path", "https"},
		{"@request-target", "", "/path?param=value", "/path?param=value"},
		{"@path", "", "/path?param=value", "/path"},
		{"@query", "", "/path?param=value&foo=bar", "?param=value&foo=bar"},
		{"@query", "", "/path?queryString", "?queryString"},
		{"@query", "", "/path", "?"},
		{`@query-param;name="baz"`, "", "/path?param=value&foo=bar&baz=batman&qux=", "batman"},
		{`@query-param;name="qux"`, "", "/path?param=value&foo=bar&baz=batman&qux=", ""},
		{`@query-param;name="var"`, "", "/parameters?var=this%20is%20a%20big%0Amultiline%20value", "this%20is%20a%20big%0Amultiline%20value"},
		{`@query-param;name="bar"`, "", "/parameters?bar=with+plus+whitespace", "with%20plus%20whitespace"},
		{`@query-param;name="fa%C3%A7ade%22%3A%20"`, "", "/parameters?fa%C3%A7ade%22%3A%20=something", "something"},
		{"x-header", "", "/", "one"},
	}
	for _, tt := range tests {
		s := compile(t, Spec{Alg: "http-signature-ed25519", Sig: SigSpec{In: []string{"header:signature"}}, Components: []string{tt.component}})
		v := Verification{scheme: s, delivery: &Delivery{Method: "POST", PublicURL: tt.url, Path: tt.target, Headers: []Header{{"x-header", " one\t"}, {":authority", "WWW.example.com:443"}}}}
		got, ok := v.appendComponent(nil, s.components.required[0])
		if !ok || string(got) != tt.want {
			t.Errorf("%s of %s and %s: %q, %v, want %q", tt.component, tt.url, tt.target, got, ok, tt.want)
		}
	}
	for _, target := range []string{"/path?a=1&a=2", "/path", "/path?b=1", "/path?a=%zz"} {
		s := compile(t, Spec{Alg: "http-signature-ed25519", Sig: SigSpec{In: []string{"header:signature"}}, Components: []string{`@query-param;name="a"`}})
		v := Verification{scheme: s, delivery: &Delivery{Path: target}}
		if got, ok := v.appendComponent(nil, s.components.required[0]); ok {
			t.Errorf("the field of %s is taken as %q", target, got)
		}
	}
}
