package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"
)

// JWTSpec says what the claims of a signed token are (RFC 7519). The token is a compact JWS (RFC 7515): its header and claims are what is
// signed, and the body takes part by its digest in a claim.
type JWTSpec struct {
	// Body is the claim with the digest of the body, SHA-256 written in Digest: hex or base64. It may be absent where there is no body.
	Body   string `yaml:"body" doc:"Claim that holds the SHA-256 of the body."`
	Digest string `yaml:"digest" doc:"How the digest is written: hex (the default) or base64."`
	// URL is the claim with the SHA-256, in hex, of the URL that the sender was given with the request's query.
	URL string `yaml:"url" doc:"Claim that holds the SHA-256 of the URL, in hex."`
	// Issuer is what the claim iss must be. Empty: anything.
	Issuer string `yaml:"issuer" doc:"What the claim iss must be."`
}

// token is a compiled JWTSpec.
type token struct {
	spec         JWTSpec
	algs         []string // of the JOSE header, pinned by the policy
	header, body int      // slots of the signed parts
	digest       encoding
}

// jwtAlgorithms are the algorithms whose signatures stand in a token, with the names that the JOSE header may have for them.
var jwtAlgorithms = map[string][]string{
	"jwt-hmac":  {"HS256", "HS384", "HS512"}, // one secret, which of them is the sender's choice
	"jwt-hs256": {"HS256"},
	"jwt-hs384": {"HS384"},
	"jwt-hs512": {"HS512"},
	"jwt-rs256": {"RS256"},
	"jwt-es256": {"ES256"},
	"jwt-eddsa": {"EdDSA"},
}

// jwtHashes are the hashes of the MACs.
var jwtHashes = map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}

// maxToken bounds a token as written.
const maxToken = 8 << 10

// Claims that are always read; those that the spec names follow.
const (
	claimIssuer = iota
	claimExpires
	claimNotBefore
	claimIssued
	claimBody
	claimURL
	fixedClaims
)

// claims are what a token says.
type claims struct {
	alg                         string
	body, url                   string
	expires, notBefore, issued  int64 // Unix seconds
	hasExpires, hasOther, valid bool
}

// jwt compiles the parts of a scheme that verify a token.
func (c *compiler) jwt() {
	s := c.scheme
	spec := s.spec.JWT
	algs, isToken := jwtAlgorithms[s.alg.name]
	if !isToken {
		if slices.ContainsFunc(s.fields, func(f field) bool { return f.source.kind == claimField }) {
			c.fault("id", "only a token has claims", "write header:NAME or json:PATH, or an alg such as jwt-hs256")
		}
		if spec != (JWTSpec{}) {
			c.fault("jwt", fmt.Sprintf("the algorithm %s has no claims", clip(s.alg.name)), "delete jwt, or write an alg such as jwt-hs256")
		}
		return
	}
	s.jwt = &token{spec: spec, algs: algs, digest: hexEncoding}
	if len(s.spec.Sign) > 0 {
		c.fault("sign", "a token says itself what it signs", "delete sign")
	}
	if g := s.spec.Sig; g.Split != "" || g.KV != "" || g.Enc != "" || g.DropFirst || g.Numbered != "" {
		c.fault("sig", "a token is of one form", "write only in and prefix")
	}
	switch spec.Digest {
	case "", "hex":
	case "base64":
		s.jwt.digest = base64Encoding
	default:
		c.fault("jwt.digest", fmt.Sprintf("no digest is written as %q", clip(spec.Digest)), "write hex or base64")
	}
	s.facts.needsURL = spec.URL != ""
	s.jwt.header, s.jwt.body = c.slot("sign", source{sigField, "0"}), c.slot("sign", source{sigField, "1"})
	s.templates = []template{{
		{kind: fieldPart, slot: s.jwt.header, source: source{sigField, "0"}},
		{kind: literalPart, text: "."},
		{kind: fieldPart, slot: s.jwt.body, source: source{sigField, "1"}},
	}}
}

// tokenTimes takes what a scheme says of the times of a token.
func (c *compiler) tokenTimes() {
	s, ts := c.scheme, c.scheme.spec.TS
	if len(ts.In) > 0 || ts.Unit != "" {
		c.fault("ts", "the times stand in the signature", "write only tolerance, and optional where a token may hold none")
	}
	if ts.Tolerance < 0 || ts.Tolerance > int(maxTolerance/time.Second) {
		c.fault("ts.tolerance", fmt.Sprintf("%d is not a number of seconds up to 7 days", ts.Tolerance), "write how far clocks may differ, in seconds, such as 60")
	}
	s.ts.optional, s.ts.tolerance = ts.Optional, time.Duration(ts.Tolerance)*time.Second
}

// parseJWT reads the token: everything before crypto.
func (v *Verification) parseJWT() Failure {
	t := v.scheme.jwt
	if f := v.findTexts(); f != None {
		return f
	}
	text := v.texts[0]
	if text == "" {
		return Missing
	}
	if prefixes := v.scheme.sig.prefixes; len(prefixes) > 0 {
		at := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(text, p) })
		if at < 0 {
			return Malformed
		}
		text = text[len(prefixes[at]):]
	}
	parts := strings.SplitN(text, ".", 4)
	if len(v.texts) != 1 || len(text) > maxToken || len(parts) != 3 || slices.Contains(parts, "") {
		return Malformed
	}
	header, ok1 := rawURL(parts[0])
	payload, ok2 := rawURL(parts[1])
	signature, ok3 := rawURL(parts[2])
	if !ok1 || !ok2 || !ok3 || !v.readJOSE(header) {
		return Malformed
	}
	if f := v.readClaims(payload); f != None {
		return f
	}
	if v.scheme.facts.needsURL && v.delivery.PublicURL == "" {
		return Malformed
	}
	if v.scheme.alg.signer == ecdsaSigner {
		var ok bool
		if signature, ok = asn1Numbers(signature, 32); !ok {
			return Malformed
		}
	}
	v.fields[t.header], v.fields[t.body] = fieldValue{parts[0], present}, fieldValue{parts[1], present}
	v.decoded = append(v.decoded, signature...)
	v.ends = append(v.ends, len(v.decoded))
	return None
}

// rawURL is base64url without padding, in its one canonical form.
func rawURL(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") { // the package skips them
		return nil, false
	}
	b, err := strictRawBase64URL.DecodeString(text)
	return b, err == nil && len(b) > 0
}

// readJOSE reads the token's header. The policy names the algorithm and the header must agree; extensions that must be understood are not.
func (v *Verification) readJOSE(header []byte) bool {
	paths := []jsonPath{newJSONPath("alg"), newJSONPath("crit"), newJSONPath("b64")}
	values := make([]jsonValue, len(paths))
	if !scanJSON(header, paths, values) || slices.ContainsFunc(values, func(j jsonValue) bool { return j.duplicate }) {
		return false
	}
	v.claims.alg = values[0].text
	return values[0].state == jsonText && slices.Contains(v.scheme.jwt.algs, values[0].text) && values[1].state == jsonAbsent && values[2].state == jsonAbsent
}

// readClaims reads what the token says.
func (v *Verification) readClaims(payload []byte) Failure {
	s, t := v.scheme, v.scheme.jwt
	names := []string{"iss", "exp", "nbf", "iat", t.spec.Body, t.spec.URL}
	for _, f := range s.fields {
		if f.source.kind == claimField {
			names = append(names, f.source.name)
		}
	}
	paths := make([]jsonPath, len(names))
	for i, name := range names {
		paths[i] = jsonPath{name} // a claim's name may hold a dot
	}
	values := make([]jsonValue, len(names))
	if !scanJSON(payload, paths, values) {
		return Malformed
	}
	for i, value := range values {
		if names[i] != "" && (value.duplicate || value.state == jsonOther || value.state == jsonList) {
			return Malformed
		}
	}
	if t.spec.Issuer != "" && values[claimIssuer].text != t.spec.Issuer {
		return Malformed
	}
	for i, into := range map[int]*int64{claimExpires: &v.claims.expires, claimNotBefore: &v.claims.notBefore, claimIssued: &v.claims.issued} {
		if values[i].state == jsonAbsent {
			continue
		}
		n, ok := digits(values[i].text)
		if !ok || n > 1<<40 {
			return TimestampMalformed
		}
		*into = n
		if i == claimExpires {
			v.claims.hasExpires = true
		} else {
			v.claims.hasOther = true
		}
	}
	if !v.claims.hasExpires && !v.claims.hasOther && !s.ts.optional {
		return TimestampMissing
	}
	v.claims.valid = true
	if t.spec.Body != "" {
		v.claims.body = values[claimBody].text
		if v.claims.body == "" && bodySize(v.delivery) > 0 {
			return Malformed
		}
	}
	if t.spec.URL != "" {
		if v.claims.url = values[claimURL].text; v.claims.url == "" {
			return Malformed
		}
	}
	next := fixedClaims
	for slot, f := range s.fields {
		if f.source.kind == claimField {
			v.fields[slot] = fieldValue{values[next].text, stateOf(values[next].text)}
			next++
		}
	}
	return None
}

// claimsHold says whether the digests that the token's claims hold are those of this delivery.
func (v *Verification) claimsHold() bool {
	t := v.scheme.jwt
	if t.spec.Body != "" && (v.claims.body != "" || bodySize(v.delivery) > 0) {
		v.scratch = v.appendBody(v.scratch[:0], sha256Raw)
		if !equalDigest(v.claims.body, v.scratch, t.digest) {
			return false
		}
	}
	if t.spec.URL != "" {
		v.scratch = v.appendURL(v.scratch[:0], urlPart)
		sum := sha256.Sum256(v.scratch)
		return equalDigest(v.claims.url, sum[:], hexEncoding)
	}
	return true
}

// equalDigest compares a digest as written with one in bytes.
func equalDigest(text string, want []byte, enc encoding) bool {
	var scratch []byte
	got, ok := enc.appendDecoded(nil, text, &scratch)
	return ok && hmac.Equal(got, want)
}

// freshClaims says whether now is within the times of the token, give or take the tolerance. A token that names no end is good for the tolerance
// after it was issued.
func (v *Verification) freshClaims(now time.Time, tolerance time.Duration) bool {
	c, at, slack := &v.claims, now.Unix(), int64(tolerance/time.Second)
	begin := max(c.notBefore, c.issued)
	switch {
	case !c.valid, at < begin-slack:
		return false
	case c.hasExpires:
		return at <= c.expires+slack
	case !c.hasOther:
		return true // Parse has seen to it that it need not have any
	}
	return at <= begin+slack
}

// signJWT makes the token of a delivery.
func (g *signing) signJWT(k *Key) error {
	s, t := g.scheme, g.scheme.jwt
	v := g.view()
	alg := t.algs[0]
	body := map[string]any{"iat": g.at.Unix(), "nbf": g.at.Unix(), "exp": g.at.Add(time.Minute).Unix()}
	if t.spec.Issuer != "" {
		body["iss"] = t.spec.Issuer
	}
	if t.spec.Body != "" {
		body[t.spec.Body] = t.digest.encode(v.appendBody(nil, sha256Raw))
	}
	if t.spec.URL != "" {
		if g.delivery.PublicURL == "" {
			return errors.New("the URL is signed and not known")
		}
		sum := sha256.Sum256(v.appendURL(nil, urlPart))
		body[t.spec.URL] = hex.EncodeToString(sum[:])
	}
	if s.id >= 0 && s.fields[s.id].source.kind == claimField {
		body[s.fields[s.id].source.name] = g.id
	}
	header, err1 := json.Marshal(map[string]string{"alg": alg, "typ": "JWT"})
	payload, err2 := json.Marshal(body)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	h := k.jwtHash(alg)
	h.Write([]byte(text))
	text += "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	if len(s.sig.prefixes) > 0 {
		text = s.sig.prefixes[0] + text
	}
	return g.set(s.fields[s.sig.in[0]].source, text)
}

// jwtHash is the hash of a JOSE algorithm that has absorbed the key.
func (k *Key) jwtHash(alg string) hash.Hash { return hmac.New(jwtHashes[alg], k.material) }
