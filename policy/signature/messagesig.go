package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// messageSignature is a compiled scheme of HTTP Message Signatures (RFC 9421): the request names the components that it signs, and the
// policy those that must be among them.
type messageSignature struct {
	alg        string // as the parameter alg may name it
	components []string
}

// messageAlgorithms are the algorithms, with the names that RFC 9421 has for them.
var messageAlgorithms = map[string]string{
	"http-signature-ed25519":           "ed25519",
	"http-signature-ecdsa-p256-sha256": "ecdsa-p256-sha256",
	"http-signature-rsa-v1_5-sha256":   "rsa-v1_5-sha256",
	"http-signature-hmac-sha256":       "hmac-sha256",
}

// ownForm reports whether the algorithm has a form of its own: what it signs, and when, stands in the signature and not in the scheme.
func ownForm(alg string) bool {
	return jwtAlgorithms[alg] != nil || messageAlgorithms[alg] != "" || alg == detachedAlgorithm
}

// ownTimes reports whether the times of a delivery stand in its signature.
func (s *Scheme) ownTimes() bool { return s.jwt != nil || s.message != nil || s.detached }

const (
	signatureHeader      = "signature"
	signatureInputHeader = "signature-input"
	contentDigestHeader  = "content-digest"
	// maxComponents bounds what a request may sign, and maxInput its text.
	maxComponents = 32
	maxInput      = 8 << 10
)

// derived are the components that are not headers. Those of responses, and of single parameters of a query, are not among them.
var derived = []string{"@method", "@target-uri", "@authority", "@path", "@query"}

// messageSignature compiles a scheme of HTTP Message Signatures.
func (c *compiler) messageSignature() {
	s := c.scheme
	alg, ok := messageAlgorithms[s.alg.name]
	if !ok {
		if len(s.spec.Components) > 0 {
			c.fault("components", fmt.Sprintf("the algorithm %s has no components", clip(s.alg.name)), "delete components, or write an alg such as http-signature-ed25519")
		}
		return
	}
	s.message = &messageSignature{alg: alg, components: s.spec.Components}
	if len(s.spec.Components) == 0 {
		c.fault("components", "nothing says what must be signed", "write components: [content-digest]")
	}
	for i, name := range s.spec.Components {
		switch {
		case strings.HasPrefix(name, "@") && !slices.Contains(derived, name):
			c.fault(index("components", i), fmt.Sprintf("no component is named %q", clip(name)), "write "+strings.Join(derived, ", ")+" or the name of a header")
		case !strings.HasPrefix(name, "@") && (!headerName(name) || strings.ToLower(name) != name):
			c.fault(index("components", i), fmt.Sprintf("%q is not the name of a header in lower case", clip(name)), "write one such as content-digest")
		case name == "@target-uri":
			s.facts.needsURL = true
		}
	}
	if len(s.spec.Sign) > 0 {
		c.fault("sign", "the request says itself what it signs", "write components with what it must sign")
	}
	if len(s.spec.Sig.In) > 0 || s.spec.Sig.Split != "" || s.spec.Sig.Enc != "" || len(s.spec.Sig.Prefix) > 0 {
		c.fault("sig", "the signature stands in headers of its own", "delete sig")
	}
	c.header(signatureHeader)
	c.header(signatureInputHeader)
	c.header(contentDigestHeader)
	s.templates = []template{{{kind: messagePart}}}
}

// parseMessage reads the signature, what it covers and when it was made: everything before crypto.
func (v *Verification) parseMessage() Failure {
	inputs, signatures := v.all(signatureInputHeader), v.all(signatureHeader)
	if len(inputs) == 0 || len(signatures) == 0 {
		return Missing
	}
	if v.delivery.Merged && strings.Contains(strings.Join(inputs, "")+strings.Join(signatures, ""), "!") {
		return Malformed
	}
	if len(strings.Join(inputs, "")) > maxInput || len(strings.Join(signatures, "")) > maxInput {
		return Malformed
	}
	input, err1 := httpsfv.UnmarshalDictionary(inputs)
	signature, err2 := httpsfv.UnmarshalDictionary(signatures)
	// One signature: which of several counts would be the request's choice.
	if err1 != nil || err2 != nil || len(input.Names()) != 1 || !slices.Equal(input.Names(), signature.Names()) {
		return Malformed
	}
	label := input.Names()[0]
	member, _ := input.Get(label)
	list, ok := member.(httpsfv.InnerList)
	value, _ := signature.Get(label)
	item, ok2 := value.(httpsfv.Item)
	raw, ok3 := item.Value.([]byte)
	if !ok || !ok2 || !ok3 || len(raw) == 0 {
		return Malformed
	}
	if f := v.readParameters(list.Params); f != None {
		return f
	}
	if v.scheme.facts.needsURL && v.delivery.PublicURL == "" || !v.signatureBase(list) || !v.readContentDigest() {
		return Malformed
	}
	if v.scheme.alg.signer == ecdsaSigner {
		if raw, ok = asn1Numbers(raw, 32); !ok {
			return Malformed
		}
	}
	if size := v.scheme.alg.size; size > 0 && len(raw) != size {
		return Malformed
	}
	v.decoded = append(v.decoded, raw...)
	v.ends = append(v.ends, len(v.decoded))
	return None
}

// all are the values of a header, in their order.
func (v *Verification) all(name string) []string {
	var values []string
	for _, h := range v.delivery.Headers {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	return values
}

// readParameters takes the times. What it does not know it refuses: it might change what the signature means.
func (v *Verification) readParameters(p *httpsfv.Params) Failure {
	c := &v.claims
	for _, name := range p.Names() {
		value, _ := p.Get(name)
		n, isNumber := value.(int64)
		text, isText := value.(string)
		switch name {
		case "created", "expires":
			if !isNumber || n < 0 {
				return TimestampMalformed
			}
			if name == "created" {
				c.issued, c.hasOther = n, true
			} else {
				c.expires, c.hasExpires = n, true
			}
		case "alg":
			if !isText || text != v.scheme.message.alg {
				return Malformed
			}
		case "keyid", "nonce", "tag":
			if !isText {
				return Malformed
			}
		default:
			return Malformed
		}
	}
	if !c.hasOther {
		return TimestampMissing // an end alone may be years away
	}
	c.valid = true
	return None
}

// signatureBase makes what is signed (RFC 9421, section 2.5) of the components that the request names. It fails where one is not there,
// occurs twice or is not known, or where one that the policy wants is not among them.
func (v *Verification) signatureBase(list httpsfv.InnerList) bool {
	if len(list.Items) > maxComponents {
		return false
	}
	seen := make([]string, 0, len(list.Items))
	v.base = v.base[:0]
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok || len(item.Params.Names()) > 0 || slices.Contains(seen, name) {
			return false
		}
		value, ok := v.component(name)
		if !ok || strings.ContainsAny(value, "\r\n") {
			return false
		}
		seen = append(seen, name)
		v.base = append(v.base, '"')
		v.base = append(v.base, name...)
		v.base = append(v.base, `": `...)
		v.base = append(v.base, value...)
		v.base = append(v.base, '\n')
	}
	for _, name := range v.scheme.message.components {
		if !slices.Contains(seen, name) {
			return false
		}
	}
	parameters, err := httpsfv.Marshal(httpsfv.List{list})
	if err != nil {
		return false
	}
	v.base = append(v.base, `"@signature-params": `...)
	v.base = append(v.base, parameters...)
	return true
}

// component is the value of a component.
func (v *Verification) component(name string) (string, bool) {
	path, query, _ := strings.Cut(v.delivery.Path, "?")
	switch name {
	case "@method":
		return v.delivery.Method, v.delivery.Method != ""
	case "@target-uri":
		return string(v.appendURL(nil, urlPart)), v.delivery.PublicURL != ""
	case "@authority":
		values := v.all(":authority")
		if len(values) != 1 {
			return "", false
		}
		return strings.ToLower(values[0]), values[0] != ""
	case "@path":
		return path, path != ""
	case "@query":
		return "?" + query, true
	}
	if strings.HasPrefix(name, "@") || strings.HasPrefix(name, ":") || strings.ToLower(name) != name {
		return "", false
	}
	values := v.all(name)
	for i := range values {
		if v.delivery.Merged && strings.Contains(values[i], "!") {
			return "", false
		}
		values[i] = strings.Trim(values[i], " \t")
	}
	return strings.Join(values, ", "), len(values) > 0
}

// readContentDigest reads the digests of the body (RFC 9530), where the policy wants them signed.
func (v *Verification) readContentDigest() bool {
	if !slices.Contains(v.scheme.message.components, contentDigestHeader) {
		return true
	}
	d, err := httpsfv.UnmarshalDictionary(v.all(contentDigestHeader))
	if err != nil {
		return false
	}
	v.bodyDigests = v.bodyDigests[:0]
	for _, name := range d.Names() {
		member, _ := d.Get(name)
		item, ok := member.(httpsfv.Item)
		value, isBytes := item.Value.([]byte)
		switch {
		case !ok || !isBytes:
			return false
		case name == "sha-256":
			v.bodyDigests = append(v.bodyDigests, bodyDigest{sha256.New, value})
		case name == "sha-512":
			v.bodyDigests = append(v.bodyDigests, bodyDigest{sha512.New, value})
		}
	}
	return len(v.bodyDigests) > 0 // others are not known, or are broken
}

// bodyDigest is a digest that the request claims of its body.
type bodyDigest struct {
	hash func() hash.Hash
	want []byte
}

// digestsHold says whether the body is the one that was signed.
func (v *Verification) digestsHold() bool {
	for _, d := range v.bodyDigests {
		h := d.hash()
		for _, segment := range v.delivery.Body {
			h.Write(segment)
		}
		if !hmac.Equal(h.Sum(nil), d.want) {
			return false
		}
	}
	return true
}

// signMessage makes the signature of a delivery: over what the policy wants, and nothing else.
func (g *signing) signMessage(k *Key) error {
	s := g.scheme
	if slices.Contains(s.message.components, contentDigestHeader) {
		sum := g.view().appendBody(nil, sha256Raw)
		text, err := httpsfv.Marshal(httpsfv.NewItem(sum))
		if err != nil {
			return err
		}
		g.header(contentDigestHeader, "sha-256="+text)
	}
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, name := range s.message.components {
		if !strings.HasPrefix(name, "@") && name != contentDigestHeader && len(g.view().all(name)) == 0 {
			g.header(name, g.id)
		}
		list.Items = append(list.Items, httpsfv.NewItem(name))
	}
	list.Params.Add("created", g.at.Unix())
	v := g.view()
	if !v.signatureBase(list) {
		return fmt.Errorf("a component of %s is not there", strings.Join(s.message.components, ", "))
	}
	input, err1 := httpsfv.Marshal(httpsfv.List{list})
	sum := v.sum(k, 0)
	signature, err2 := httpsfv.Marshal(httpsfv.NewItem(sum.sum[:sum.size]))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	g.header(signatureInputHeader, "sig="+input)
	g.header(signatureHeader, "sig="+signature)
	return nil
}
