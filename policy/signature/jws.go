package signature

import (
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"time"
)

// A detached JWS (RFC 7515, appendix F) as TrueLayer makes it, version 2: the token's header names the headers that are signed, and what is
// signed is the request line, those headers and the body.
// See https://github.com/TrueLayer/truelayer-signing/blob/main/request-signing-v2.md.
const (
	detachedAlgorithm = "jws-es512"
	detachedTime      = "x-tl-webhook-timestamp"
)

// detached compiles a scheme of a detached JWS.
func (c *compiler) detached() {
	s := c.scheme
	if s.alg.name != detachedAlgorithm {
		return
	}
	if len(s.spec.Sign) > 0 {
		c.fault("sign", "the token says itself what it signs", "delete sign")
	}
	if g := s.spec.Sig; g.Split != "" || g.KV != "" || g.Enc != "" || g.DropFirst || g.Numbered != "" || len(g.Prefix) > 0 {
		c.fault("sig", "a token is of one form", "write only in")
	}
	s.detached = true
	c.header(detachedTime)
	s.templates = []template{{{kind: messagePart}}}
}

// parseDetached reads the token and makes what it signs: everything before crypto.
func (v *Verification) parseDetached() Failure {
	if f := v.findTexts(); f != None {
		return f
	}
	text := v.texts[0]
	if text == "" {
		return Missing
	}
	parts := strings.SplitN(text, ".", 4)
	if len(v.texts) != 1 || len(text) > maxToken || len(parts) != 3 || parts[1] != "" {
		return Malformed
	}
	header, ok1 := rawURL(parts[0])
	signature, ok2 := rawURL(parts[2])
	if !ok1 || !ok2 {
		return Malformed
	}
	paths := []jsonPath{{"alg"}, {"tl_version"}, {"tl_headers"}, {"crit"}, {"b64"}}
	values := make([]jsonValue, len(paths))
	if !scanJSON(header, paths, values) || slices.ContainsFunc(values, func(j jsonValue) bool { return j.duplicate }) ||
		values[0].text != "ES512" || values[1].text != "2" || values[3].state != jsonAbsent || values[4].state != jsonAbsent {
		return Malformed
	}
	payload, f := v.detachedPayload(values[2].text)
	if f != None {
		return f
	}
	der, ok := asn1Numbers(signature, 66)
	if !ok {
		return Malformed
	}
	v.base = append(v.base[:0], parts[0]...)
	v.base = append(v.base, '.')
	v.base = base64.RawURLEncoding.AppendEncode(v.base, payload)
	v.decoded = append(v.decoded, der...)
	v.ends = append(v.ends, len(v.decoded))
	return None
}

// detachedPayload is the request line, the named headers and the body. The time of sending must be among the headers.
func (v *Verification) detachedPayload(names string) ([]byte, Failure) {
	path, _, _ := strings.Cut(v.delivery.Path, "?")
	payload := append(v.scratch2[:0], v.delivery.Method...)
	payload = append(payload, ' ')
	payload = append(payload, strings.TrimRight(path, "/")...)
	payload = append(payload, '\n')
	var seen []string
	for _, name := range strings.Split(names, ",") {
		lower := strings.ToLower(name)
		values := v.all(lower)
		if !headerName(name) || slices.Contains(seen, lower) || len(seen) == maxComponents || len(values) != 1 || v.delivery.Merged && strings.ContainsAny(values[0], "!,") {
			return nil, Malformed
		}
		seen = append(seen, lower)
		payload = append(payload, name...)
		payload = append(payload, ": "...)
		payload = append(payload, values[0]...)
		payload = append(payload, '\n')
	}
	if !slices.Contains(seen, detachedTime) {
		return nil, TimestampMissing
	}
	at, err := time.Parse(time.RFC3339, v.all(detachedTime)[0])
	if err != nil {
		return nil, TimestampMalformed
	}
	v.claims.issued, v.claims.hasOther, v.claims.valid = at.Unix(), true, true
	for _, segment := range v.delivery.Body {
		payload = append(payload, segment...)
	}
	v.scratch2 = payload
	return payload, None
}

// asn1Numbers is the ASN.1 form of an ECDSA signature that is written as two numbers of a size (RFC 7518, section 3.4).
func asn1Numbers(raw []byte, size int) ([]byte, bool) {
	if len(raw) != 2*size {
		return nil, false
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])})
	return der, err == nil
}
