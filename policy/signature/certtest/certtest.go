// Package certtest makes certificates for tests: a root of the test, an authority below it, and senders' certificates below that.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"
)

// Authority signs certificates. Its own certificate stands below a root.
type Authority struct {
	t            testing.TB
	Root, Middle *x509.Certificate
	key          *ecdsa.PrivateKey
}

// Year is around the time of the tests: certificates are valid for it unless they say otherwise.
var (
	notBefore = time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
)

// New makes a root and an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	}
	root := authority("root of the test")
	a.Root = a.sign(root, root, &rootKey.PublicKey, rootKey)
	a.Middle = a.sign(authority("authority of the test"), a.Root, &a.key.PublicKey, rootKey)
	return a
}

// Roots holds the root alone.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root)
	return pool
}

// Chain is what leads from a sender's certificate to the root, as PEM.
func (a *Authority) Chain() []byte { return PEM(a.Middle) }

// Leaf makes a sender's certificate for a name. Change may alter it before it is signed.
func (a *Authority) Leaf(public crypto.PublicKey, name string, change func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	return a.sign(c, a.Middle, public, a.key)
}

func (a *Authority) sign(c, parent *x509.Certificate, public, private any) *x509.Certificate {
	a.t.Helper()
	var err error
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.t.Fatal(err)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = notBefore
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = notAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, private)
	if err != nil {
		a.t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return signed
}

// PEM writes certificates as a file has them.
func PEM(certificates ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// Key is an RSA key, the same each time for a number: making one takes long.
func Key(t testing.TB, number int) *rsa.PrivateKey {
	t.Helper()
	if number >= len(keys) {
		t.Fatalf("there is no key %d", number)
	}
	k, err := keys[number]()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

var keys = []func() (*rsa.PrivateKey, error){sync.OnceValues(newKey), sync.OnceValues(newKey)}

// Message is an Amazon SNS message.
type Message map[string]any

// signed are the fields that SNS signs, in this order, where they are there.
var signed = []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}

// Sign puts the signature into the message, by its SignatureVersion, and writes it as JSON. It signs what is there, sound or not.
func (m Message) Sign(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	var text []byte
	for _, name := range signed {
		if value, ok := m[name].(string); ok {
			text = append(text, name+"\n"+value+"\n"...)
		}
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(sign(t, key, text, m["SignatureVersion"] == "1"))
	return m.JSON(t)
}

// JSON writes the message.
func (m Message) JSON(t testing.TB) []byte {
	t.Helper()
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// With is a copy with some fields changed: name, value, name, value. A nil value deletes.
func (m Message) With(changes ...any) Message {
	out := Message{}
	for name, value := range m {
		out[name] = value
	}
	for pair := range slices.Chunk(changes, 2) {
		if pair[1] == nil {
			delete(out, pair[0].(string))
		} else {
			out[pair[0].(string)] = pair[1]
		}
	}
	return out
}

func sign(t testing.TB, key *rsa.PrivateKey, text []byte, old bool) []byte {
	t.Helper()
	hash, digest := crypto.SHA256, sha256.Sum256(text)
	sum := digest[:]
	if old {
		short := sha1.Sum(text)
		hash, sum = crypto.SHA1, short[:]
	}
	signature, err := rsa.SignPKCS1v15(nil, key, hash, sum)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// SignText is the base64 of an RSA signature with SHA-256.
func SignText(t testing.TB, key *rsa.PrivateKey, text string) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString(sign(t, key, []byte(text), false))
}
