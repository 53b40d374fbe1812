package signature

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// jwsHeaders says how a JOSE header names headers that are signed.
type jwsHeaders struct {
	list       string   // the parameter that lists them, "" for none
	required   []string // that it must list, in lower case
	parameters map[string]string
}

// webSignature compiles a scheme whose signature is a JSON Web Signature without its payload, which the templates make anew.
func (c *compiler) webSignature() {
	s, j := c.scheme, c.scheme.spec.JWS
	c.carrier()
	s.jws = jwsHeaders{list: j.List, parameters: maps.Clone(j.Parameters)}
	for i, name := range j.Headers {
		lower := strings.ToLower(name)
		if !headerName(name) || slices.Contains(s.jws.required, lower) {
			c.fault(index("jws.headers", i), fmt.Sprintf("%q is not the name of a header, or occurs twice", clip(name)), "write the name of a header, once")
			continue
		}
		s.jws.required = append(s.jws.required, lower)
		c.header(lower)
	}
	if len(j.Headers) > 0 && j.List == "" {
		c.fault("jws.list", "no parameter lists the signed headers", "write jws.list: NAME, or name the headers in sign")
	}
	for _, name := range slices.Sorted(maps.Keys(j.Parameters)) {
		if j.Parameters[name] == "" || slices.Contains([]string{"alg", "kid", "crit", "b64", j.List}, name) {
			c.fault("jws.parameters."+name, "it cannot be pinned here", "write a parameter of the sender's own and its text; alg and sig.keyid pin the others")
		}
	}
	c.templates()
	c.timestamps()
	for i, t := range s.templates {
		if t.has(jwsHeadersPart) != (j.List != "") {
			c.fault(index("sign", i), "jws.list and {jws.headers} go together", "write {jws.headers} where the sender puts the headers that jws.list names, or delete both")
		}
	}
}

// parseDetached reads a detached signature, whose payload must be left out, and the headers that it lists.
func (v *Verification) parseDetached() Failure {
	text, f := v.carriedText()
	if f != None {
		return f
	}
	header, signature, detached := strings.Cut(text, "..")
	if !detached || !v.readJOSE(header, signature) {
		return Malformed
	}
	for name, want := range v.scheme.jws.parameters {
		if got, ok := findText(v.token.header, name); !ok || got != want {
			return Malformed
		}
	}
	if f := v.readTimestamp(); f != None {
		return f
	}
	if !v.readListed() {
		return Malformed
	}
	for _, name := range v.scheme.jws.required {
		if !v.lists(name) && slices.ContainsFunc(v.scheme.ts.in, func(slot int) bool { return v.scheme.fields[slot].source.name == name }) {
			return TimestampMissing // what stands in its header proves nothing
		} else if !v.lists(name) {
			return Malformed
		}
	}
	return v.readSigned()
}

// readListed reads the headers that the JOSE header lists. It is signed as a whole, so that the list cannot be changed; a value holds no
// line break, so that none can pass for another.
func (v *Verification) readListed() bool {
	j := &v.scheme.jws
	if j.list == "" {
		return true
	}
	if find(v.token.header, j.list) != nil {
		list, ok := findText(v.token.header, j.list)
		if !ok {
			return false
		}
		for name := range strings.SplitSeq(list, ",") {
			lower := strings.ToLower(name)
			value, single := v.line(lower)
			switch {
			case list == "": // none
				continue
			case !headerName(name) || !single || len(v.token.listed) == maxMembers:
				return false
			case v.lists(name):
				return false
			}
			v.token.listed = append(v.token.listed, Header{Name: name, Value: value})
		}
	}
	return true
}

// lists says whether a header is among those that the JOSE header lists.
func (v *Verification) lists(name string) bool {
	return slices.ContainsFunc(v.token.listed, func(h Header) bool { return strings.EqualFold(h.Name, name) })
}

// line is the value of a header that is there once and stays on its line.
func (v *Verification) line(name string) (value string, single bool) {
	for _, h := range v.delivery.Headers {
		if h.Name == name {
			if single {
				return "", false
			}
			value, single = strings.Trim(h.Value, " \t"), true
		}
	}
	if strings.ContainsAny(value, "\r\n") || v.delivery.Merged && strings.IndexByte(value, '!') >= 0 {
		return "", false
	}
	return value, single
}

// appendListed appends the headers that the JOSE header lists.
func (v *Verification) appendListed(dst []byte) []byte {
	for _, h := range v.token.listed {
		dst = append(dst, h.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, h.Value...)
		dst = append(dst, '\n')
	}
	return dst
}
