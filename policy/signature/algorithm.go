package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
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
	digest crypto.Hash // of an RSA signature
}

// signer is the kind of a public key.
type signer uint8

const (
	noSigner signer = iota
	ed25519Signer
	ecdsaSigner
	rsaSigner
	p521Signer
)

var algorithms = []algorithm{
	{name: "hmac-md5", family: hmacFamily, hash: md5.New, size: md5.Size},
	{name: "hmac-sha1", family: hmacFamily, hash: sha1.New, size: sha1.Size},
	{name: "hmac-sha256", family: hmacFamily, hash: sha256.New, size: sha256.Size},
	{name: "hmac-sha384", family: hmacFamily, hash: sha512.New384, size: sha512.Size384},
	{name: "hmac-sha512", family: hmacFamily, hash: sha512.New, size: sha512.Size},
	{name: "hash-sha1", family: hashFamily, hash: sha1.New, size: sha1.Size},
	{name: "hash-sha256", family: hashFamily, hash: sha256.New, size: sha256.Size},
	{name: "ed25519", family: publicKeyFamily, size: ed25519.SignatureSize, signer: ed25519Signer},
	{name: "ecdsa-p256-sha256", family: publicKeyFamily, hash: sha256.New, signer: ecdsaSigner},
	{name: "rsa-sha1", family: publicKeyFamily, hash: sha1.New, signer: rsaSigner, digest: crypto.SHA1},
	{name: "rsa-sha256", family: publicKeyFamily, hash: sha256.New, signer: rsaSigner, digest: crypto.SHA256},
	{name: "jwt-hmac", family: hmacFamily, hash: sha256.New},
	{name: "jwt-hs256", family: hmacFamily, hash: sha256.New, size: sha256.Size},
	{name: "jwt-hs384", family: hmacFamily, hash: sha512.New384, size: sha512.Size384},
	{name: "jwt-hs512", family: hmacFamily, hash: sha512.New, size: sha512.Size},
	{name: "jwt-rs256", family: publicKeyFamily, hash: sha256.New, signer: rsaSigner, digest: crypto.SHA256},
	{name: "jwt-es256", family: publicKeyFamily, hash: sha256.New, signer: ecdsaSigner},
	{name: "jwt-eddsa", family: publicKeyFamily, size: ed25519.SignatureSize, signer: ed25519Signer},
	{name: "http-signature-ed25519", family: publicKeyFamily, size: ed25519.SignatureSize, signer: ed25519Signer},
	{name: "http-signature-ecdsa-p256-sha256", family: publicKeyFamily, hash: sha256.New, signer: ecdsaSigner},
	{name: "http-signature-rsa-v1_5-sha256", family: publicKeyFamily, hash: sha256.New, signer: rsaSigner, digest: crypto.SHA256},
	{name: "http-signature-hmac-sha256", family: hmacFamily, hash: sha256.New, size: sha256.Size},
	{name: detachedAlgorithm, family: publicKeyFamily, hash: sha512.New, signer: p521Signer},
	{name: "token", family: tokenFamily, hash: sha256.New},
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
