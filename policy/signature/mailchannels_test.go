package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func TestMailChannels(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := Preset("mailchannels")
	if !ok {
		t.Fatal("no preset")
	}
	key, err := s.NewPublicKey([]byte(base64.StdEncoding.EncodeToString(public)))
	if err != nil {
		t.Fatal(err)
	}
	body := `{"event":"x"}`
	sum := sha256.Sum256([]byte(body))
	sum512 := sha512.Sum512([]byte(body))
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	digest512 := "sha-512=:" + base64.StdEncoding.EncodeToString(sum512[:]) + ":"
	// signed is a signature over a base that the test writes by itself.
	signed := func(covered, parameters, digest string, more ...string) (input, signature string) {
		list := "(" + covered + ")" + parameters
		base := strings.Join(append(more, `"content-digest": `+digest), "\n") + "\n" + `"@signature-params": ` + list
		return "sig=" + list, "sig=:" + base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(base))) + ":"
	}
	const covered, created = `"content-digest"`, ";created=1000"
	good, goodSignature := signed(covered, created, digest)
	type test struct {
		name, input, signature, digest, body, want string
	}
	tests := []test{
		{"good", good, goodSignature, digest, body, "match"},
		{"other body", good, goodSignature, digest, body + " ", "mismatch"},
		{"other digest", good, goodSignature, "sha-256=:" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + ":", body, "mismatch"},
		{"no digest", good, goodSignature, "", body, Malformed.String()},
		{"other label", strings.Replace(good, "sig=", "gis=", 1), goodSignature, digest, body, Malformed.String()},
		{"two signatures", good + ", b=" + good[4:], goodSignature + ", b=" + goodSignature[4:], digest, body, Malformed.String()},
		{"no signature", good, "", digest, body, Missing.String()},
		{"no input", "", goodSignature, digest, body, Missing.String()},
		{"no list", "sig=1", goodSignature, digest, body, Malformed.String()},
		{"text for a signature", good, `sig="x"`, digest, body, Malformed.String()},
		{"short signature", good, "sig=:AA==:", digest, body, Malformed.String()},
		{"odd text", "sig=(", goodSignature, digest, body, Malformed.String()},
	}
	add := func(name, covered, parameters, digest, want string, more ...string) {
		input, signature := signed(covered, parameters, digest, more...)
		tests = append(tests, test{name, input, signature, digest, body, want})
	}
	add("SHA-512", covered, created, digest512, "match")
	add("both digests", covered, created, digest+", "+digest512, "match")
	add("one of two digests is wrong", covered, created, digest+", sha-512=:"+base64.StdEncoding.EncodeToString(make([]byte, 64))+":", "mismatch")
	add("an unknown digest beside", covered, created, "md5=:AAAA:, "+digest, "match")
	add("only an unknown digest", covered, created, "md5=:AAAA:", Malformed.String())
	add("a digest without a value", covered, created, "sha-256", Malformed.String())
	add("alg as pinned", covered, created+`;alg="ed25519"`, digest, "match")
	add("another alg", covered, created+`;alg="hmac-sha256"`, digest, Malformed.String())
	add("keyid, nonce and tag", covered, created+`;keyid="k";nonce="n";tag="t"`, digest, "match")
	add("unknown parameter", covered, created+`;later=1`, digest, Malformed.String())
	add("no time", covered, `;keyid="k"`, digest, TimestampMissing.String())
	add("only an end", covered, `;expires=9999999999`, digest, TimestampMissing.String())
	add("text for a time", covered, `;created="1000"`, digest, TimestampMalformed.String())
	add("expired", covered, `;created=1000;expires=1`, digest, "stale")
	add("old", covered, `;created=1`, digest, "stale")
	add("from the future", covered, `;created=2000`, digest, "stale")
	add("component with a parameter", `"content-digest";sf`, created, digest, Malformed.String())
	add("component twice", `"content-digest" "content-digest"`, created, digest, Malformed.String())
	add("component that is not there", `"x-gone" "content-digest"`, created, digest, Malformed.String(), `"x-gone": `)
	add("component of a response", `"@status" "content-digest"`, created, digest, Malformed.String(), `"@status": 200`)
	add("more components", `"@method" "@path" "@query" "content-digest"`, created, digest, "match", `"@method": POST`, `"@path": /hook`, `"@query": ?a=b`)
	add("without what must be signed", `"@method"`, created, digest, Malformed.String(), `"@method": POST`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Delivery{Method: "POST", Path: "/hook?a=b", Body: [][]byte{[]byte(tt.body)}}
			for name, value := range map[string]string{"signature-input": tt.input, "signature": tt.signature, "content-digest": tt.digest} {
				if value != "" {
					d.Headers = append(d.Headers, Header{name, value})
				}
			}
			var v Verification
			got := "match"
			if f := s.Parse(&v, &d); f != None {
				got = f.String()
			} else if !v.Matches(key) {
				got = "mismatch"
			} else if !v.Fresh(time.Unix(1100, 0), 300*time.Second) {
				got = "stale"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What is signed by a shared secret is verified, and what the policy wants is what is signed.
func TestMessageSignatureRoundTrip(t *testing.T) {
	s, faults := Compile(Spec{Alg: "http-signature-hmac-sha256", Components: []string{"@method", "@path", "content-digest", "x-id"}, TS: TimestampSpec{Tolerance: 60}, ID: "header:x-id"})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	key, err := s.NewKey([]byte("a secret of the tests"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Sign(key, Delivery{Method: "POST", Path: "/hook", Body: [][]byte{[]byte("body")}}, time.Unix(1000, 0), "id-1")
	if err != nil {
		t.Fatal(err)
	}
	var v Verification
	if f := s.Parse(&v, &d); f != None || !v.Matches(key) || v.DeliveryID() != "id-1" || !s.IDSigned() || !s.BodySigned() {
		t.Fatalf("refused: %v, id %q, signed %v, body %v", f, v.DeliveryID(), s.IDSigned(), s.BodySigned())
	}
	for name, change := range map[string]func(*Delivery){
		"method": func(d *Delivery) { d.Method = "PUT" }, "path": func(d *Delivery) { d.Path = "/other" }, "body": func(d *Delivery) { d.Body = [][]byte{[]byte("bodies")} },
	} {
		other := d
		change(&other)
		if s.Parse(&v, &other) == None && v.Matches(key) {
			t.Errorf("another %s is taken", name)
		}
	}
}

func FuzzMailChannels(f *testing.F) {
	s, _ := Preset("mailchannels")
	key, err := s.NewPublicKey([]byte("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`sig=("content-digest");created=1000`, "sig=:AAAA:", "sha-256=:AAAA:")
	f.Fuzz(func(t *testing.T, input, signature, digest string) {
		var v Verification
		d := Delivery{Headers: []Header{{"signature-input", input}, {"signature", signature}, {"content-digest", digest}}}
		if s.Parse(&v, &d) == None && v.Matches(key) {
			t.Errorf("a signature that nobody made is taken: %q %q", input, signature)
		}
	})
}
