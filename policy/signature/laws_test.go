package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"
)

// sender makes deliveries of one preset.
type sender struct {
	name    string
	scheme  *Scheme
	key     *Key
	other   *Key // of another endpoint
	private crypto.Signer
	headers []Header // that a delivery has besides
	body    func(t *rapid.T) []byte
	path    string
	// pem are the certificates of key and other, where they come from certificates below roots.
	pem   map[*Key][]byte
	roots *x509.CertPool
	// signedText says which texts of the body are signed, where not all of it is.
	signedText []string
}

// moment is when the deliveries are sent.
var moment = time.UnixMilli(1767225600000)

// Bodies in which a part is signed.
const (
	adyenBody = `{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"old"},` +
		`"pspReference":"7914073381342284","merchantAccountCode":"TestMerchant","merchantReference":"TestPayment-1407325143704",` +
		`"amount":{"value":1130,"currency":"EUR"},"eventCode":"AUTHORISATION","success":"true"}}]}`
	mailgunBody     = `{"signature":{"token":"a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0","timestamp":"1"},"event-data":{"event":"opened"}}`
	dropboxSignBody = `{"event":{"event_time":"1","event_type":"callback_test"}}`
)

// newPrivateKey makes a key of an algorithm.
func newPrivateKey(t testing.TB, a algorithm) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	switch a.signer {
	case ed25519Signer:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case ecdsaSigner:
		k, err = ecdsa.GenerateKey(a.curve, rand.Reader)
	default:
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicPEM(t testing.TB, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// newSender prepares keys and bodies for a preset.
func newSender(t testing.TB, name string) *sender {
	t.Helper()
	scheme, ok := Preset(name)
	if !ok {
		t.Fatalf("there is no preset %q", name)
	}
	s := &sender{name: name, scheme: scheme, path: "/hooks?a=1&b=2"}
	s.body = func(t *rapid.T) []byte { return rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body") }
	secrets := [2]string{"0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"} // text, hex and base64 at once
	if scheme.NeedsCertificate() {
		s.certify(t)
	} else if scheme.NeedsPublicKey() {
		make := func() (crypto.Signer, *Key) {
			private := newPrivateKey(t, scheme.alg)
			k, err := scheme.NewPublicKey(publicPEM(t, private))
			if err != nil {
				t.Fatal(err)
			}
			return private, k
		}
		s.private, s.key = make()
		_, s.other = make()
	} else {
		for i, k := range []**Key{&s.key, &s.other} {
			var err error
			if *k, err = scheme.NewKey([]byte(secrets[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
	fixed := func(body string) func(*rapid.T) []byte { return func(*rapid.T) []byte { return []byte(body) } }
	switch name {
	case "linear":
		s.body = func(t *rapid.T) []byte {
			return fmt.Appendf(nil, `{"type":"Issue","n":%d,"webhookTimestamp":%d}`, rapid.Int().Draw(t, "n"), moment.UnixMilli())
		}
	case "adyen-payments":
		s.body, s.signedText = fixed(adyenBody), []string{"7914073381342284", "TestMerchant", "1130", "EUR", "AUTHORISATION"}
	case "mailgun":
		s.body, s.signedText = fixed(mailgunBody), []string{"1767225600", "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0"}
	case "mailgun-form":
		s.body, s.signedText = fixed("timestamp=1&token=abcdef&signature=old"), []string{"1767225600", "abcdef"}
	case "dropbox-sign":
		s.body, s.signedText = fixed(dropboxSignBody), []string{"1767225600", "callback_test"}
	case "braintree":
		s.body, s.signedText = fixed("bt_signature=old&bt_payload=cGF5bG9hZA%3D%3D"), []string{"cGF5bG9hZA"}
	case "mercado-pago":
		s.path = "/hooks?data.id=ABC123&type=payment"
	}
	if slices.Contains(scheme.headers, contentType) && s.signedText == nil { // all fields of a form
		s.body = func(t *rapid.T) []byte {
			values := url.Values{}
			for i, n := range rapid.SliceOfN(rapid.StringN(1, 8, -1), 1, 5).Draw(t, "names") {
				values.Add(n, fmt.Sprint(i))
			}
			return []byte(values.Encode())
		}
	}
	return s
}

// send makes a valid delivery.
func (s *sender) send(t *rapid.T) *Delivery {
	d := Delivery{Method: "POST", Path: s.path, Body: [][]byte{s.body(t)}, Headers: slices.Clone(s.headers)}
	if s.scheme.NeedsURL() {
		d.PublicURL = "https://hooks.example.com/hooks"
	}
	if s.scheme.NeedsTopics() { // the signature stands in the body already
		return &d
	}
	if s.private == nil {
		d, err := s.scheme.Sign(s.key, d, moment, "msg_1")
		if err != nil {
			t.Fatal(err)
		}
		return &d
	}
	g := signing{scheme: s.scheme, delivery: &d, at: moment, id: "msg_1"}
	if err := g.fields(); err != nil {
		t.Fatal(err)
	}
	if s.scheme.alg.format != plainFormat {
		if err := g.carry(func(m jwt.SigningMethod, message string) ([]byte, error) { return m.Sign(message, s.private) }); err != nil {
			t.Fatal(err)
		}
		return &d
	}
	message := g.view().message(s.scheme.templates[0])
	digest := s.scheme.alg.digest
	if s.scheme.alg.signer == ecdsaSigner {
		digest = crypto.SHA256
	}
	signature, err := s.private.Sign(rand.Reader, message, digest)
	if err != nil {
		t.Fatal(err)
	}
	text := s.scheme.sig.enc.encode(signature)
	if len(s.scheme.sig.prefixes) > 0 {
		text = s.scheme.sig.prefixes[0] + text
	}
	g.header(s.scheme.fields[s.scheme.sig.in[0]].source.name, text)
	return &d
}

// decide verifies with the preset's own tolerance, or five minutes where the sender documents none.
func (s *sender) decide(d *Delivery, k *Key) string {
	tolerance := s.scheme.Tolerance()
	if tolerance == 0 {
		tolerance = 5 * time.Minute
	}
	if !s.scheme.TimestampSigned() {
		tolerance = 0
	}
	if s.pem == nil {
		return decide(s.scheme, d, []*Key{k}, &moment, tolerance)
	}
	return decideCertified(s.scheme, d, k, s.pem[k], s.roots, moment, tolerance)
}

// clone copies a delivery so that it can be changed.
func (d *Delivery) clone() *Delivery {
	c := *d
	c.Headers = slices.Clone(d.Headers)
	c.Body = nil
	for _, b := range d.Body {
		c.Body = append(c.Body, bytes.Clone(b))
	}
	return &c
}

// changes gives deliveries that differ from d in what is signed, in the signature or in the timestamp, with what was done.
func (s *sender) changes(t *rapid.T, d *Delivery) map[string]*Delivery {
	changed := map[string]*Delivery{}
	body := d.Body[0]
	whole := slices.ContainsFunc(s.scheme.templates, func(t template) bool { return t.has(bodyPart) }) || s.name == "twilio-json" || s.scheme.alg.format != plainFormat || s.scheme.NeedsWebhookID() // a CRC-32 finds small changes
	if whole {
		c := d.clone()
		c.Body[0] = append(c.Body[0], 'x')
		changed["body extended"] = c
		if len(body) > 0 {
			c = d.clone()
			flip(t, c.Body[0], 0, len(body))
			changed["bit of the body"] = c
			c = d.clone()
			c.Body[0] = c.Body[0][:len(body)-1]
			changed["body truncated"] = c
		}
	}
	for _, text := range s.signedText {
		at := bytes.Index(body, []byte(text))
		c := d.clone()
		flip(t, c.Body[0], at, at+len(text))
		changed["bit of "+text] = c
	}
	for i, h := range d.Headers {
		slot := slices.IndexFunc(s.scheme.fields, func(f field) bool { return f.header >= 0 && f.source.name == h.Name })
		isSignature := slot >= 0 && slices.Contains(s.scheme.sig.in, slot) || s.scheme.sig.numbered != "" && strings.HasPrefix(h.Name, strings.ToLower(s.scheme.sig.numbered))
		carried := s.scheme.alg.format != plainFormat && slices.Contains(s.scheme.headers, h.Name)
		if !isSignature && !carried && (slot < 0 || !s.scheme.fields[slot].signed) {
			continue
		}
		set := func(what, value string) {
			c := d.clone()
			c.Headers[i].Value = value
			changed[h.Name+" "+what] = c
		}
		value := []byte(h.Value)
		flip(t, value, 0, len(value))
		if s.sameSignature(string(value), h.Value) {
			continue
		}
		set("with a flipped bit", string(value))
		set("truncated", h.Value[:len(h.Value)-1])
		set("extended", h.Value+"0")
		if s.scheme.sig.split == "" { // in a list the good one may still be found
			set("repeated", h.Value+h.Value)
		}
		set("empty", "")
		c := d.clone()
		c.Headers = slices.Delete(c.Headers, i, i+1)
		changed[h.Name+" removed"] = c
	}
	return changed
}

// sameSignature says whether two texts are one signature: hex may be in either case.
func (s *sender) sameSignature(a, b string) bool {
	return s.scheme.sig.enc == hexEncoding && strings.EqualFold(a, b) && strings.HasPrefix(a, b[:max(0, len(b)-2*s.scheme.alg.size)])
}

func flip(t *rapid.T, b []byte, from, to int) {
	at := rapid.IntRange(from, to-1).Draw(t, "byte")
	b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
}

func TestLawsOfEveryPreset(t *testing.T) {
	for _, info := range Presets() {
		t.Run(info.Name, func(t *testing.T) {
			t.Parallel()
			s := newSender(t, info.Name)
			rapid.Check(t, func(t *rapid.T) {
				d := s.send(t)
				if got := s.decide(d, s.key); got != verdictValid {
					t.Fatalf("a signed delivery: %s\n%+v", got, d)
				}
				merged := d.clone()
				merged.Merged = true
				if got := s.decide(merged, s.key); got != verdictValid {
					t.Fatalf("a signed delivery in the merged form: %s\n%+v", got, d)
				}
				if got := s.decide(d, s.other); got == verdictValid {
					t.Fatal("the key of another endpoint verifies")
				}
				for what, c := range s.changes(t, d) {
					if got := s.decide(c, s.key); got == verdictValid {
						t.Fatalf("%s: still valid\n%+v\n%+v", what, d, c)
					}
				}
			})
		})
	}
}

// TestIdentity says that the same message has one identity under a key, however its signature is spelt, and no two messages share one.
func TestIdentity(t *testing.T) {
	s := newSender(t, "github")
	rapid.Check(t, func(t *rapid.T) {
		first, second := s.send(t), s.send(t)
		upper := first.clone()
		for i, h := range upper.Headers {
			if digest, ok := strings.CutPrefix(h.Value, "sha256="); ok {
				upper.Headers[i].Value = "sha256=" + strings.ToUpper(digest)
			}
		}
		id := func(d *Delivery, k *Key) MessageID {
			var v Verification
			if f := s.scheme.Parse(&v, d); f != None {
				t.Fatal(f)
			}
			return v.MessageID(k)
		}
		if id(first, s.key) != id(upper, s.key) {
			t.Error("another spelling of the signature is another message")
		}
		if id(first, s.key) == id(first, s.other) {
			t.Error("the identity does not depend on the key")
		}
		if same := bytes.Equal(first.Body[0], second.Body[0]); same != (id(first, s.key) == id(second, s.key)) {
			t.Errorf("same body %v, same identity %v", same, !same)
		}
	})
}
