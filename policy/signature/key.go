package signature

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/text/unicode/norm"
)

// Key is a secret or public key prepared for one scheme. It may be used by many goroutines at once.
type Key struct {
	family family
	// material is the secret itself: of a plain hash, which stands in its template, a static token, or a MAC that a format carries.
	material []byte
	// token is the SHA-256 of a static token.
	token [sha256.Size]byte
	// public is a public key.
	public crypto.PublicKey
	// macs holds hash.Hash values whose key is already absorbed.
	macs sync.Pool
}

// keySteps turn the secret as the operator has it into a key, in this order.
type keySteps struct {
	strip     []string
	normalize normalization
	suffix    string
	decode    keyDecoding
	hash      keyHash
}

type (
	normalization func([]byte) []byte
	keyDecoding   func([]byte) ([]byte, error)
	keyHash       func([]byte) []byte
)

var normalizations = map[string]normalization{"": nil, "nfkd": norm.NFKD.Bytes}

var keyHashes = map[string]keyHash{
	"":       nil,
	"sha1":   func(b []byte) []byte { sum := sha1.Sum(b); return sum[:] },
	"sha256": func(b []byte) []byte { sum := sha256.Sum256(b); return sum[:] },
}

// keyDecodings never quote what they cannot decode, as the errors of the standard library do.
var keyDecodings = map[string]keyDecoding{
	"":     nil,
	"utf8": nil,
	"base64": func(b []byte) ([]byte, error) {
		return decodeKey(base64.StdEncoding.DecodeString(string(b)))("base64")
	},
	"base64url": func(b []byte) ([]byte, error) {
		return decodeKey(base64.RawURLEncoding.DecodeString(string(bytes.TrimRight(b, "="))))("base64url")
	},
	"hex": func(b []byte) ([]byte, error) { return decodeKey(hex.DecodeString(string(b)))("hex") },
}

func decodeKey(key []byte, err error) func(encoding string) ([]byte, error) {
	return func(encoding string) ([]byte, error) {
		if err != nil {
			return nil, fmt.Errorf("the secret is not %s", encoding)
		}
		return key, nil
	}
}

var (
	errEmptyKey = errors.New("the secret is empty")
	// An HMAC fills its key up with zero bytes: one of nothing else is the empty key, which everybody has.
	errZeroKey = errors.New("the secret is nothing but zero bytes")
)

// NewKey prepares a shared secret as the operator has it. The error says what is wrong without quoting the secret.
func (s *Scheme) NewKey(secret []byte) (*Key, error) {
	if s.NeedsPublicKey() {
		return nil, fmt.Errorf("the scheme %s is verified with a public key, not with a shared secret", s.shown())
	}
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("a PEM file stands where the scheme %s has a shared secret", s.shown())
	}
	key, err := s.keySteps.apply(secret)
	if err != nil {
		return nil, err
	}
	k := &Key{family: s.alg.family}
	switch s.alg.family {
	case tokenFamily:
		k.material, k.token = key, sha256.Sum256(key)
	case hashFamily:
		k.material = key
		k.macs.New = func() any { return s.alg.hash() }
	default:
		if s.alg.format != plainFormat {
			k.material = key
			break
		}
		k.macs.New = func() any { return hmac.New(s.alg.hash, key) }
	}
	return k, nil
}

// Material is what counts of a shared secret as the operator has it: without its prefix, and decoded.
func (s *Scheme) Material(secret []byte) ([]byte, error) {
	k := s.keySteps
	k.suffix, k.hash = "", nil
	return k.apply(secret)
}

// shown is the scheme's name for people.
func (s *Scheme) shown() string {
	if s.name == "" {
		return "inline"
	}
	return s.name
}

func (k keySteps) apply(secret []byte) ([]byte, error) {
	key := bytes.Clone(secret)
	for _, prefix := range k.strip {
		if rest, ok := bytes.CutPrefix(key, []byte(prefix)); ok {
			key = rest
			break
		}
	}
	if len(bytes.TrimSpace(key)) == 0 {
		return nil, errEmptyKey
	}
	if k.normalize != nil {
		key = k.normalize(key)
	}
	key = append(key, k.suffix...)
	if k.decode != nil {
		var err error
		if key, err = k.decode(key); err != nil {
			return nil, err
		}
	}
	switch {
	case len(key) == 0:
		return nil, errEmptyKey
	case len(bytes.Trim(key, "\x00")) == 0:
		return nil, errZeroKey
	}
	if k.hash != nil {
		key = k.hash(key)
	}
	return key, nil
}

// hash gives a hash that has absorbed the key. Give it back with release.
func (k *Key) hash() hash.Hash { return k.macs.Get().(hash.Hash) }

func (k *Key) release(h hash.Hash) {
	h.Reset()
	k.macs.Put(h)
}
