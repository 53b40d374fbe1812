package signature

import (
	"maps"
	"slices"
	"strings"
)

// carrier compiles where a token or a signature with a format stands: in a header, alone.
func (c *compiler) carrier() {
	s, g := c.scheme, c.scheme.spec.Sig
	s.sig = signatures{prefixes: g.Prefix, prefixOptional: g.PrefixOptional}
	s.keyID = g.KeyID
	if len(g.In) == 0 && s.alg.format != httpFormat { // which names its headers itself
		c.fault("sig.in", "the scheme does not say where the signature stands", "write sig: {in: header:X-Signature}")
	}
	for i, text := range g.In {
		if !strings.HasPrefix(text, "header:") {
			c.fault(index("sig.in", i), "the signature does not stand in a header", "write header:NAME")
		}
	}
	c.places(g.In)
	c.prefixes(g)
	lists := map[string]bool{
		"sig.numbered": g.Numbered != "", "sig.split": g.Split != "", "sig.kv": g.KV != "", "sig.pick": g.Pick != "", "sig.drop_first": g.DropFirst, "sig.enc": g.Enc != "",
	}
	if s.alg.format == httpFormat {
		lists["sig.prefix"] = len(g.Prefix) > 0
	}
	for _, field := range slices.Sorted(maps.Keys(lists)) {
		if lists[field] {
			c.fault(field, "the algorithm says how the signature is written", "delete it")
		}
	}
	if s.spec.Certificate != "" {
		c.fault("certificate", "the certificate of this sender signs in another way", "delete it, and write publicKeys in the policy")
	}
}

// carriedTime compiles the timestamp of a format that holds its own.
func (c *compiler) carriedTime() {
	s, ts := c.scheme, c.scheme.spec.TS
	if len(ts.In) > 0 || ts.Unit != "" {
		c.fault("ts.in", "the signature itself holds its time", "write ts: {tolerance: 300}, without in and unit")
	}
	if len(s.spec.Sign) > 0 {
		c.fault("sign", "the algorithm says what is signed", "delete sign, and write jwt or components")
	}
	c.tolerance(ts)
	s.ts.carried = true
}

// strangers reports what belongs to another format.
func (c *compiler) strangers() {
	s, spec := c.scheme, &c.scheme.spec
	if s.alg.family == noFamily { // reported already, and nobody knows what is meant
		return
	}
	at := s.alg.format
	for _, field := range []struct {
		name  string
		given bool
		fits  bool
		fix   string
	}{
		{"jwt", spec.JWT != JWTSpec{}, at == jwtFormat, "write alg: jwt-hs256 or another that begins with jwt-"},
		{"jws", spec.JWS.List != "" || len(spec.JWS.Headers)+len(spec.JWS.Parameters) > 0, at == jwsFormat, "write alg: jws-es256 or another that begins with jws-"},
		{"components", len(spec.Components) > 0, at == httpFormat, "write alg: http-signature-ed25519 or another that begins with http-signature-"},
		{"sig.keyid", spec.Sig.KeyID != "", at != plainFormat, "delete it"},
		{"sig.label", spec.Sig.Label != "", at == httpFormat, "delete it"},
		{"sig.tag", spec.Sig.Tag != "", at == httpFormat, "delete it"},
	} {
		if field.given && !field.fits {
			c.fault(field.name, "the algorithm has no use for it", field.fix)
		}
	}
	for i, t := range s.templates {
		if at != jwsFormat && t.has(jwsHeadersPart) {
			c.fault(index("sign", i), "{jws.headers} has no place here", "write it with an algorithm that begins with jws-")
		}
	}
}

// finishCarried derives the facts of a scheme whose signature holds its own time.
func (c *compiler) finishCarried() {
	s := c.scheme
	s.facts.bodySigned = s.jwt.names[bodyDigest] != "" || s.components.covers(digestHeader)
	s.facts.timestampSigned = true
	signed := func(slot int) bool {
		if slot < 0 {
			return false
		}
		switch src := s.fields[slot].source; src.kind {
		case claimField:
			return true
		case headerField:
			return s.components.covers(src.name)
		case queryField:
			return s.jwt.names[urlDigest] != "" || s.components.covers("@query") || s.components.covers("@target-uri") || s.components.covers("@request-target")
		default:
			return s.facts.bodySigned
		}
	}
	s.facts.idSigned, s.facts.eventSigned = signed(s.id), signed(s.event)
}
