package signature

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"crypto"
)

const (
	jwtSecret = "a secret of the tests, 32 bytes.."
	jwtBody   = `{"type":"x"}`
)

// jwtText is a token of a header and claims, signed by sign.
func jwtText(header, claims string, sign func(message []byte) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(text)))
}

func hs256(key string) func([]byte) []byte {
	return func(message []byte) []byte {
		h := hmac.New(sha256.New, []byte(key))
		h.Write(message)
		return h.Sum(nil)
	}
}

// claimsFor are good claims for a body at the Unix second 1000.
func claimsFor(body string) string {
	sum := sha256.Sum256([]byte(body))
	return `{"iss":"acme","nbf":1000,"exp":1060,"jti":"id-1","digest":"` + hex.EncodeToString(sum[:]) + `"}`
}

func jwtScheme(t *testing.T, alg string) *Scheme {
	t.Helper()
	s, faults := Compile(Spec{Alg: alg, Sig: SigSpec{In: []string{"header:x-token"}}, JWT: JWTSpec{Body: "digest", Issuer: "acme"}, ID: "claim:jti", TS: TimestampSpec{Tolerance: 60}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return s
}

// Tokens that are not what they seem.
func TestOddTokens(t *testing.T) {
	s := jwtScheme(t, "jwt-hs256")
	key, err := s.NewKey([]byte(jwtSecret))
	if err != nil {
		t.Fatal(err)
	}
	const header = `{"alg":"HS256","typ":"JWT"}`
	good := jwtText(header, claimsFor(jwtBody), hs256(jwtSecret))
	unsigned := func([]byte) []byte { return []byte{0} }
	claims := func(edit ...string) string { return strings.NewReplacer(edit...).Replace(claimsFor(jwtBody)) }
	tests := []struct {
		name, token, body string
		now               int64
		want              string
	}{
		{"good", good, jwtBody, 1000, "match"},
		{"within the tolerance", good, jwtBody, 1120, "match"},
		{"expired", good, jwtBody, 1121, "stale"},
		{"not yet", good, jwtBody, 939, "stale"},
		{"other body", good, jwtBody + " ", 1000, "mismatch"},
		{"other secret", jwtText(header, claimsFor(jwtBody), hs256("another")), jwtBody, 1000, "mismatch"},
		{"alg none", jwtText(`{"alg":"none"}`, claimsFor(jwtBody), unsigned), jwtBody, 1000, Malformed.String()},
		{"alg none without a signature", strings.TrimSuffix(jwtText(`{"alg":"none"}`, claimsFor(jwtBody), func([]byte) []byte { return nil }), ""), jwtBody, 1000, Malformed.String()},
		{"alg NONE", jwtText(`{"alg":"NONE"}`, claimsFor(jwtBody), unsigned), jwtBody, 1000, Malformed.String()},
		{"another alg", jwtText(`{"alg":"HS384"}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"two algs", jwtText(`{"alg":"HS256","alg":"none"}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"no alg", jwtText(`{}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"crit", jwtText(`{"alg":"HS256","crit":["exp"]}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"b64", jwtText(`{"alg":"HS256","b64":false}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"header is no JSON", jwtText(`HS256`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"no digest", jwtText(header, `{"iss":"acme","nbf":1000,"exp":1060}`, hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"no digest and no body", jwtText(header, `{"iss":"acme","nbf":1000,"exp":1060}`, hs256(jwtSecret)), "", 1000, Malformed.String()},
		{"two digests", jwtText(header, claims(`"iss"`, `"digest":"00","iss"`), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"short digest", jwtText(header, `{"iss":"acme","nbf":1000,"exp":1060,"digest":"00"}`, hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"other issuer", jwtText(header, claims("acme", "evil"), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"no issuer", jwtText(header, claims(`"iss":"acme",`, ""), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"no times", jwtText(header, claims(`"nbf":1000,"exp":1060,`, ""), hs256(jwtSecret)), jwtBody, 1000, TimestampMissing.String()},
		{"odd times", jwtText(header, claims("1060", "1e9"), hs256(jwtSecret)), jwtBody, 1000, TimestampMalformed.String()},
		{"negative times", jwtText(header, claims("1000", "-1000"), hs256(jwtSecret)), jwtBody, 1000, TimestampMalformed.String()},
		{"no end, fresh", jwtText(header, claims(`"exp":1060,`, ""), hs256(jwtSecret)), jwtBody, 1060, "match"},
		{"no end, old", jwtText(header, claims(`"exp":1060,`, ""), hs256(jwtSecret)), jwtBody, 1061, "stale"},
		{"nested claim", jwtText(header, claims(`"exp":1060`, `"exp":{"a":1}`), hs256(jwtSecret)), jwtBody, 1000, TimestampMalformed.String()},
		{"two parts", strings.Join(strings.Split(good, ".")[:2], "."), jwtBody, 1000, Malformed.String()},
		{"four parts", good + ".x", jwtBody, 1000, Malformed.String()},
		{"empty signature", good[:strings.LastIndex(good, ".")+1], jwtBody, 1000, Malformed.String()},
		{"padded", good + "=", jwtBody, 1000, Malformed.String()},
		{"line break", good[:20] + "\n" + good[20:], jwtBody, 1000, Malformed.String()},
		{"cut signature", good[:len(good)-4], jwtBody, 1000, Malformed.String()},
		{"signature of one byte", good[:strings.LastIndex(good, ".")] + ".AA", jwtBody, 1000, Malformed.String()},
		{"too long", jwtText(header, claims(`"iss"`, `"x":"`+strings.Repeat("x", 8<<10)+`","iss"`), hs256(jwtSecret)), jwtBody, 1000, Malformed.String()},
		{"empty", "", jwtBody, 1000, Missing.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Delivery{Headers: []Header{{"x-token", tt.token}}}
			if tt.body != "" {
				d.Body = [][]byte{[]byte(tt.body)}
			}
			var v Verification
			got := "match"
			if f := s.Parse(&v, &d); f != None {
				got = f.String()
			} else if !v.Matches(key) {
				got = "mismatch"
			} else if !v.Fresh(time.Unix(tt.now, 0), time.Minute) {
				got = "stale"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got == "match" && tt.name == "good" && (v.DeliveryID() != "id-1" || !s.IDSigned()) {
				t.Errorf("delivery id %q, signed %v", v.DeliveryID(), s.IDSigned())
			}
		})
	}
	var v Verification
	if f := s.Parse(&v, &Delivery{Headers: []Header{{"x-token", good}, {"x-token", good}}}); f != Malformed {
		t.Errorf("two tokens: %v", f)
	}
	if f := s.Parse(&v, &Delivery{}); f != Missing {
		t.Errorf("no token: %v", f)
	}
}

// Tokens of key pairs; a token of one kind is never one of another, whatever its key.
func TestTokensOfKeyPairs(t *testing.T) {
	rsaKey, err1 := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	edPublic, edKey, err3 := ed25519.GenerateKey(rand.Reader)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	kinds := map[string]struct {
		name   string
		public crypto.PublicKey
		sign   func([]byte) []byte
	}{
		"jwt-rs256": {"RS256", rsaKey.Public(), func(m []byte) []byte {
			sum := sha256.Sum256(m)
			b, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}},
		"jwt-es256": {"ES256", ecKey.Public(), func(m []byte) []byte {
			sum := sha256.Sum256(m)
			r, s, err := ecdsa.Sign(rand.Reader, ecKey, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}},
		"jwt-eddsa": {"EdDSA", edPublic, func(m []byte) []byte { return ed25519.Sign(edKey, m) }},
	}
	for alg, kind := range kinds {
		s := jwtScheme(t, alg)
		der, err := x509.MarshalPKIXPublicKey(kind.public)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		key, err := s.NewPublicKey(text)
		if err != nil {
			t.Fatal(err)
		}
		verify := func(token, body string) bool {
			var v Verification
			return s.Parse(&v, &Delivery{Headers: []Header{{"x-token", token}}, Body: [][]byte{[]byte(body)}}) == None && v.Matches(key)
		}
		good := jwtText(`{"alg":"`+kind.name+`"}`, claimsFor(jwtBody), kind.sign)
		if !verify(good, jwtBody) {
			t.Errorf("%s: a good token is refused", alg)
		}
		if verify(good, jwtBody+"x") {
			t.Errorf("%s: another body is taken", alg)
		}
		other := strings.Split(jwtText(`{"alg":"`+kind.name+`"}`, claimsFor("x"), kind.sign), ".")
		if verify(other[0]+"."+other[1]+good[strings.LastIndex(good, "."):], "x") {
			t.Errorf("%s: other claims are taken", alg)
		}
		// Key confusion: the public key as the secret of a MAC.
		for _, secret := range [][]byte{text, der} {
			for _, header := range []string{`{"alg":"HS256"}`, `{"alg":"` + kind.name + `"}`} {
				if verify(jwtText(header, claimsFor(jwtBody), hs256(string(secret))), jwtBody) {
					t.Errorf("%s: a MAC under the public key is taken", alg)
				}
			}
		}
		if _, err := jwtScheme(t, "jwt-hs256").NewKey(text); err == nil {
			t.Errorf("%s: the public key is taken for a secret", alg)
		}
	}
}

func FuzzTokens(f *testing.F) {
	s, _ := Preset("messagebird-jwt")
	key, err := s.NewKey([]byte(jwtSecret))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(jwtText(`{"alg":"HS256"}`, claimsFor(jwtBody), hs256(jwtSecret)), jwtBody)
	f.Add("a.b.c", "")
	f.Fuzz(func(t *testing.T, token, body string) {
		var v Verification
		d := Delivery{Path: "/", PublicURL: "https://example.com/", Headers: []Header{{"messagebird-signature-jwt", token}}, Body: [][]byte{[]byte(body)}}
		if s.Parse(&v, &d) == None && v.Matches(key) {
			t.Errorf("a token that nobody signed is taken: %q", token)
		}
		v.Fresh(time.Unix(1000, 0), time.Minute)
	})
}
