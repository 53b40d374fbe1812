package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// minRSABits is the shortest RSA key that is taken: some senders still sign with 1024 bits.
const minRSABits = 1024

// minCarriedRSABits is the shortest RSA key that RFC 7518, section 3.3, allows; RFC 9421 takes over its algorithms.
const minCarriedRSABits = 2048

// NewPublicKey prepares a public key: PEM, base64 of a DER SubjectPublicKeyInfo, or the raw key in the encoding that the scheme names; for
// a token or signature with a format also a JSON Web Key. The error says what is wrong without quoting the key.
func (s *Scheme) NewPublicKey(text []byte) (*Key, error) {
	if s.NeedsCertificate() {
		return nil, fmt.Errorf("the scheme %s is verified with the certificate that the delivery names", s.shown())
	}
	if !s.NeedsPublicKey() {
		return nil, fmt.Errorf("the scheme %s is verified with a shared secret, not with a public key", s.shown())
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, errors.New("the public key is empty")
	}
	public, err := s.publicKey(text)
	if err != nil {
		return nil, err
	}
	return &Key{family: publicKeyFamily, public: public}, nil
}

func (s *Scheme) publicKey(text []byte) (crypto.PublicKey, error) {
	if block, _ := pem.Decode(text); block != nil {
		if bytes.Contains([]byte(block.Type), []byte("PRIVATE KEY")) {
			return nil, errors.New("a private key stands where a public key belongs; replace it at the sender, and write its public half")
		}
		return s.derKey(block.Bytes)
	}
	if text[0] == '{' && s.alg.format != plainFormat {
		key, err := parseJWK(text)
		if err != nil {
			return nil, err
		}
		return s.fitting(key)
	}
	if raw, err := s.keySteps.apply(text); err == nil {
		if key := s.rawKey(raw); key != nil {
			return key, nil
		}
		if key, err := s.derKey(raw); err == nil {
			return key, nil
		}
	}
	der, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("the public key is neither PEM nor base64 DER nor a raw key of %s", s.alg.name)
	}
	return s.derKey(der)
}

// rawKey takes a key without an envelope: 32 bytes of Ed25519, a point of the algorithm's curve.
func (s *Scheme) rawKey(raw []byte) crypto.PublicKey {
	switch s.alg.signer {
	case ed25519Signer:
		if len(raw) == ed25519.PublicKeySize {
			return ed25519.PublicKey(raw)
		}
	case ecdsaSigner:
		if key, err := ecdsa.ParseUncompressedPublicKey(s.alg.curve, raw); err == nil {
			return key
		}
	}
	return nil
}

// derKey takes a SubjectPublicKeyInfo, or the PKCS #1 form of an RSA key, and checks that it is a key of the algorithm.
func (s *Scheme) derKey(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		if key, err = x509.ParsePKCS1PublicKey(der); err != nil {
			return nil, fmt.Errorf("the public key is neither PEM nor base64 DER nor a raw key of %s", s.alg.name)
		}
	}
	return s.fitting(key)
}

// fitting gives a key that is one of the algorithm.
func (s *Scheme) fitting(key crypto.PublicKey) (crypto.PublicKey, error) {
	fits := false
	switch key := key.(type) {
	case ed25519.PublicKey:
		fits = s.alg.signer == ed25519Signer
	case *ecdsa.PublicKey:
		fits = s.alg.signer == ecdsaSigner && key.Curve == s.alg.curve
	case *rsa.PublicKey:
		fits = s.alg.signer == rsaSigner
		least := minRSABits
		if s.alg.format != plainFormat {
			least = minCarriedRSABits
		}
		if fits && key.N.BitLen() < least {
			return nil, fmt.Errorf("the RSA key has %d bits and at least %d are wanted", key.N.BitLen(), least)
		}
	}
	if !fits {
		return nil, fmt.Errorf("the public key is not one of %s", s.alg.name)
	}
	return key, nil
}

// matchesPublic says whether any candidate is a signature of any template under k.
func (v *Verification) matchesPublic(k *Key) bool {
	public := k.public
	if v.scheme.certificates != nil {
		if public = v.certified; v.certified == nil {
			return false
		}
	}
	matches := false
	for i, t := range v.scheme.templates {
		message := v.message(t)
		start := 0
		for _, end := range v.ends {
			if v.scheme.verifies(public, message, v.decoded[start:end]) {
				matches = true
				if v.matched < 0 {
					v.matched = i
				}
			}
			start = end
		}
	}
	return matches
}

// message is what a template stands for: its text where the algorithm signs that, else its digest.
func (v *Verification) message(t template) []byte {
	if v.scheme.alg.hash == nil {
		v.scratch2 = v.scratch2[:0]
		for i := range t {
			v.scratch2, _ = v.appendPart(v.scratch2, &t[i]) // Parse has seen to it that all is there
		}
		return v.scratch2
	}
	h := v.scheme.alg.hash()
	v.feed(h, t, nil)
	v.scratch2 = h.Sum(v.scratch2[:0])
	return v.scratch2
}

// messageSum is the SHA-256 of what a template stands for.
func (v *Verification) messageSum(template int) (sum [sha256.Size]byte) {
	if v.scheme.alg.format != plainFormat {
		return sha256.Sum256([]byte(v.carriedMessages()[template]))
	}
	h := sha256.New()
	v.feed(h, v.scheme.templates[template], nil)
	h.Sum(sum[:0])
	return sum
}

func (s *Scheme) verifies(key crypto.PublicKey, message, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, s.alg.digest, message, signature) == nil
	default:
		return false
	}
}
