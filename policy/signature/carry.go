package signature

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/golang-jwt/jwt/v5"
)

// tokenLife is how long a token that Sign makes is good.
const tokenLife = time.Minute

// signs makes the signature of a message.
type signs func(m jwt.SigningMethod, message string) ([]byte, error)

// carry makes the token or signature of a scheme with a format and puts it where the scheme has it.
func (g *signing) carry(sign signs) error {
	switch g.scheme.alg.format {
	case jwtFormat:
		return g.carryToken(sign)
	case jwsFormat:
		return g.carryDetached(sign)
	default:
		return g.carryMessageSignature(sign)
	}
}

// place puts a token or signature into its header.
func (g *signing) place(text string) {
	s := g.scheme
	if len(s.sig.prefixes) > 0 {
		text = s.sig.prefixes[0] + text
	}
	g.header(s.fields[s.sig.in[0]].source.name, text)
}

func (g *signing) carryToken(sign signs) error {
	s := g.scheme
	claims := jwt.MapClaims{}
	if s.jwt.issuer != "" {
		claims["iss"] = s.jwt.issuer
	}
	if !s.ts.optional {
		claims["iat"], claims["nbf"], claims["exp"] = g.at.Unix(), g.at.Unix(), g.at.Add(tokenLife).Unix()
	}
	if s.id >= 0 && s.fields[s.id].source.kind == claimField {
		claims[s.fields[s.id].source.name] = g.id
	}
	v := g.view()
	if name := s.jwt.names[bodyDigest]; name != "" && !(s.jwt.bodyOptional && v.bodyEmpty()) {
		claims[name] = s.jwt.enc.encode(v.appendBody(nil, sha256Raw))
	}
	if name := s.jwt.names[urlDigest]; name != "" {
		sum := sha256.Sum256(v.appendURL(nil, urlPart))
		claims[name] = s.jwt.enc.encode(sum[:])
	}
	method := s.alg.methods[0]
	t := jwt.NewWithClaims(method, claims)
	if s.keyID != "" {
		t.Header["kid"] = s.keyID
	}
	message, err := t.SigningString()
	if err != nil {
		return fmt.Errorf("writing the token: %w", err)
	}
	signature, err := sign(method, message)
	if err != nil {
		return fmt.Errorf("signing the token: %w", err)
	}
	g.place(message + "." + base64.RawURLEncoding.EncodeToString(signature))
	return nil
}

func (g *signing) carryDetached(sign signs) error {
	s := g.scheme
	method := s.alg.methods[0]
	header := map[string]string{"alg": method.Alg()}
	if s.keyID != "" {
		header["kid"] = s.keyID
	}
	for name, text := range s.jws.parameters {
		header[name] = text
	}
	if s.jws.list != "" {
		header[s.jws.list] = strings.Join(s.jws.required, ",")
	}
	for _, name := range s.jws.required {
		g.provide(name)
	}
	v := g.view()
	var err error
	if v.token.headerJSON, err = json.Marshal(header); err != nil {
		return fmt.Errorf("writing the JOSE header: %w", err)
	}
	v.token.header, _ = readObject(v.token.headerJSON, nil)
	if !v.readListed() {
		return fmt.Errorf("the delivery must hold the headers %v once, which are signed", s.jws.required)
	}
	message := v.carriedMessages()[0]
	signature, err := sign(method, message)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	head, _, _ := strings.Cut(message, ".")
	g.place(head + ".." + base64.RawURLEncoding.EncodeToString(signature))
	return nil
}

// provide makes a header that is signed and not there.
func (g *signing) provide(name string) {
	for _, h := range g.delivery.Headers {
		if h.Name == name {
			return
		}
	}
	g.header(name, g.id)
}

func (g *signing) carryMessageSignature(sign signs) error {
	s := g.scheme
	covered := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, c := range s.components.required {
		switch {
		case c.name == digestHeader:
			g.header(digestHeader, "sha-256=:"+base64.StdEncoding.EncodeToString(g.view().appendBody(nil, sha256Raw))+":")
		case !strings.HasPrefix(c.name, "@"):
			g.provide(c.name)
		}
		item := httpsfv.NewItem(c.name)
		if c.parameter != "" {
			item.Params.Add("name", c.parameter)
		}
		covered.Items = append(covered.Items, item)
	}
	covered.Params.Add("created", g.at.Unix())
	for _, p := range []struct{ name, text string }{{"keyid", s.keyID}, {"alg", s.alg.shown()}, {"tag", s.components.tag}} {
		if p.text != "" {
			covered.Params.Add(p.name, p.text)
		}
	}
	v := g.view()
	if !v.makeBase(covered) {
		return fmt.Errorf("the delivery must hold all of %v once", s.spec.Components)
	}
	signature, err := sign(s.alg.methods[0], v.signed[0])
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	label := s.components.label
	if label == "" {
		label = "sig1"
	}
	for name, member := range map[string]httpsfv.Member{inputHeader: covered, signatureHeader: httpsfv.NewItem(signature)} {
		d := httpsfv.NewDictionary()
		d.Add(label, member)
		text, err := httpsfv.Marshal(d)
		if err != nil {
			return fmt.Errorf("writing the header %s: %w", name, err)
		}
		g.header(name, text)
	}
	return nil
}
