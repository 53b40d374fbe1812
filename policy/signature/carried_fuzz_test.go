package signature

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// FuzzToken reads any header and claims, signed with the right secret. Whatever is taken must be what a library reads from it as well, with
// every name once and the algorithm of the scheme.
func FuzzToken(f *testing.F) {
	for _, header := range []string{tokenHeader, `{"alg":"none"}`, `{"alg":"HS256","alg":"none"}`, `{"alg":"HS256","crit":["x"]}`} {
		f.Add(header, tokenClaims())
	}
	f.Add(tokenHeader, tokenClaims(`"\u0069ss":"evil"`))
	s := compile(f, tokenSpec(nil))
	k := key(f, s, "secret")
	f.Fuzz(func(t *testing.T, header, claims string) {
		token := tokenOf(header, claims, "secret", sha256.New)
		d := &Delivery{Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", token}}, Body: [][]byte{[]byte(body)}}
		var v Verification
		got := s.Parse(&v, d)
		if got != None {
			if len(v.ends) > 0 || v.Matches(k) {
				t.Fatalf("%v, and a signature is left", got)
			}
			return
		}
		valid := v.Matches(k)
		id := v.DeliveryID()
		v.Fresh(moment, time.Minute)
		parsed, _, err := jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithValidMethods([]string{"HS256"})).ParseUnverified(token, jwt.MapClaims{})
		if err != nil {
			t.Fatalf("taken, and a library says: %v", err)
		}
		read := parsed.Claims.(jwt.MapClaims)
		if parsed.Method.Alg() != "HS256" || parsed.Header["crit"] != nil || read["iss"] != "acme" {
			t.Fatalf("taken with the header %v and the claims %v", parsed.Header, read)
		}
		if want, ok := read["jti"].(string); ok && want != id {
			t.Fatalf("the id is %q, and a library reads %q", id, want)
		}
		if bodyClaim, _ := read["b"].(string); valid != (strings.EqualFold(bodyClaim, hexSum(body)) && strings.EqualFold(read["u"].(string), hexSum(tokenURL))) {
			t.Fatalf("valid %v with the claims %v", valid, read)
		}
	})
}

// FuzzTokenText reads any text in place of a token.
func FuzzTokenText(f *testing.F) {
	good := tokenOf(tokenHeader, tokenClaims(), "secret", sha256.New)
	for _, text := range []string{good, good + ".", "..", "a.b.c", truelayerWebhook, truelayerAttached, strings.Repeat(".", 9000)} {
		f.Add(text)
	}
	s := compile(f, tokenSpec(nil))
	k, other := key(f, s, "secret"), key(f, s, "other")
	detached := compile(f, detachedSpec(nil))
	k2 := key(f, detached, "other")
	f.Fuzz(func(t *testing.T, text string) {
		d := &Delivery{Method: "POST", Path: "/hooks?a=1", PublicURL: "https://hooks.example.com/hooks", Headers: []Header{{"x-token", text}, {"x-jws", text}, {"x-time", "1"}}, Body: [][]byte{[]byte(body)}}
		var v Verification
		if s.Parse(&v, d) == None && (v.Matches(other) || v.Matches(k) && text != good) {
			t.Fatal("a text that nobody signed is taken")
		}
		if detached.Parse(&v, d) == None && v.Matches(k2) {
			t.Fatal("a text that nobody signed is taken")
		}
	})
}

// FuzzListedHeaders reads any JOSE header over a good signature of it: what is listed must be what is signed.
func FuzzListedHeaders(f *testing.F) {
	for _, header := range []string{`{"alg":"HS256","version":"2","list":"X-Time"}`, `{"alg":"HS256","version":"2","list":"x-time,X-Other"}`, `{"alg":"none","version":"2","list":"X-Time"}`, `{"alg":"HS256","version":"2","list":"X-Time,"}`} {
		f.Add(header, "a")
	}
	s := compile(f, detachedSpec(nil))
	k := key(f, s, "secret")
	f.Fuzz(func(t *testing.T, header, other string) {
		d := &Delivery{Method: "POST", Headers: []Header{{"x-time", "1767225600"}, {"x-other", other}}, Body: [][]byte{[]byte(body)}}
		var listed struct {
			List string `json:"list"`
		}
		message := "POST\n"
		if json.Unmarshal([]byte(header), &listed) == nil && listed.List != "" {
			for name := range strings.SplitSeq(listed.List, ",") {
				value := map[string]string{"x-time": "1767225600", "x-other": strings.Trim(other, " \t")}[strings.ToLower(name)]
				message += name + ": " + value + "\n"
			}
		}
		raw := base64.RawURLEncoding
		head := raw.EncodeToString([]byte(header))
		d.Headers = append(d.Headers, Header{"x-jws", head + ".." + raw.EncodeToString(mac(head+"."+raw.EncodeToString([]byte(message+body))))})
		var v Verification
		if s.Parse(&v, d) != None {
			return
		}
		names := strings.Split(strings.ToLower(listed.List), ",")
		slices.Sort(names)
		if !slices.Contains(names, "x-time") || len(slices.Compact(slices.Clone(names))) != len(names) || strings.Contains(header, "crit") {
			t.Fatalf("taken with the list %q", listed.List)
		}
		if !v.Matches(k) {
			t.Fatalf("what is listed as %q is not what is signed", listed.List)
		}
		d.Body = [][]byte{[]byte(body + " ")}
		if s.Parse(&v, d) == None && v.Matches(k) {
			t.Fatal("another body is taken")
		}
	})
}

// FuzzMessageSignature reads any parameters over a good signature of them, and any digest.
func FuzzMessageSignature(f *testing.F) {
	f.Add(messageParams, contentDigest(body))
	f.Add(`("@method" "@target-uri" "content-digest");created=1767225600;created=1`, "md5=:AAAA:, "+contentDigest(body))
	f.Add(`("@method" "content-digest" "@target-uri");expires=1767225600`, contentDigest("x")+", "+contentDigest(body))
	s := compile(f, messageSpec(func(s *Spec) { s.TS.Optional = true }))
	k := key(f, s, "secret")
	f.Fuzz(func(t *testing.T, params, digest string) {
		d := signedMessage(params, strings.Trim(digest, " \t"))
		var v Verification
		if s.Parse(&v, d) != None {
			if len(v.ends) > 0 {
				t.Fatal("a signature is left")
			}
			return
		}
		if strings.Count(v.signed[0], `"content-digest": `) != 1 || !strings.Contains(v.signed[0], "\n\"@signature-params\": ") {
			t.Fatalf("the base is\n%s", v.signed[0])
		}
		if v.Matches(k) && !strings.Contains(digest, strings.TrimPrefix(contentDigest(body), "sha-256=")) && !v.messages.has512 {
			t.Fatalf("a body is taken whose digest is not in %q", digest)
		}
		for _, change := range []func(*Delivery){
			func(d *Delivery) { d.Body = [][]byte{[]byte(body + " ")} },
			func(d *Delivery) { d.Method = "PUT" },
			func(d *Delivery) { d.Path += "&b=2" },
		} {
			other := d.clone()
			change(other)
			if s.Parse(&v, other) == None && v.Matches(k) {
				t.Fatalf("a changed delivery is taken with %s", params)
			}
		}
	})
}

// FuzzMessageHeaders reads any three headers, as they are and merged. Nothing of it is ever a right signature.
func FuzzMessageHeaders(f *testing.F) {
	r := readRFC9421(f)
	for _, x := range r.Signatures {
		f.Add(x.Input, x.Signature, r.Request.Headers[digestHeader])
	}
	names := slices.Sorted(maps.Keys(r.Request.Headers))
	s := compile(f, messageSpec(nil))
	k := key(f, s, "secret")
	f.Fuzz(func(t *testing.T, input, signature, digest string) {
		for _, merged := range []bool{false, true} {
			d := &Delivery{Method: "POST", Path: "/foo?param=Value", PublicURL: "https://example.com/foo", Merged: merged, Body: [][]byte{[]byte(body)}}
			for _, name := range names {
				if name != digestHeader {
					d.Headers = append(d.Headers, Header{name, r.Request.Headers[name]})
				}
			}
			d.Headers = append(d.Headers, Header{inputHeader, input}, Header{signatureHeader, signature}, Header{digestHeader, digest})
			var v Verification
			if s.Parse(&v, d) == None && v.Matches(k) {
				t.Fatal("a signature that nobody made is taken")
			}
		}
	})
}

// FuzzJSONWebKey reads any text as a key. One that is taken has no private half.
func FuzzJSONWebKey(f *testing.F) {
	f.Add(truelayerJWK)
	f.Add(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`)
	f.Add(`{"kty":"RSA","n":"AQAB","e":"AQAB"}`)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseJWK([]byte(text))
		if (k == nil) != (err != nil) {
			t.Fatalf("key %v, error %v", k, err)
		}
		if k == nil {
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			t.Fatalf("taken, and the library says: %v", err)
		}
		if d := members["d"]; d != nil && string(d) != "null" {
			t.Fatal("a private key is taken")
		}
	})
}
