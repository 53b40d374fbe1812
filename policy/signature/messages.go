package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// The fields of RFC 9421 and RFC 9530.
const (
	signatureHeader = "signature"
	inputHeader     = "signature-input"
	digestHeader    = "content-digest"
)

// components says what an HTTP Message Signature must cover, and which of several is meant.
type components struct {
	required   []component
	label, tag string
}

// component is one part of a message that a signature covers: a header by its name in lower case, or a derived one.
type component struct {
	name      string
	parameter string // of @query-param: the field's name, percent-encoded
}

// derivedComponents are those of RFC 9421, section 2.2, that a request has, and whether only the policy's publicURL can tell them.
var derivedComponents = map[string]bool{
	"@method": false, "@path": false, "@query": false, "@query-param": false, "@request-target": false,
	"@authority": false, "@target-uri": true, "@scheme": true,
}

// componentOf reads the identifier of a component. Parameters are refused, but the name of a query's field: they would make another text
// of a header than the one that arrives.
func componentOf(item httpsfv.Item) (c component, ok bool) {
	c.name, ok = item.Value.(string)
	if !ok {
		return component{}, false
	}
	names := item.Params.Names()
	if c.name == "@query-param" {
		name, _ := item.Params.Get("name")
		c.parameter, ok = name.(string)
		return c, ok && len(names) == 1
	}
	_, derived := derivedComponents[c.name]
	return c, len(names) == 0 && (derived || headerName(c.name) && c.name == strings.ToLower(c.name))
}

// String writes the component as a signature does.
func (c component) String() string {
	if c.name == "@query-param" {
		return `"@query-param";name="` + c.parameter + `"`
	}
	return `"` + c.name + `"`
}

// messageSignature compiles a scheme whose signatures are those of RFC 9421.
func (c *compiler) messageSignature() {
	s, g := c.scheme, c.scheme.spec.Sig
	c.carrier()
	c.carriedTime()
	s.components = components{label: g.Label, tag: g.Tag}
	if len(g.In) == 0 {
		c.places([]string{"header:" + signatureHeader})
	} else if len(g.In) > 1 || !strings.EqualFold(g.In[0], "header:"+signatureHeader) {
		c.fault("sig.in", "an HTTP Message Signature stands in the header Signature", "write sig: {in: header:signature}")
	}
	c.header(inputHeader)
	if len(s.spec.Components) == 0 {
		c.fault("components", "the scheme does not say what must be signed", "write components: ['@method', '@target-uri', content-digest]")
	}
	for i, text := range s.spec.Components {
		path := "components"
		if len(s.spec.Components) > 1 {
			path = index(path, i)
		}
		name, parameters, _ := strings.Cut(text, ";")
		if parameters != "" {
			parameters = ";" + parameters
		}
		item, err := httpsfv.UnmarshalItem([]string{`"` + name + `"` + parameters})
		part, ok := component{}, false
		if err == nil {
			part, ok = componentOf(item)
		}
		switch {
		case !ok:
			c.fault(path, fmt.Sprintf("%q is not a component that can be checked", clip(text)),
				`write a header's name in lower case, @method, @target-uri, @authority, @scheme, @request-target, @path, @query or @query-param;name="..."`)
			continue
		case slices.Contains(s.components.required, part):
			c.fault(path, fmt.Sprintf("%q occurs twice", clip(text)), "delete one")
			continue
		}
		s.components.required = append(s.components.required, part)
		if !strings.HasPrefix(part.name, "@") {
			c.header(part.name)
		}
		s.facts.needsURL = s.facts.needsURL || derivedComponents[part.name]
	}
}

// covers says whether a header or derived component must be signed.
func (c *components) covers(name string) bool {
	return slices.ContainsFunc(c.required, func(part component) bool { return part.name == name })
}

// messageSignature is an HTTP Message Signature as read: the digests of the body that it covers.
type messageSignature struct {
	sum256       [sha256.Size]byte
	sum512       [sha512.Size]byte
	has256       bool
	has512       bool
	coversDigest bool
}

// parseMessageSignature reads the signature that is meant, and makes the text that it signs.
func (v *Verification) parseMessageSignature() Failure {
	signatures, inputs := v.values(signatureHeader), v.values(inputHeader)
	if blank(signatures) || blank(inputs) {
		return Missing
	}
	sigs, ok := v.readDictionary(signatures)
	params, ok2 := v.readDictionary(inputs)
	if !ok || !ok2 {
		return Malformed
	}
	covered, ok := v.chooseSignature(sigs, params)
	if !ok {
		return Malformed
	}
	if f := v.readParameters(covered.Params); f != None {
		return f
	}
	if !v.takeSignature() || !v.makeBase(covered) || v.messages.coversDigest && !v.readContentDigest() {
		return Malformed
	}
	return v.readSigned()
}

// values are those of a header, in their order.
func (v *Verification) values(name string) []string {
	var all []string
	for _, h := range v.delivery.Headers {
		if h.Name == name {
			all = append(all, h.Value)
		}
	}
	return all
}

func blank(values []string) bool {
	return !slices.ContainsFunc(values, func(s string) bool { return strings.Trim(s, " \t,") != "" })
}

// readDictionary reads a dictionary of RFC 9651. Of what is written twice the library keeps the last, and of numbers and bytes it takes
// several spellings; so it must write what was read, but for spaces.
func (v *Verification) readDictionary(values []string) (*httpsfv.Dictionary, bool) {
	text := strings.Join(values, ",")
	if len(text) > maxCarried || v.delivery.Merged && strings.IndexByte(text, '!') >= 0 {
		return nil, false
	}
	d, err := httpsfv.UnmarshalDictionary([]string{text})
	if err != nil {
		return nil, false
	}
	written, err := httpsfv.Marshal(d)
	return d, err == nil && spaceless(written) == spaceless(text)
}

func spaceless(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, s)
}

// chooseSignature takes the signature of the scheme's label or, where it has none, the only one.
func (v *Verification) chooseSignature(signatures, inputs *httpsfv.Dictionary) (covered httpsfv.InnerList, ok bool) {
	label := v.scheme.components.label
	if label == "" {
		if len(signatures.Names()) != 1 || len(inputs.Names()) != 1 {
			return covered, false
		}
		label = inputs.Names()[0]
	}
	input, _ := inputs.Get(label)
	value, _ := signatures.Get(label)
	covered, ok = input.(httpsfv.InnerList)
	item, ok2 := value.(httpsfv.Item)
	if !ok || !ok2 || len(covered.Items) > maxMembers || len(item.Params.Names()) > 0 {
		return covered, false
	}
	v.decoded, ok = item.Value.([]byte)
	return covered, ok
}

// readParameters reads what a signature says of itself: when it was made, until when it is good, with what key and algorithm. What is not
// known here could change its meaning.
func (v *Verification) readParameters(params *httpsfv.Params) Failure {
	s := v.scheme
	v.method = s.alg.methods[0]
	for _, name := range params.Names() {
		value, _ := params.Get(name)
		switch name {
		case "created", "expires":
			at, ok := value.(int64)
			if !ok || at < 0 {
				return TimestampMalformed
			}
			v.lifetime.ends(at)
			if name == "created" {
				v.lifetime.starts(at)
				v.dated(at)
			}
		case "alg", "keyid", "nonce", "tag":
			if _, ok := value.(string); !ok {
				return Malformed
			}
		default:
			return Malformed
		}
	}
	for name, want := range map[string]string{"alg": s.alg.shown(), "keyid": s.keyID, "tag": s.components.tag} {
		got, there := params.Get(name)
		if want != "" && got != want && (there || name != "alg") {
			return Malformed
		}
	}
	if v.stamped < 0 && !s.ts.optional {
		return TimestampMissing
	}
	return None
}

// makeBase makes the signature base of RFC 9421, section 2.5. All that the scheme asks for must be covered.
func (v *Verification) makeBase(covered httpsfv.InnerList) bool {
	var seen []component
	base := v.scratch[:0]
	for _, item := range covered.Items {
		c, ok := componentOf(item)
		if !ok || slices.Contains(seen, c) {
			return false
		}
		seen = append(seen, c)
		base = append(base, c.String()...)
		base = append(base, ": "...)
		if base, ok = v.appendComponent(base, c); !ok {
			return false
		}
		base = append(base, '\n')
		v.messages.coversDigest = v.messages.coversDigest || c.name == digestHeader
	}
	params, err := httpsfv.Marshal(covered)
	if err != nil {
		return false
	}
	base = append(base, `"@signature-params": `...)
	base = append(base, params...)
	v.scratch = base
	v.signed = append(v.signed, string(base))
	return !slices.ContainsFunc(v.scheme.components.required, func(c component) bool { return !slices.Contains(seen, c) })
}

// appendComponent appends the value of a component. A header must be there once: repeats can be joined in more than one way.
func (v *Verification) appendComponent(dst []byte, c component) ([]byte, bool) {
	d := v.delivery
	if derivedComponents[c.name] && d.PublicURL == "" {
		return dst, false
	}
	path, _, _ := strings.Cut(d.Path, "?")
	switch c.name {
	case "@method":
		return append(dst, d.Method...), true
	case "@request-target":
		return append(dst, d.Path...), true
	case "@path":
		return append(dst, path...), path != ""
	case "@query":
		return append(append(dst, '?'), v.queryText()...), true
	case "@query-param":
		return v.appendQueryField(dst, c.parameter)
	case "@target-uri":
		return v.appendURL(dst, urlPart), true
	case "@scheme":
		scheme, _, _ := strings.Cut(d.PublicURL, "://")
		return append(dst, strings.ToLower(scheme)...), true
	case "@authority":
		return v.appendAuthority(dst)
	}
	value, single := v.line(c.name)
	return append(dst, value...), single
}

// appendAuthority appends the host and port that the sender was given or, where the policy names no URL, those of the request. A port that
// the scheme has anyway is left out.
func (v *Verification) appendAuthority(dst []byte) ([]byte, bool) {
	if v.delivery.PublicURL == "" {
		authority, single := v.line(":authority")
		return append(dst, strings.TrimSuffix(strings.ToLower(authority), ":443")...), single && authority != ""
	}
	scheme, rest, _ := strings.Cut(strings.ToLower(v.delivery.PublicURL), "://")
	authority, _, _ := strings.Cut(rest, "/")
	standard := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return append(dst, strings.TrimSuffix(authority, standard)...), true
}

// appendQueryField appends the value of the only field of the query that has this name, encoded anew.
func (v *Verification) appendQueryField(dst []byte, name string) ([]byte, bool) {
	if !v.readQuery() {
		return dst, false
	}
	count := 0
	for _, p := range v.query {
		if string(appendPercent(nil, p.name)) == name {
			dst = appendPercent(dst, p.value)
			count++
		}
	}
	return dst, count == 1
}

// appendPercent encodes all but what the application/x-www-form-urlencoded percent-encode set of the URL standard leaves.
func appendPercent(dst []byte, text string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(text) {
		c := text[i]
		if letter := c | 0x20; 'a' <= letter && letter <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("*-._", c) >= 0 {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', digits[c>>4], digits[c&15])
	}
	return dst
}

// readContentDigest reads the digests of the body. One of those that are safe must be there.
func (v *Verification) readContentDigest() bool {
	d, ok := v.readDictionary(v.values(digestHeader))
	if !ok {
		return false
	}
	m := &v.messages
	for _, name := range d.Names() {
		value, _ := d.Get(name)
		item, ok := value.(httpsfv.Item)
		if !ok || len(item.Params.Names()) > 0 {
			return false
		}
		sum, ok := item.Value.([]byte)
		switch {
		case !ok:
			return false
		case name == "sha-256":
			if len(sum) != len(m.sum256) {
				return false
			}
			m.has256, m.sum256 = true, [sha256.Size]byte(sum)
		case name == "sha-512":
			if len(sum) != len(m.sum512) {
				return false
			}
			m.has512, m.sum512 = true, [sha512.Size]byte(sum)
		}
	}
	return m.has256 || m.has512
}

// contentHolds says whether all digests that are covered are those of the body.
func (v *Verification) contentHolds() bool {
	m := &v.messages
	if !m.coversDigest {
		return true
	}
	holds := true
	if m.has256 {
		v.scratch2 = v.appendBody(v.scratch2[:0], sha256Raw)
		holds = hmac.Equal(v.scratch2, m.sum256[:])
	}
	if m.has512 {
		v.scratch2 = v.appendBody(v.scratch2[:0], sha512Base64) // keeps the sum
		holds = hmac.Equal(v.digests.sum512[:], m.sum512[:]) && holds
	}
	return holds
}
