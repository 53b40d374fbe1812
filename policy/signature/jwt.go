package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
)

// jwtClaims says which claims of a token are digests of the delivery, and who issues it.
type jwtClaims struct {
	names        [2]string // of the claims with digests, "" where there is none
	enc          encoding  // of the digests
	bodyOptional bool
	issuer       string
}

// digestForms are how a claim writes a SHA-256.
var digestForms = map[string]encoding{"": hexEncoding, "hex": hexEncoding, "base64": base64Encoding, "base64url": base64URLEncoding}

// webToken compiles a scheme whose signature is a JSON Web Token.
func (c *compiler) webToken() {
	s, j := c.scheme, c.scheme.spec.JWT
	c.carrier()
	c.carriedTime()
	enc, known := digestForms[j.Digest]
	s.jwt = jwtClaims{names: [2]string{j.Body, j.URL}, enc: enc, bodyOptional: j.BodyOptional, issuer: j.Issuer}
	s.facts.needsURL = j.URL != ""
	switch digests := j.Body != "" || j.URL != ""; {
	case !known:
		c.fault("jwt.digest", fmt.Sprintf("no digest is written as %q", clip(j.Digest)), "write hex, base64 or base64url")
	case !digests && j.Digest != "":
		c.fault("jwt.digest", "no claim holds a digest", "write jwt.body: CLAIM, or delete digest")
	}
	if j.BodyOptional && j.Body == "" {
		c.fault("jwt.body_optional", "no claim holds a digest of the body", "write jwt.body: CLAIM, or delete body_optional")
	}
	if s.spec.FreshPerAttempt {
		c.fault("freshPerAttempt", "a token is good until its own exp: how long cannot be told from the tolerance", "delete freshPerAttempt, and write replay in the policy")
	}
}

// parseToken reads a JSON Web Token and all that its claims say.
func (v *Verification) parseToken() Failure {
	text, f := v.carriedText()
	if f != None {
		return f
	}
	header, rest, _ := strings.Cut(text, ".")
	payload, signature, three := strings.Cut(rest, ".")
	if !three || !v.readJOSE(header, signature) {
		return Malformed
	}
	t := &v.token
	var ok bool
	if t.claimsJSON, ok = decodeBase64URL(t.claimsJSON, payload); !ok {
		return Malformed
	}
	if t.claims, ok = readObject(t.claimsJSON, t.claims); !ok {
		return Malformed
	}
	v.signed = append(v.signed, text[:len(header)+len(".")+len(payload)])
	if want := v.scheme.jwt.issuer; want != "" {
		if issuer, ok := findText(t.claims, "iss"); !ok || issuer != want {
			return Malformed
		}
	}
	if f := v.readTokenTime(); f != None {
		return f
	}
	if !v.readDigests() {
		return Malformed
	}
	return v.readSigned()
}

// readTokenTime reads iat, nbf and exp, of which one must be there. The token is good from iat or nbf, whichever is later, to exp; one
// without exp for as long as it is new. They are whole numbers of seconds.
func (v *Verification) readTokenTime() Failure {
	var at [3]int64
	var there [3]bool
	for i, name := range []string{"iat", "nbf", "exp"} {
		raw := find(v.token.claims, name)
		if raw == nil {
			continue
		}
		if at[i], there[i] = digits(string(raw)); !there[i] {
			return TimestampMalformed
		}
	}
	const iat, nbf, exp = 0, 1, 2
	for _, i := range []int{exp, nbf, iat} { // the moment of sending is iat, or what comes nearest
		if there[i] {
			v.dated(at[i])
		}
	}
	switch {
	case v.stamped < 0 && v.scheme.ts.optional:
		return None
	case v.stamped < 0:
		return TimestampMissing
	case there[exp]:
		v.lifetime.ends(at[exp])
	default:
		v.lifetime.ends(v.stamp.count)
	}
	for _, i := range []int{iat, nbf} {
		if there[i] {
			v.lifetime.starts(at[i])
		}
	}
	return None
}

// readDigests reads the claims with digests. None may be missing, but that of an empty body where the sender leaves it out.
func (v *Verification) readDigests() bool {
	j := &v.scheme.jwt
	for i, name := range j.names {
		if name == "" {
			continue
		}
		d := &v.token.digests[i]
		if find(v.token.claims, name) == nil {
			if i == bodyDigest && j.bodyOptional && v.bodyEmpty() {
				continue
			}
			return false
		}
		text, ok := findText(v.token.claims, name)
		if !ok || len(text) > 2*sha256.Size {
			return false
		}
		if v.scratch2, ok = j.enc.appendDecoded(v.scratch2[:0], text, &v.scratch); !ok || len(v.scratch2) != sha256.Size {
			return false
		}
		d.there, d.sum = true, [sha256.Size]byte(v.scratch2)
	}
	return true
}

func (v *Verification) bodyEmpty() bool {
	for _, segment := range v.delivery.Body {
		if len(segment) > 0 {
			return false
		}
	}
	return true
}

// claimsHold says whether the digests in the claims are those of the body and of the URL.
func (v *Verification) claimsHold() bool {
	d := &v.token.digests
	body, url := true, true
	if d[bodyDigest].there {
		v.scratch2 = v.appendBody(v.scratch2[:0], sha256Raw)
		body = hmac.Equal(v.scratch2, d[bodyDigest].sum[:])
	}
	if d[urlDigest].there {
		sum := sha256.Sum256(v.appendURL(v.scratch2[:0], urlPart))
		url = hmac.Equal(sum[:], d[urlDigest].sum[:])
	}
	return body && url
}
