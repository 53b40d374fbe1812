package signature

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Sign gives d as a valid delivery sent at the given moment: with the signature, the timestamp, the id and whatever else is signed, each
// where the scheme has it, be it a header, the query in Path or a field of the body. What d has already is kept where its value is free;
// the rest of the query and body stays, though a JSON object on the way to a field is written anew. d itself is not changed. An empty id
// gives one made of the moment. The error says what cannot be signed.
func (s *Scheme) Sign(k *Key, d Delivery, at time.Time, id string) (Delivery, error) {
	if s.NeedsPublicKey() {
		return Delivery{}, errors.New("the private key is the sender's alone")
	}
	if id == "" {
		id = "msg_" + strconv.FormatInt(at.UnixNano(), 36)
	}
	d.Headers = slices.Clone(d.Headers)
	g := signing{scheme: s, delivery: &d, at: at, id: id}
	if err := g.fields(); err != nil {
		return Delivery{}, err
	}
	if err := g.sign(k); err != nil {
		return Delivery{}, err
	}
	var v Verification
	if f := s.Parse(&v, &d); f != None {
		return Delivery{}, fmt.Errorf("a delivery with this URL and body cannot be valid: %s", f)
	}
	if !v.Matches(k) {
		return Delivery{}, errors.New("a delivery with this URL and body cannot be valid: a check of the scheme fails")
	}
	return d, nil
}

// signing is a delivery that is being made.
type signing struct {
	scheme   *Scheme
	delivery *Delivery // our own
	at       time.Time
	id       string
}

// header sets a header of the delivery.
func (g *signing) header(name, value string) {
	g.delivery.Headers = slices.DeleteFunc(g.delivery.Headers, func(h Header) bool { return h.Name == name })
	g.delivery.Headers = append(g.delivery.Headers, Header{Name: name, Value: value})
}

// set puts a text where a source has it.
func (g *signing) set(src source, text string) error {
	d := g.delivery
	switch src.kind {
	case headerField:
		g.header(src.name, text)
	case queryField:
		d.Path = putQuery(d.Path, src.name, text)
	case formField:
		d.Body = [][]byte{[]byte(putPair(string(g.view().contiguous()), src.name, text))}
		g.formType()
	case jsonField:
		body, err := putJSON(g.view().contiguous(), newJSONPath(src.name), text)
		if err != nil {
			return fmt.Errorf("the delivery cannot hold %s, which is needed: %w", src, err)
		}
		d.Body = [][]byte{body}
	}
	return nil
}

// formType says that the body is a form.
func (g *signing) formType() {
	if !slices.ContainsFunc(g.delivery.Headers, func(h Header) bool { return h.Name == contentType && isForm(h.Value) }) {
		g.header(contentType, "application/x-www-form-urlencoded")
	}
}

// fields invents what is signed and not there, and dates the delivery.
func (g *signing) fields() error {
	s := g.scheme
	for _, r := range s.required {
		g.header(s.headers[r.header], r.equals)
	}
	if s.needsForm && len(g.delivery.Body) > 0 {
		g.formType()
	}
	dated := len(s.ts.in) == 0 // whether the time stands somewhere
	for slot, f := range s.fields {
		if f.source.kind == sigField {
			dated = dated || f.timestamp
			continue
		}
		_, state := g.view().field(slot)
		there := state == present
		header := f.source.kind == headerField
		switch {
		case f.timestamp && (dated || !there && s.ts.optional), f.timestamp && header && !f.signed && s.ts.optional:
		case f.timestamp:
			dated = true
			if err := g.set(f.source, s.ts.format(g.at)); err != nil {
				return err
			}
		case there, state == unfit, slices.Contains(s.sig.in, slot):
		case f.required, header && (f.signed || f.id):
			if err := g.set(f.source, g.id); err != nil {
				return err
			}
		}
	}
	return g.ties()
}

// ties puts into the query what a check wants there, such as a digest of the body.
func (g *signing) ties() error {
	for _, k := range g.scheme.checks {
		v := g.view()
		if k.ifPresent >= 0 {
			if _, state := v.field(k.ifPresent); state != present {
				continue
			}
		}
		for _, sides := range [][2]template{{k.a, k.b}, {k.b, k.a}} {
			text, ok := v.render(nil, sides[0])
			if to := sides[1]; ok && len(to) == 1 && to[0].kind == fieldPart && to[0].filter == noFilter && to[0].source.kind == queryField {
				if err := g.set(to[0].source, string(text)); err != nil {
					return err
				}
				break
			}
		}
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
	if s.alg.format != plainFormat {
		return g.carry(func(m jwt.SigningMethod, message string) ([]byte, error) { return m.Sign(message, k.material) })
	}
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
	return g.set(s.fields[s.sig.in[0]].source, text)
}
