package signature

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Sign makes the headers that turn d into a valid delivery sent at the given moment: the signature, the timestamp, the id and whatever else
// is signed. They are to be set in d, in place of headers of the same name; those that d has already are kept where their value is free. An
// empty id gives one made of the moment. The error names what cannot be signed: Sign changes neither the URL nor the body.
func (s *Scheme) Sign(k *Key, d *Delivery, at time.Time, id string) ([]Header, error) {
	if s.NeedsPublicKey() {
		return nil, errors.New("the private key is the sender's alone")
	}
	if id == "" {
		id = "msg_" + strconv.FormatInt(at.UnixNano(), 36)
	}
	signed := *d
	signed.Headers = slices.Clone(d.Headers)
	g := signing{scheme: s, delivery: &signed, at: at, id: id}
	if err := g.fields(); err != nil {
		return nil, err
	}
	if err := g.sign(k); err != nil {
		return nil, err
	}
	var v Verification
	if f := s.Parse(&v, &signed); f != None {
		return nil, fmt.Errorf("a delivery with this URL and body cannot be valid: %s", f)
	}
	if !v.Matches(k) {
		return nil, errors.New("a delivery with this URL and body cannot be valid: a check of the scheme fails")
	}
	return g.set, nil
}

// signing is a delivery that is being made.
type signing struct {
	scheme   *Scheme
	delivery *Delivery
	at       time.Time
	id       string
	set      []Header
}

// header sets a header of the delivery.
func (g *signing) header(name, value string) {
	h := Header{Name: name, Value: value}
	g.set = append(g.set, h)
	g.delivery.Headers = slices.DeleteFunc(g.delivery.Headers, func(h Header) bool { return h.Name == name })
	g.delivery.Headers = append(g.delivery.Headers, h)
}

// has says whether the delivery holds a header already.
func (g *signing) has(name string) bool {
	return slices.ContainsFunc(g.delivery.Headers, func(h Header) bool { return h.Name == name && h.Value != "" })
}

// fields invents the headers that are signed, and checks that what stands elsewhere is there.
func (g *signing) fields() error {
	s := g.scheme
	for _, r := range s.required {
		g.header(s.headers[r.header], r.equals)
	}
	if s.needsForm && len(g.delivery.Body) > 0 && !slices.ContainsFunc(g.delivery.Headers, func(h Header) bool { return h.Name == contentType && isForm(h.Value) }) {
		g.header(contentType, "application/x-www-form-urlencoded")
	}
	sent := len(s.ts.in) == 0 // whether the time stands somewhere
	var missing []string
	v := g.view()
	for slot, f := range s.fields {
		if f.source.kind == headerField {
			if f.timestamp && !sent && (f.signed || !s.ts.optional) {
				g.header(f.source.name, s.ts.format(g.at))
				sent = true
			} else if (f.signed && !f.timestamp || f.id) && !slices.Contains(s.sig.in, slot) && !g.has(f.source.name) {
				g.header(f.source.name, g.id)
			}
			continue
		}
		sent = sent || f.timestamp
		if _, state := v.field(slot); f.source.kind != sigField && f.required && state != present {
			missing = append(missing, s.fields[slot].source.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the delivery must hold %v, which is signed", missing)
	}
	return nil
}

// view reads the delivery as it stands.
func (g *signing) view() *Verification {
	v := new(Verification)
	v.Reset()
	v.scheme, v.delivery = g.scheme, g.delivery
	v.readHeaders()
	return v
}

// part is the text of a part of the signature's own text: the time.
func (g *signing) part() string {
	if g.scheme.ts.unit != noUnit {
		return g.scheme.ts.format(g.at)
	}
	return strconv.FormatInt(g.at.Unix(), 10)
}

// sign puts the signature where the scheme has it.
func (g *signing) sign(k *Key) error {
	s := g.scheme
	v := g.view()
	var parts []string // the list that the signature is a part of
	for slot, f := range s.fields {
		if f.source.kind == sigField {
			v.fields[slot] = fieldValue{g.part(), present}
			if s.sig.kv == "" {
				parts = append(parts, g.part())
			} else {
				parts = append(parts, f.source.name+s.sig.kv+g.part())
			}
		}
	}
	text := s.sig.enc.encode(k.material)
	if !s.IsToken() {
		sum := v.sum(k, 0)
		text = s.sig.enc.encode(sum.sum[:sum.size])
	}
	if len(s.sig.prefixes) > 0 {
		text = s.sig.prefixes[0] + text
	}
	if s.sig.kv != "" {
		text = s.sig.pick + s.sig.kv + text
	}
	if s.sig.dropFirst && len(parts) == 0 {
		parts = append(parts, g.part())
	}
	for _, p := range slices.Backward(parts) {
		text = p + s.sig.split + text
	}
	if s.sig.numbered != "" {
		g.header(s.sig.numbered+"1", text)
		return nil
	}
	in := s.fields[s.sig.in[0]].source
	if in.kind == headerField {
		g.header(in.name, text)
		return nil
	}
	if have, state := v.field(s.sig.in[0]); state != present || have != text {
		return fmt.Errorf("the signature stands at %s, which Sign does not change", in)
	}
	return nil
}
