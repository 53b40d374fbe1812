package signature

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

func TestNewKey(t *testing.T) {
	tests := []struct {
		name   string
		key    KeySpec
		secret string
		want   string // the key as text, where there is no error
		err    string
	}{
		{"as it is", KeySpec{}, "secret", "secret", ""},
		{"as it is, by name", KeySpec{Decode: "utf8"}, "secret", "secret", ""},
		{"strip", KeySpec{Strip: []string{"whsec_"}}, "whsec_secret", "secret", ""},
		{"strip what is not there", KeySpec{Strip: []string{"whsec_"}}, "secret", "secret", ""},
		{"strip once", KeySpec{Strip: []string{"a_", "b_"}}, "a_b_secret", "b_secret", ""},
		{"strip and base64", KeySpec{Strip: []string{"whsec_"}, Decode: "base64"}, "whsec_c2VjcmV0", "secret", ""},
		{"base64url", KeySpec{Decode: "base64url"}, "c2VjcmV0Pz8_", "secret???", ""},
		{"hex", KeySpec{Decode: "hex"}, "736563726574", "secret", ""},
		{"upper-case hex", KeySpec{Decode: "hex"}, "7365637265744A", "secretJ", ""},
		{"append", KeySpec{Append: "&"}, "secret", "secret&", ""},
		{"normalize", KeySpec{Normalize: "nfkd"}, "se\u0301cret\u00e9", "se\u0301crete\u0301", ""},
		{"hash", KeySpec{Hash: "sha1"}, "secret", "\xe5\xe9\xfa\x1b\xa3\x1e\xcd\x1a\xe8\x4f\x75\xca\xaa\x47\x4f\x3a\x66\x3f\x05\xf4", ""},
		{"empty", KeySpec{}, "", "", "the secret is empty"},
		{"blank", KeySpec{}, " \n", "", "the secret is empty"},
		{"nothing but its prefix", KeySpec{Strip: []string{"whsec_"}, Decode: "base64"}, "whsec_", "", "the secret is empty"},
		{"nothing but what is appended", KeySpec{Append: "&"}, "", "", "the secret is empty"},
		{"empty before the hash", KeySpec{Hash: "sha256"}, "", "", "the secret is empty"},
		{"decodes to nothing", KeySpec{Decode: "base64url"}, "=", "", "the secret is empty"},
		{"zero bytes", KeySpec{}, strings.Repeat("\x00", 32), "", "nothing but zero bytes"},
		{"decodes to zero bytes", KeySpec{Decode: "hex"}, strings.Repeat("00", 32), "", "nothing but zero bytes"},
		{"zero bytes before the hash", KeySpec{Hash: "sha256"}, "\x00", "", "nothing but zero bytes"},
		{"zero bytes and more", KeySpec{Decode: "hex"}, "0061", "\x00a", ""},
		{"not base64", KeySpec{Decode: "base64"}, "s3cr3t!", "", "the secret is not base64"},
		{"not padded", KeySpec{Decode: "base64"}, "c2VjcmV0Pw", "", "the secret is not base64"},
		{"not base64url", KeySpec{Decode: "base64url"}, "s3cr3t!", "", "the secret is not base64url"},
		{"not hex", KeySpec{Decode: "hex"}, "s3cr3t!", "", "the secret is not hex"},
		{"public key for a secret", KeySpec{}, "-----BEGIN PUBLIC KEY-----\ns3cr3t!", "", "a PEM file stands where"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := with(func(s *Spec) { s.Alg, s.Sign, s.Key = "hash-sha256", []string{"{secret}{body}"}, tt.key })
			s := compile(t, spec)
			secret := []byte(tt.secret)
			k, err := s.NewKey(secret)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("the error quotes the secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			clear(secret) // the key must not be a view of it
			if got := string(k.material); got != tt.want {
				t.Errorf("key %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNewPublicKey(t *testing.T) {
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 511, 1), E: 65537}
	der := func(k any) []byte {
		b, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b64 := base64.StdEncoding.EncodeToString
	asPEM := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	private, err := x509.MarshalPKCS8PrivateKey(edPrivate)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, preset, key, err string
	}{
		{"Ed25519 hex", "discord", hex.EncodeToString(edPublic), ""},
		{"Ed25519 hex with a newline", "discord", hex.EncodeToString(edPublic) + "\n", ""},
		{"Ed25519 base64", "telnyx", b64(edPublic), ""},
		{"Ed25519 with its prefix", "standard-webhooks-ed25519", "whpk_" + b64(edPublic), ""},
		{"Ed25519 PEM", "discord", asPEM("PUBLIC KEY", der(edPublic)), ""},
		{"Ed25519 DER where hex is usual", "discord", b64(der(edPublic)), ""},
		{"Ed25519 cut short", "discord", hex.EncodeToString(edPublic[:31]), "the public key is neither"},
		{"ECDSA DER", "sendgrid", b64(der(&ec.PublicKey)), ""},
		{"ECDSA PEM", "sendgrid", asPEM("PUBLIC KEY", der(&ec.PublicKey)), ""},
		{"ECDSA point", "sendgrid", b64(point), ""},
		{"ECDSA on another curve", "sendgrid", b64(der(&ec384.PublicKey)), "not one of ecdsa-p256-sha256"},
		{"RSA DER", "kick", b64(der(&rsaKey.PublicKey)), ""},
		{"RSA PEM", "postal", asPEM("PUBLIC KEY", der(&rsaKey.PublicKey)), ""},
		{"RSA PKCS #1", "kick", asPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), ""},
		{"Ed25519 for RSA", "kick", b64(der(edPublic)), "not one of rsa-sha256"},
		{"RSA for Ed25519", "discord", asPEM("PUBLIC KEY", der(&rsaKey.PublicKey)), "not one of ed25519"},
		{"RSA of 512 bits", "kick", asPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(small)), "has 512 bits and at least 1024"},
		{"private key", "discord", asPEM("PRIVATE KEY", private), "a private key stands where"},
		{"empty", "discord", " \n", "the public key is empty"},
		{"nonsense", "discord", "s3cr3t", "neither PEM nor base64 DER nor a raw key"},
		{"shared secret", "github", hex.EncodeToString(edPublic), "a shared secret, not with a public key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := Preset(tt.preset)
			if !ok {
				t.Fatal("no such preset")
			}
			_, err := s.NewPublicKey([]byte(tt.key))
			switch {
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			case err != nil && strings.Contains(err.Error(), "s3cr3t"):
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
	if s, _ := Preset("discord"); s != nil {
		if _, err := s.NewKey([]byte("secret")); err == nil {
			t.Error("a public-key scheme takes a shared secret")
		}
	}
}
