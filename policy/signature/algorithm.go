package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// family groups the algorithms by what their key is.
type family uint8

const (
	noFamily        family = iota
	hmacFamily             // a MAC under a shared secret
	hashFamily             // a plain hash over a template that holds the secret
	tokenFamily            // the secret itself
	publicKeyFamily        // a signature under the sender's private key
)

// algorithm is how a signature is made.
type algorithm struct {
	name   string
	family family
	hash   func() hash.Hash
	// size is the length of every signature in bytes, 0 where it varies.
	size   int
	signer signer
	digest crypto.Hash    // of an RSA signature
	curve  elliptic.Curve // of an ECDSA key
	// format is what carries the signature, and methods are the ways to sign that it may have; nil for a plain signature.
	format  format
	methods []jwt.SigningMethod
}

// format is what carries a signature.
type format uint8

const (
	plainFormat format = iota // nothing: the signature of a template stands by itself
	jwtFormat                 // a JSON Web Token with claims about the delivery
	jwsFormat                 // a JSON Web Signature of a template, which it does not repeat
	httpFormat                // an HTTP Message Signature
)

// signer is the kind of a public key.
type signer uint8

const (
	noSigner signer = iota
	ed25519Signer
	ecdsaSigner
	rsaSigner
)

var algorithms = slices.Concat(plainAlgorithms, carried("jwt-", jwtFormat, jose), carried("jws-", jwsFormat, jose[1:]), carried(httpPrefix, httpFormat, messages))

var plainAlgorithms = []algorithm{
	{name: "hmac-md5", family: hmacFamily, hash: md5.New, size: md5.Size},
	{name: "hmac-sha1", family: hmacFamily, hash: sha1.New, size: sha1.Size},
	{name: "hmac-sha256", family: hmacFamily, hash: sha256.New, size: sha256.Size},
	{name: "hmac-sha384", family: hmacFamily, hash: sha512.New384, size: sha512.Size384},
	{name: "hmac-sha512", family: hmacFamily, hash: sha512.New, size: sha512.Size},
	{name: "hash-sha1", family: hashFamily, hash: sha1.New, size: sha1.Size},
	{name: "hash-sha256", family: hashFamily, hash: sha256.New, size: sha256.Size},
	{name: "ed25519", family: publicKeyFamily, size: ed25519.SignatureSize, signer: ed25519Signer},
	{name: "ecdsa-p256-sha256", family: publicKeyFamily, hash: sha256.New, signer: ecdsaSigner, curve: elliptic.P256()},
	{name: "rsa-sha1", family: publicKeyFamily, hash: sha1.New, signer: rsaSigner, digest: crypto.SHA1},
	{name: "rsa-sha256", family: publicKeyFamily, hash: sha256.New, signer: rsaSigner, digest: crypto.SHA256},
	{name: "token", family: tokenFamily, hash: sha256.New},
}

// jose are the ways to sign of RFC 7518 and RFC 8037, by the name in a scheme. The first one takes any HMAC: its key can be nothing but a
// shared secret, so that a token which chooses among them gains nothing.
var jose = []algorithm{
	{name: "hmac", methods: []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512}},
	{name: "hs256", methods: []jwt.SigningMethod{jwt.SigningMethodHS256}},
	{name: "hs384", methods: []jwt.SigningMethod{jwt.SigningMethodHS384}},
	{name: "hs512", methods: []jwt.SigningMethod{jwt.SigningMethodHS512}},
	{name: "rs256", signer: rsaSigner, methods: []jwt.SigningMethod{jwt.SigningMethodRS256}},
	{name: "rs384", signer: rsaSigner, methods: []jwt.SigningMethod{jwt.SigningMethodRS384}},
	{name: "rs512", signer: rsaSigner, methods: []jwt.SigningMethod{jwt.SigningMethodRS512}},
	{name: "es256", signer: ecdsaSigner, curve: elliptic.P256(), methods: []jwt.SigningMethod{jwt.SigningMethodES256}},
	{name: "es384", signer: ecdsaSigner, curve: elliptic.P384(), methods: []jwt.SigningMethod{jwt.SigningMethodES384}},
	{name: "es512", signer: ecdsaSigner, curve: elliptic.P521(), methods: []jwt.SigningMethod{jwt.SigningMethodES512}},
	{name: "eddsa", signer: ed25519Signer, methods: []jwt.SigningMethod{jwt.SigningMethodEdDSA}},
}

// httpPrefix stands before the name that RFC 9421 gives an algorithm.
const httpPrefix = "http-signature-"

// messages are the ways to sign of RFC 9421. They are those of RFC 7518 by other names.
var messages = []algorithm{
	{name: "hmac-sha256", methods: []jwt.SigningMethod{jwt.SigningMethodHS256}},
	{name: "ed25519", signer: ed25519Signer, methods: []jwt.SigningMethod{jwt.SigningMethodEdDSA}},
	{name: "ecdsa-p256-sha256", signer: ecdsaSigner, curve: elliptic.P256(), methods: []jwt.SigningMethod{jwt.SigningMethodES256}},
	{name: "ecdsa-p384-sha384", signer: ecdsaSigner, curve: elliptic.P384(), methods: []jwt.SigningMethod{jwt.SigningMethodES384}},
	{name: "rsa-v1_5-sha256", signer: rsaSigner, methods: []jwt.SigningMethod{jwt.SigningMethodRS256}},
	{name: "rsa-pss-sha512", signer: rsaSigner, methods: []jwt.SigningMethod{jwt.SigningMethodPS512}},
}

// carried are ways to sign in a format.
func carried(prefix string, f format, ways []algorithm) []algorithm {
	all := slices.Clone(ways)
	for i := range all {
		a := &all[i]
		a.name, a.format, a.family = prefix+a.name, f, hmacFamily
		if a.signer != noSigner {
			a.family = publicKeyFamily
		}
	}
	return all
}

// method is the way to sign of this name, nil where the algorithm has none.
func (a *algorithm) method(name string) jwt.SigningMethod {
	for _, m := range a.methods {
		if m.Alg() == name {
			return m
		}
	}
	return nil
}

// shown is the algorithm's name in RFC 9421.
func (a *algorithm) shown() string { return strings.TrimPrefix(a.name, httpPrefix) }

// signatureSize is the length of every signature of a method in bytes, 0 where the key's size decides.
func signatureSize(m jwt.SigningMethod) int {
	switch m := m.(type) {
	case *jwt.SigningMethodHMAC:
		return m.Hash.Size()
	case *jwt.SigningMethodECDSA:
		return 2 * m.KeySize
	case *jwt.SigningMethodEd25519:
		return ed25519.SignatureSize
	default:
		return 0
	}
}

// encoding is how the bytes of a signature are written.
type encoding uint8

const (
	plainEncoding encoding = iota // the text itself: static tokens
	hexEncoding
	base64Encoding
	base64URLEncoding
)

// The strict encodings refuse an ending whose unused bits are not zero.
var (
	strictBase64       = base64.StdEncoding.Strict()
	strictBase64URL    = base64.URLEncoding.Strict()
	strictRawBase64URL = base64.RawURLEncoding.Strict()
)

var encodings = map[string]encoding{"hex": hexEncoding, "base64": base64Encoding, "base64url": base64URLEncoding}

// appendDecoded appends the bytes that text stands for. Hex may be in either case. Base64 is strict: padded, canonical, one line; in the
// URL alphabet the padding may be left out. scratch is room for a copy of text and comes back for the next call.
func (e encoding) appendDecoded(dst []byte, text string, scratch *[]byte) ([]byte, bool) {
	*scratch = append((*scratch)[:0], text...)
	var n int
	var err error
	start := len(dst)
	switch e {
	case plainEncoding:
		return append(dst, text...), true
	case hexEncoding:
		dst = append(dst, make([]byte, hex.DecodedLen(len(text)))...)
		n, err = hex.Decode(dst[start:], *scratch)
	default:
		enc := strictBase64
		if e == base64URLEncoding {
			enc = strictRawBase64URL
			if len(text)%4 == 0 {
				enc = strictBase64URL
			}
		}
		for i := range len(text) {
			if text[i] == '\n' || text[i] == '\r' { // the package skips them
				return dst, false
			}
		}
		dst = append(dst, make([]byte, enc.DecodedLen(len(text)))...)
		n, err = enc.Decode(dst[start:], *scratch)
	}
	if err != nil {
		return dst[:start], false
	}
	return dst[:start+n], true
}

// encode writes bytes as the sender does.
func (e encoding) encode(b []byte) string {
	switch e {
	case hexEncoding:
		return hex.EncodeToString(b)
	case base64Encoding:
		return base64.StdEncoding.EncodeToString(b)
	case base64URLEncoding:
		return base64.RawURLEncoding.EncodeToString(b)
	default:
		return string(b)
	}
}
