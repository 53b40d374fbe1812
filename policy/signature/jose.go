package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"
)

// Limits of a token, a detached signature and the headers of an HTTP Message Signature.
const (
	maxCarried = 8 << 10
	maxMembers = 64
)

// member is one member of a JSON object, its value as written.
type member struct {
	name string
	raw  []byte
}

// readObject appends the members of a JSON object. No name may occur twice, for readers disagree on which one counts.
func readObject(data []byte, members []member) ([]member, bool) {
	s := jsonScanner{data: data}
	s.space()
	if !s.next('{') {
		return members, false
	}
	s.space()
	for first := true; !s.next('}'); first = false {
		if !first && !s.next(',') || len(members) == maxMembers {
			return members, false
		}
		s.space()
		key, ok := s.str()
		if !ok {
			return members, false
		}
		name, ok := unescape(key)
		s.space()
		if !ok || slices.ContainsFunc(members, func(m member) bool { return m.name == name }) || !s.next(':') {
			return members, false
		}
		s.space()
		start := s.at
		if !s.value(0, 1) {
			return members, false
		}
		members = append(members, member{name, data[start:s.at]})
		s.space()
	}
	s.space()
	return members, s.at == len(data)
}

// find is the value of a member as written, nil where it is absent or null.
func find(members []member, name string) []byte {
	for _, m := range members {
		if m.name == name && !bytes.Equal(m.raw, []byte("null")) {
			return m.raw
		}
	}
	return nil
}

// findText is the value of a member that is a text.
func findText(members []member, name string) (text string, ok bool) {
	raw := find(members, name)
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	return unescape(raw[1 : len(raw)-1])
}

// token is a JSON Web Token or the header of a detached signature, as read.
type token struct {
	headerJSON, claimsJSON []byte
	header, claims         []member // views of the above
	listed                 []Header // headers that the JOSE header lists, by their names as written there
	digests                [2]claimedDigest
}

// claimedDigest is a digest that a claim holds.
type claimedDigest struct {
	there bool
	sum   [sha256.Size]byte
}

// Which digest of a token.
const (
	bodyDigest = iota
	urlDigest
)

func (t *token) reset() {
	clear(t.header)
	clear(t.claims)
	clear(t.listed)
	*t = token{headerJSON: keep(t.headerJSON), claimsJSON: keep(t.claimsJSON), header: t.header[:0], claims: t.claims[:0], listed: t.listed[:0]}
}

// claim reads a claim as a field: a text, a number or a truth value.
func (t *token) claim(name string) fieldValue {
	raw := find(t.claims, name)
	switch {
	case raw == nil:
		return fieldValue{state: absent}
	case raw[0] == '"':
		if text, ok := findText(t.claims, name); ok {
			return fieldValue{text, stateOf(text)}
		}
		return fieldValue{state: unfit}
	case raw[0] == '{' || raw[0] == '[':
		return fieldValue{state: unfit}
	default:
		return fieldValue{string(raw), present}
	}
}

// decodeBase64URL appends what a part of a token stands for. There is one way to write it: unpadded and canonical.
func decodeBase64URL(dst []byte, text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") { // the package skips them
		return dst, false
	}
	dst, err := strictRawBase64URL.AppendDecode(dst, []byte(text))
	return dst, err == nil
}

// carriedText finds the token or detached signature, without its prefix.
func (v *Verification) carriedText() (string, Failure) {
	if f := v.findTexts(); f != None {
		return "", f
	}
	text := v.texts[0]
	switch {
	case strings.Trim(text, " \t") == "":
		return "", Missing
	case !v.candidate(text) || len(v.candidates) == 0 || len(v.candidates[0]) > maxCarried:
		return "", Malformed
	}
	return v.candidates[0], None
}

// readJOSE reads a JOSE header and the signature under it. The algorithm that it names must be one that the scheme allows; it never chooses
// one. Extensions that must be understood (crit) are none of ours, and an unencoded payload (b64) would be another message.
func (v *Verification) readJOSE(header, signature string) bool {
	t := &v.token
	var ok bool
	if t.headerJSON, ok = decodeBase64URL(t.headerJSON, header); !ok {
		return false
	}
	if t.header, ok = readObject(t.headerJSON, t.header); !ok {
		return false
	}
	for _, m := range t.header {
		if m.name == "crit" || m.name == "b64" {
			return false
		}
	}
	name, ok := findText(t.header, "alg")
	if v.method = v.scheme.alg.method(name); !ok || v.method == nil {
		return false
	}
	if want := v.scheme.keyID; want != "" {
		if id, ok := findText(t.header, "kid"); !ok || id != want {
			return false
		}
	}
	if v.decoded, ok = decodeBase64URL(v.decoded, signature); !ok {
		return false
	}
	return v.takeSignature()
}

// takeSignature takes the decoded signature, if it has a size that the method's signatures have.
func (v *Verification) takeSignature() bool {
	size := signatureSize(v.method)
	if len(v.decoded) == 0 || len(v.decoded) > maxSignature || size > 0 && len(v.decoded) != size {
		return false
	}
	v.ends = append(v.ends, len(v.decoded))
	return true
}

// carriedMessages are the texts of which any may be signed, made once.
func (v *Verification) carriedMessages() []string {
	if v.scheme.alg.format == jwsFormat && len(v.signed) == 0 {
		head := base64.RawURLEncoding.EncodeToString(v.token.headerJSON)
		for _, t := range v.scheme.templates {
			v.scratch, _ = v.render(v.scratch[:0], t) // Parse has seen to it that all is there
			v.signed = append(v.signed, head+"."+base64.RawURLEncoding.EncodeToString(v.scratch))
		}
	}
	return v.signed
}

// matchesCarried says whether the signature is right under k, and what it says of the delivery true.
func (v *Verification) matchesCarried(k *Key) bool {
	matches := false
	for i, message := range v.carriedMessages() {
		right := false
		if k.family == hmacFamily {
			s := v.sum(k, i)
			right = hmac.Equal(v.decoded, s.sum[:s.size])
		} else {
			right = v.method.Verify(message, v.decoded, k.public) == nil
		}
		if right {
			matches = true
			if v.matched < 0 {
				v.matched = i
			}
		}
	}
	return matches && v.checksHold()
}

// carriedMAC is the MAC of a message under a shared secret.
func (v *Verification) carriedMAC(k *Key, message int) []byte {
	mac, err := v.method.Sign(v.carriedMessages()[message], k.material)
	if err != nil { // the method is one of HMAC and the key is bytes
		return nil
	}
	return mac
}

// digestsHold says whether the digests that a format carries are those of the delivery.
func (v *Verification) digestsHold() bool {
	switch v.scheme.alg.format {
	case jwtFormat:
		return v.claimsHold()
	case httpFormat:
		return v.contentHolds()
	default:
		return true
	}
}

// lifetime is from when to when a token or an HTTP Message Signature is good, in seconds since 1970. Without an end it is good for as long
// as the moment of sending is near.
type lifetime struct {
	from, until       int64
	hasFrom, hasUntil bool
}

// fresh says whether now is within tolerance of the time between from and until, inclusive.
func (d lifetime) fresh(now time.Time, tolerance time.Duration) bool {
	at, slack := now.Unix(), int64(tolerance/time.Second)
	return (!d.hasFrom || at >= d.from-slack) && (!d.hasUntil || at <= d.until+slack)
}

// starts and ends narrow it.
func (d *lifetime) starts(at int64) {
	if !d.hasFrom || at > d.from {
		d.from, d.hasFrom = at, true
	}
}

func (d *lifetime) ends(at int64) {
	if !d.hasUntil || at < d.until {
		d.until, d.hasUntil = at, true
	}
}

// dated notes the moment of sending.
func (v *Verification) dated(at int64) {
	v.stamp, v.stamped = stamp{unit: secondsUnit, count: at}, 0
}
