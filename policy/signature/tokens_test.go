package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenHeader = `{"alg":"HS256","typ":"JWT"}`
	tokenURL    = "https://hooks.example.com/hooks?a=1"
)

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// tokenClaims are good claims with others added at the end.
func tokenClaims(more ...string) string {
	claims := []string{`"iss":"acme"`, `"iat":1767225600`, `"nbf":1767225600`, `"exp":1767225660`, `"jti":"j1"`, `"b":"` + hexSum(body) + `"`, `"u":"` + hexSum(tokenURL) + `"`}
	return "{" + strings.Join(append(claims, more...), ",") + "}"
}

// tokenOf signs any two parts as the hash has it.
func tokenOf(header, claims, secret string, h func() hash.Hash) string {
	raw := base64.RawURLEncoding
	message := raw.EncodeToString([]byte(header)) + "." + raw.EncodeToString([]byte(claims))
	m := hmac.New(h, []byte(secret))
	m.Write([]byte(message))
	return message + "." + raw.EncodeToString(m.Sum(nil))
}

func tokenSpec(change func(*Spec)) Spec {
	s := Spec{Alg: "jwt-hs256", Sig: SigSpec{In: []string{"header:x-token"}}, JWT: JWTSpec{Body: "b", URL: "u", Issuer: "acme"}, TS: TimestampSpec{Tolerance: 60}, ID: "claim:jti"}
	if change != nil {
		change(&s)
	}
	return s
}

func TestTokens(t *testing.T) {
	good := tokenOf(tokenHeader, tokenClaims(), "secret", sha256.New)
	without := func(name string) string {
		return strings.Replace(strings.Replace(tokenClaims(), name, `"-`+name[1:], 1), `""`, `"`, 1)
	}
	signed := func(header, claims string) string { return tokenOf(header, claims, "secret", sha256.New) }
	header := func(more string) string { return signed(`{"alg":"HS256",`+more+`}`, tokenClaims()) }
	claims := func(old, text string) string {
		return signed(tokenHeader, strings.Replace(tokenClaims(), old, text, 1))
	}
	parts := strings.Split(good, ".")
	raw := base64.RawURLEncoding
	tests := []struct {
		name   string
		token  string
		spec   func(*Spec)
		change func(*Delivery)
		want   string
	}{
		{name: "valid", token: good, want: verdictValid},
		{name: "valid, merged", token: good, change: func(d *Delivery) { d.Merged = true }, want: verdictValid},
		{name: "header in another order", token: signed(`{"typ":"JWT","alg":"HS256"}`, tokenClaims()), want: verdictValid},
		{name: "spaces in the JSON", token: signed(" { \"alg\" : \"HS256\" } ", " "+tokenClaims()+"\n"), want: verdictValid},
		{name: "unknown claims and parameters", token: signed(`{"alg":"HS256","x":[1,{"a":null}]}`, tokenClaims(`"video":{"a":1}`, `"n":null`)), want: verdictValid},

		{name: "none", token: raw.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", want: Malformed.String()},
		{name: "none with a signature", token: signed(`{"alg":"none"}`, tokenClaims()), want: Malformed.String()},
		{name: "None", token: signed(`{"alg":"None"}`, tokenClaims()), want: Malformed.String()},
		{name: "no algorithm", token: signed(`{"typ":"JWT"}`, tokenClaims()), want: Malformed.String()},
		{name: "algorithm null", token: signed(`{"alg":null}`, tokenClaims()), want: Malformed.String()},
		{name: "algorithm in a list", token: signed(`{"alg":["HS256"]}`, tokenClaims()), want: Malformed.String()},
		{name: "algorithm in lower case", token: signed(`{"alg":"hs256"}`, tokenClaims()), want: Malformed.String()},
		{name: "another HMAC", token: tokenOf(`{"alg":"HS512"}`, tokenClaims(), "secret", sha512.New), want: Malformed.String()},
		{name: "another HMAC where any is taken", token: tokenOf(`{"alg":"HS512"}`, tokenClaims(), "secret", sha512.New), spec: func(s *Spec) { s.Alg = "jwt-hmac" }, want: verdictValid},
		{name: "an HMAC of the wrong size", token: tokenOf(`{"alg":"HS512"}`, tokenClaims(), "secret", sha256.New), spec: func(s *Spec) { s.Alg = "jwt-hmac" }, want: Malformed.String()},
		{name: "an HMAC by another name", token: tokenOf(`{"alg":"HS384"}`, tokenClaims(), "secret", sha512.New384), spec: func(s *Spec) { s.Alg = "jwt-hs512" }, want: Malformed.String()},
		{name: "RS256 under a shared secret", token: signed(`{"alg":"RS256"}`, tokenClaims()), want: Malformed.String()},
		{name: "algorithm twice", token: signed(`{"alg":"none","alg":"HS256"}`, tokenClaims()), want: Malformed.String()},
		{name: "algorithm twice, once escaped", token: signed(`{"\u0061lg":"none","alg":"HS256"}`, tokenClaims()), want: Malformed.String()},
		{name: "any parameter twice", token: header(`"x":1,"x":1`), want: Malformed.String()},
		{name: "critical extension", token: header(`"crit":["exp"]`), want: Malformed.String()},
		{name: "empty list of critical extensions", token: header(`"crit":[]`), want: Malformed.String()},
		{name: "critical extensions null", token: header(`"crit":null`), want: Malformed.String()},
		{name: "unencoded payload", token: header(`"b64":false`), want: Malformed.String()},
		{name: "key of its own", token: header(`"jwk":{"kty":"oct","k":"c2VjcmV0"}`), want: verdictValid}, // it is not looked at
		{name: "key id pinned", token: header(`"kid":"k1"`), spec: func(s *Spec) { s.Sig.KeyID = "k1" }, want: verdictValid},
		{name: "another key id", token: header(`"kid":"k2"`), spec: func(s *Spec) { s.Sig.KeyID = "k1" }, want: Malformed.String()},
		{name: "no key id where it is pinned", token: good, spec: func(s *Spec) { s.Sig.KeyID = "k1" }, want: Malformed.String()},

		{name: "no token", want: Missing.String()},
		{name: "blank", token: " \t", want: Missing.String()},
		{name: "one part", token: parts[0], want: Malformed.String()},
		{name: "two parts", token: parts[0] + "." + parts[1], want: Malformed.String()},
		{name: "empty signature", token: parts[0] + "." + parts[1] + ".", want: Malformed.String()},
		{name: "four parts", token: good + ".", want: Malformed.String()},
		{name: "five parts, as encrypted", token: good + ".a.b", want: Malformed.String()},
		{name: "empty header", token: "." + parts[1] + "." + parts[2], want: Malformed.String()},
		{name: "no payload", token: parts[0] + ".." + parts[2], want: Malformed.String()},
		{name: "padding", token: parts[0] + "=." + parts[1] + "." + parts[2], want: Malformed.String()},
		{name: "padded signature", token: good + "=", want: Malformed.String()},
		{name: "line break", token: parts[0] + ".\n" + parts[1] + "." + parts[2], want: Malformed.String()},
		{name: "space before", token: " " + good, want: Malformed.String()},
		{name: "space after", token: good + " ", want: Malformed.String()},
		{name: "two tokens", token: good + "," + good, want: Malformed.String()},
		{name: "header twice", token: good, change: func(d *Delivery) { d.Headers = append(d.Headers, d.Headers[0]) }, want: Malformed.String()},
		{name: "signature truncated", token: good[:len(good)-2], want: Malformed.String()},
		{name: "signature extended", token: good + "AA", want: Malformed.String()},
		{name: "signature of zeros", token: parts[0] + "." + parts[1] + "." + raw.EncodeToString(make([]byte, 32)), want: verdictMismatch},
		{name: "header that is no object", token: signed(`["HS256"]`, tokenClaims()), want: Malformed.String()},
		{name: "claims that are no object", token: signed(tokenHeader, `"b"`), want: Malformed.String()},
		{name: "empty claims", token: signed(tokenHeader, ""), want: Malformed.String()},
		{name: "something after the claims", token: signed(tokenHeader, tokenClaims()+"{}"), want: Malformed.String()},
		{name: "comma at the end", token: signed(tokenHeader, strings.TrimSuffix(tokenClaims(), "}")+",}"), want: Malformed.String()},
		{name: "no comma", token: claims(`",`, `"`), want: Malformed.String()},
		{name: "no end", token: signed(tokenHeader, strings.TrimSuffix(tokenClaims(), "}")), want: Malformed.String()},
		{name: "too long", token: signed(tokenHeader, tokenClaims(`"x":"`+strings.Repeat("x", maxCarried)+`"`)), want: Malformed.String()},
		{name: "too many claims", token: signed(tokenHeader, tokenClaims(slices.Repeat([]string{`"x":1`}, 100)...)), want: Malformed.String()},
		{name: "too deep", token: signed(tokenHeader, tokenClaims(`"x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500))), want: Malformed.String()},

		{name: "claim twice", token: signed(tokenHeader, tokenClaims(`"b":"`+hexSum(body)+`"`)), want: Malformed.String()},
		{name: "claim twice, once escaped", token: signed(tokenHeader, tokenClaims(`"\u0062":"`+hexSum(body)+`"`)), want: Malformed.String()},
		{name: "any claim twice", token: signed(tokenHeader, tokenClaims(`"x":1`, `"x":2`)), want: Malformed.String()},
		{name: "no digest of the body", token: signed(tokenHeader, without(`"b"`)), want: Malformed.String()},
		{name: "no digest of the URL", token: signed(tokenHeader, without(`"u"`)), want: Malformed.String()},
		{name: "digest null", token: claims(`"b":"`+hexSum(body)+`"`, `"b":null`), want: Malformed.String()},
		{name: "digest empty", token: claims(hexSum(body), ""), want: Malformed.String()},
		{name: "digest too short", token: claims(hexSum(body), hexSum(body)[2:]), want: Malformed.String()},
		{name: "digest too long", token: claims(hexSum(body), hexSum(body)+"00"), want: Malformed.String()},
		{name: "digest not hex", token: claims(hexSum(body), strings.Repeat("g", 64)), want: Malformed.String()},
		{name: "digest that is a number", token: claims(`"b":"`+hexSum(body)+`"`, `"b":1`), want: Malformed.String()},
		{name: "digest in capitals", token: claims(hexSum(body), strings.ToUpper(hexSum(body))), want: verdictValid},
		{name: "digest of another body", token: claims(hexSum(body), hexSum("x")), want: verdictMismatch},
		{name: "digest of another URL", token: claims(hexSum(tokenURL), hexSum("https://hooks.example.com/")), want: verdictMismatch},
		{name: "digests exchanged", token: claims(hexSum(body)+`","u":"`+hexSum(tokenURL), hexSum(tokenURL)+`","u":"`+hexSum(body)), want: verdictMismatch},
		{name: "another body", token: good, change: func(d *Delivery) { d.Body[0] = []byte("x") }, want: verdictMismatch},
		{name: "no body", token: good, change: func(d *Delivery) { d.Body = nil }, want: verdictMismatch},
		{name: "body in segments", token: good, change: func(d *Delivery) { d.Body = [][]byte{[]byte(body[:3]), nil, []byte(body[3:])} }, want: verdictValid},
		{name: "another query", token: good, change: func(d *Delivery) { d.Path = "/hooks?a=2" }, want: verdictMismatch},
		{name: "no public URL", token: good, change: func(d *Delivery) { d.PublicURL = "" }, want: Malformed.String()},
		{name: "no digest of no body, which may be", token: signed(tokenHeader, without(`"b"`)), spec: func(s *Spec) { s.JWT.BodyOptional = true }, change: func(d *Delivery) { d.Body = [][]byte{nil} }, want: verdictValid},
		{name: "no digest of no body, which may not be", token: signed(tokenHeader, without(`"b"`)), change: func(d *Delivery) { d.Body = nil }, want: Malformed.String()},
		{name: "no digest of a body", token: signed(tokenHeader, without(`"b"`)), spec: func(s *Spec) { s.JWT.BodyOptional = true }, want: Malformed.String()},
		{name: "a digest of no body that is there", token: good, spec: func(s *Spec) { s.JWT.BodyOptional = true }, change: func(d *Delivery) { d.Body = nil }, want: verdictMismatch},
		{name: "another issuer", token: claims(`"acme"`, `"evil"`), want: Malformed.String()},
		{name: "no issuer", token: signed(tokenHeader, without(`"iss"`)), want: Malformed.String()},
		{name: "issuer in a list", token: claims(`"acme"`, `["acme"]`), want: Malformed.String()},
		{name: "id in a list", token: claims(`"j1"`, `["j1"]`), want: verdictValid}, // there is no id then
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, tokenSpec(tt.spec))
			d := &Delivery{Method: "POST", Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", tt.token}}, Body: [][]byte{[]byte(body)}}
			if tt.change != nil {
				tt.change(d)
			}
			if got := decide(s, d, []*Key{key(t, s, "secret")}, &moment, time.Minute); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if got := decide(s, d, []*Key{key(t, s, "other")}, &moment, time.Minute); got == verdictValid {
				t.Error("valid under another secret")
			}
		})
	}
}

func TestTokenTimes(t *testing.T) {
	const at = 1767225600
	tests := []struct {
		name     string
		times    string // claims
		optional bool
		tried    map[int]string // seconds from now to the verdict with a tolerance of a minute
	}{
		{"iat alone", `"iat":1767225600`, false, map[int]string{-61: verdictStale, -60: verdictValid, 60: verdictValid, 61: verdictStale}},
		{"nbf alone", `"nbf":1767225600`, false, map[int]string{-61: verdictStale, -60: verdictValid, 60: verdictValid, 61: verdictStale}},
		{"exp alone", `"exp":1767225600`, false, map[int]string{-1e6: verdictValid, 60: verdictValid, 61: verdictStale}},
		{"iat and exp", `"iat":1767225600,"exp":1767225900`, false, map[int]string{-61: verdictStale, -60: verdictValid, 360: verdictValid, 361: verdictStale}},
		{"nbf after iat", `"iat":1767225600,"nbf":1767225700,"exp":1767225900`, false, map[int]string{39: verdictStale, 40: verdictValid, 360: verdictValid, 361: verdictStale}},
		{"nbf before iat", `"iat":1767225600,"nbf":1767225500,"exp":1767225900`, false, map[int]string{-61: verdictStale, -60: verdictValid}},
		{"nbf after iat without exp", `"iat":1767225600,"nbf":1767225640`, false, map[int]string{-21: verdictStale, -20: verdictValid, 60: verdictValid, 61: verdictStale}},
		{"exp before iat", `"iat":1767225600,"exp":1767225400`, false, map[int]string{-140: verdictStale, -60: verdictStale, 0: verdictStale}},
		{"none", `"x":1`, false, map[int]string{0: TimestampMissing.String()}},
		{"none, which may be", `"x":1`, true, map[int]string{-1e9: verdictValid, 1e9: verdictValid}},
		{"exp where it may be missing", `"exp":1767225600`, true, map[int]string{60: verdictValid, 61: verdictStale}},
		{"null", `"iat":null`, false, map[int]string{0: TimestampMissing.String()}},
		{"text", `"iat":"1767225600"`, false, map[int]string{0: TimestampMalformed.String()}},
		{"fraction", `"iat":1767225600.5`, false, map[int]string{0: TimestampMalformed.String()}},
		{"exponent", `"iat":1767225600,"exp":17e9`, false, map[int]string{0: TimestampMalformed.String()}},
		{"sign", `"iat":-1`, false, map[int]string{0: TimestampMalformed.String()}},
		{"20 digits", `"exp":18446744073709551616`, false, map[int]string{0: TimestampMalformed.String()}},
		{"malformed where it may be missing", `"exp":true`, true, map[int]string{0: TimestampMalformed.String()}},
		{"list", `"nbf":[1767225600]`, false, map[int]string{0: TimestampMalformed.String()}},
	}
	for _, tt := range tests {
		s := compile(t, Spec{Alg: "jwt-hs256", Sig: SigSpec{In: []string{"header:x-token"}}, JWT: JWTSpec{Body: "b"}, TS: TimestampSpec{Optional: tt.optional, Tolerance: 60}})
		token := tokenOf(tokenHeader, `{"b":"`+hexSum(body)+`",`+tt.times+`}`, "secret", sha256.New)
		d := &Delivery{Headers: []Header{{"x-token", token}}, Body: [][]byte{[]byte(body)}}
		for after, want := range tt.tried {
			now := time.Unix(at+int64(after), 999)
			if got := decide(s, d, []*Key{key(t, s, "secret")}, &now, time.Minute); got != want {
				t.Errorf("%s, %d s after: %s, want %s", tt.name, after, got, want)
			}
		}
	}
}

// TestTokenTells says what a token tells of the delivery, and that it is one message however the body is cut.
func TestTokenTells(t *testing.T) {
	s := compile(t, tokenSpec(func(s *Spec) { s.Event = "json:hello" }))
	if !s.BodySigned() || !s.HasTimestamp() || !s.TimestampSigned() || !s.NeedsURL() || !s.IDSigned() || !s.EventSigned() || s.NeedsPublicKey() || s.IsToken() {
		t.Error("the facts of the scheme are wrong")
	}
	if got, want := s.Headers(), []string{"x-token"}; !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
	k, other := key(t, s, "secret"), key(t, s, "other")
	var v Verification
	var ids []MessageID
	for _, claims := range []string{tokenClaims(), tokenClaims(), tokenClaims(`"x":1`)} {
		d := &Delivery{Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", tokenOf(tokenHeader, claims, "secret", sha256.New)}}, Body: [][]byte{[]byte(body)}}
		if f := s.Parse(&v, d); f != None || !v.Matches(k) {
			t.Fatal(f)
		}
		at, ok := v.Timestamp()
		if v.DeliveryID() != "j1" || v.Event() != "world" || !ok || !at.Equal(moment) {
			t.Errorf("id %q, event %q, time %v", v.DeliveryID(), v.Event(), at)
		}
		ids = append(ids, v.MessageID(k))
		if v.MessageID(k) == v.MessageID(other) || v.MessageID(k) == (MessageID{}) {
			t.Error("the identity does not depend on the key")
		}
	}
	if ids[0] != ids[1] || ids[0] == ids[2] {
		t.Errorf("identities %x", ids)
	}
	v.Reset()
	if v.DeliveryID() != "" || v.Matches(k) {
		t.Error("something is left after Reset")
	}
	unsigned := compile(t, tokenSpec(func(s *Spec) { s.JWT.Body, s.ID, s.Event = "", "json:hello", "header:x-event" }))
	if unsigned.BodySigned() || unsigned.IDSigned() || unsigned.EventSigned() {
		t.Error("a token without a digest of the body signs it")
	}
}

// TestKeyConfusion tries what is known of libraries that let a token choose how it is verified.
func TestKeyConfusion(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := publicPEM(t, private)
	spec := tokenSpec(func(s *Spec) { s.Alg = "jwt-rs256" })
	s := compile(t, spec)
	k, err := s.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(public)
	try := func(token string) string {
		d := &Delivery{Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", token}}, Body: [][]byte{[]byte(body)}}
		return decide(s, d, []*Key{k}, &moment, time.Minute)
	}
	for name, secret := range map[string]string{"PEM": string(public), "PEM without its end": strings.TrimSpace(string(public)), "DER": string(der.Bytes), "base64": base64.StdEncoding.EncodeToString(der.Bytes), "nothing": ""} {
		for _, header := range []string{tokenHeader, `{"alg":"RS256"}`} {
			if got := try(tokenOf(header, tokenClaims(), secret, sha256.New)); got != Malformed.String() && got != verdictMismatch {
				t.Errorf("HMAC under the public key as %s, %s: %s", name, header, got)
			}
		}
	}
	signed := func(m jwt.SigningMethod, header string) string {
		message := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(tokenClaims()))
		signature, err := m.Sign(message, private)
		if err != nil {
			t.Fatal(err)
		}
		return message + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	for token, want := range map[string]string{
		signed(jwt.SigningMethodRS256, `{"alg":"RS256"}`): verdictValid,
		signed(jwt.SigningMethodRS512, `{"alg":"RS512"}`): Malformed.String(),
		signed(jwt.SigningMethodPS256, `{"alg":"PS256"}`): Malformed.String(),
		signed(jwt.SigningMethodPS256, `{"alg":"RS256"}`): verdictMismatch,
		signed(jwt.SigningMethodRS512, `{"alg":"RS256"}`): verdictMismatch,
	} {
		if got := try(token); got != want {
			t.Errorf("%s: %s, want %s", token[:20], got, want)
		}
	}
	shared := compile(t, tokenSpec(nil))
	if _, err := shared.NewKey(public); err == nil {
		t.Error("a PEM file is taken for a shared secret")
	}
	if _, err := shared.NewPublicKey(public); err == nil {
		t.Error("a shared secret's scheme takes a public key")
	}
	if _, err := s.NewKey([]byte("secret")); err == nil {
		t.Error("a public key's scheme takes a shared secret")
	}
	if v := (Verification{}); s.Parse(&v, &Delivery{}) != Missing || v.Matches(key(t, shared, "secret")) {
		t.Error("a key of another family matches")
	}
}

// TestTokensOfALibrary verifies what golang-jwt signs, with every algorithm, and lets it verify what Sign makes.
func TestTokensOfALibrary(t *testing.T) {
	claims := jwt.MapClaims{"iss": "acme", "iat": moment.Unix(), "exp": moment.Unix() + 60, "jti": "j1", "b": hexSum(body), "u": hexSum(tokenURL)}
	for _, a := range algorithms {
		if a.format != jwtFormat {
			continue
		}
		s := compile(t, tokenSpec(func(spec *Spec) { spec.Alg = a.name }))
		for _, m := range a.methods {
			var signing any = []byte("secret")
			var k *Key
			if s.NeedsPublicKey() {
				private := newPrivateKey(t, a)
				var err error
				if k, err = s.NewPublicKey(publicPEM(t, private)); err != nil {
					t.Fatal(err)
				}
				signing = private
			} else {
				k = key(t, s, "secret")
			}
			token, err := jwt.NewWithClaims(m, claims).SignedString(signing)
			if err != nil {
				t.Fatal(err)
			}
			d := &Delivery{Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", token}}, Body: [][]byte{[]byte(body)}}
			if got := decide(s, d, []*Key{k}, &moment, time.Minute); got != verdictValid {
				t.Errorf("%s with %s: %s", a.name, m.Alg(), got)
			}
		}
		if s.NeedsPublicKey() {
			continue
		}
		signed, err := s.Sign(key(t, s, "secret"), Delivery{Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Body: [][]byte{[]byte(body)}}, moment, "j2")
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := jwt.Parse(signed.Headers[0].Value, func(*jwt.Token) (any, error) { return []byte("secret"), nil },
			jwt.WithValidMethods([]string{a.methods[0].Alg()}), jwt.WithStrictDecoding(), jwt.WithIssuer("acme"), jwt.WithTimeFunc(func() time.Time { return moment }), jwt.WithExpirationRequired())
		if err != nil {
			t.Errorf("%s: the library refuses what Sign makes: %v", a.name, err)
		} else if got := parsed.Claims.(jwt.MapClaims); got["jti"] != "j2" || got["b"] != hexSum(body) || got["u"] != hexSum(tokenURL) {
			t.Errorf("%s: claims %v", a.name, got)
		}
	}
}

func TestJSONWebKeys(t *testing.T) {
	raw := base64.RawURLEncoding.EncodeToString
	ec := func(curve string, k *ecdsa.PublicKey) string {
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q,"kid":"1","use":"sig"}`, curve, raw(point[1:1+half]), raw(point[1+half:]))
	}
	generate := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p256, p521 := generate(elliptic.P256()), generate(elliptic.P521())
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := func(n []byte, e string) string { return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, raw(n), e) }
	tests := []struct {
		name, alg, text string
		want            crypto.PublicKey // nil: refused
	}{
		{"P-256", "jwt-es256", ec("P-256", &p256.PublicKey), &p256.PublicKey},
		{"P-521", "jws-es512", ec("P-521", &p521.PublicKey), &p521.PublicKey},
		{"RSA", "jwt-rs256", rsaKey(long.N.Bytes(), "AQAB"), &long.PublicKey},
		{"RSA for an HTTP Message Signature", "http-signature-rsa-pss-sha512", rsaKey(long.N.Bytes(), "AQAB"), &long.PublicKey},
		{"another curve", "jwt-es256", ec("P-521", &p521.PublicKey), nil},
		{"another type", "jwt-rs256", ec("P-256", &p256.PublicKey), nil},
		{"wrong name of the curve", "jwt-es256", ec("P-521", &p256.PublicKey), nil},
		{"not on the curve", "jwt-es256", `{"kty":"EC","crv":"P-256","x":"` + raw(make([]byte, 32)) + `","y":"` + raw(make([]byte, 32)) + `"}`, nil},
		{"no y", "jwt-es256", `{"kty":"EC","crv":"P-256","x":"` + raw(make([]byte, 32)) + `"}`, nil},
		{"RSA of 1024 bits", "jwt-rs256", rsaKey(long.N.Bytes()[:128], "AQAB"), nil},
		{"RSA with a zero before", "jwt-rs256", rsaKey(append([]byte{0}, long.N.Bytes()...), "AQAB"), nil},
		{"RSA with exponent 1", "jwt-rs256", rsaKey(long.N.Bytes(), "AQ"), nil},
		{"RSA with an even exponent", "jwt-rs256", rsaKey(long.N.Bytes(), "AQAA"), nil},
		{"RSA with a huge modulus", "jwt-rs256", rsaKey(slices.Repeat([]byte{0xff}, 2000), "AQAB"), nil},
		{"private", "jwt-es256", strings.Replace(ec("P-256", &p256.PublicKey), `"kid":"1"`, `"d":"c2VjcmV0"`, 1), nil},
		{"shared", "jwt-es256", `{"kty":"oct","k":"c2VjcmV0"}`, nil},
		{"list of keys", "jwt-es256", `{"keys":[` + ec("P-256", &p256.PublicKey) + `]}`, nil},
		{"member twice", "jwt-es256", strings.Replace(ec("P-256", &p256.PublicKey), `"kid":"1"`, `"kty":"EC"`, 1), nil},
		{"no JSON", "jwt-es256", `{`, nil},
		{"plain signature", "ecdsa-p256-sha256", ec("P-256", &p256.PublicKey), nil},
	}
	for _, tt := range tests {
		spec := tokenSpec(func(s *Spec) { s.Alg = tt.alg })
		switch {
		case strings.HasPrefix(tt.alg, "jws-"):
			spec = Spec{Alg: tt.alg, Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:x"}}}
		case strings.HasPrefix(tt.alg, "http-"):
			spec = messageSpec(func(s *Spec) { s.Alg = tt.alg })
		case !strings.HasPrefix(tt.alg, "jwt-"):
			spec = Spec{Alg: tt.alg, Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:x"}, Enc: "base64"}}
		}
		s := compile(t, spec)
		k, err := s.NewPublicKey([]byte(tt.text))
		switch {
		case tt.want == nil && err == nil:
			t.Errorf("%s: taken", tt.name)
		case tt.want == nil && strings.Contains(err.Error(), "c2VjcmV0"):
			t.Errorf("%s: the error quotes the key: %v", tt.name, err)
		case tt.want != nil && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != nil && !tt.want.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.public):
			t.Errorf("%s: another key", tt.name)
		}
	}
	edPrivate := newPrivateKey(t, *algorithmNamed(t, "jwt-eddsa"))
	der, err := x509.MarshalPKIXPublicKey(edPrivate.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := compile(t, tokenSpec(func(s *Spec) { s.Alg = "jwt-eddsa" }))
	if _, err := s.NewPublicKey([]byte(`{"kty":"OKP","crv":"Ed25519","x":"` + raw(der[len(der)-32:]) + `"}`)); err != nil {
		t.Error(err)
	}
	if _, err := s.NewPublicKey([]byte(`{"kty":"OKP","crv":"X25519","x":"` + raw(der[len(der)-32:]) + `"}`)); err == nil {
		t.Error("a key of another curve is taken")
	}
}

func algorithmNamed(t testing.TB, name string) *algorithm {
	t.Helper()
	at := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name })
	if at < 0 {
		t.Fatalf("there is no algorithm %q", name)
	}
	return &algorithms[at]
}

// TestReadObject compares the reading of objects with encoding/json, which takes the last of two members of one name.
func TestReadObject(t *testing.T) {
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{`{}`, true}, {` { } `, true}, {`{"a":1}`, true}, {`{"a":{"a":1},"b":[]}`, true}, {`{"":0}`, true},
		{``, false}, {`[]`, false}, {`{"a"}`, false}, {`{"a":}`, false}, {`{,}`, false}, {`{"a":1,}`, false}, {`{"a":1 "b":2}`, false}, {`{"a":1}x`, false},
		{`{a:1}`, false}, {`{"a":1,"a":1}`, false}, {`{"a":1,"\u0061":1}`, false}, {`{"\ud800":1}`, false}, {`{"a":01}`, false},
	} {
		members, ok := readObject([]byte(tt.text), nil)
		if ok != tt.ok {
			t.Errorf("%s: %v, want %v", tt.text, ok, tt.ok)
		}
		if ok && !json.Valid([]byte(tt.text)) {
			t.Errorf("%s: no JSON", tt.text)
		}
		if !ok {
			continue
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(tt.text), &want); err != nil || len(want) != len(members) {
			t.Errorf("%s: %d members, want %d", tt.text, len(members), len(want))
		}
	}
}
