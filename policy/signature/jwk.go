package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"math/big"
)

// errJWK does not quote the key: somebody may have written a private one.
var errJWK = errors.New("the JSON Web Key is not a public key of kty EC, OKP (Ed25519) or RSA")

// jwkCurves are the curves of RFC 7518, section 6.2.1.1, by their names there.
var jwkCurves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// parseJWK reads one JSON Web Key of RFC 7517, as it stands in the list of a sender. Whether it fits the algorithm is for the caller.
func parseJWK(text []byte) (crypto.PublicKey, error) {
	members, ok := readObject(text, nil)
	if !ok {
		return nil, errJWK
	}
	for _, private := range []string{"d", "p", "q", "k"} {
		if find(members, private) != nil {
			return nil, errors.New("a private or shared JSON Web Key stands where a public key belongs; replace it at the sender, and write its public half")
		}
	}
	bytes := func(name string) []byte {
		text, ok := findText(members, name)
		decoded, ok2 := decodeBase64URL(nil, text)
		if !ok || !ok2 {
			return nil
		}
		return decoded
	}
	kind, _ := findText(members, "kty")
	curve, _ := findText(members, "crv")
	switch {
	case kind == "EC" && jwkCurves[curve] != nil:
		size := (jwkCurves[curve].Params().BitSize + 7) / 8
		x, y := bytes("x"), bytes("y")
		if len(x) == 0 || len(x) > size || len(y) == 0 || len(y) > size {
			return nil, errJWK
		}
		point := make([]byte, 1+2*size) // some senders leave out the zeros before a number, against the RFC
		point[0] = 4
		copy(point[1+size-len(x):], x)
		copy(point[1+2*size-len(y):], y)
		key, err := ecdsa.ParseUncompressedPublicKey(jwkCurves[curve], point)
		if err != nil {
			return nil, errJWK
		}
		return key, nil
	case kind == "OKP" && curve == "Ed25519":
		if x := bytes("x"); len(x) == ed25519.PublicKeySize {
			return ed25519.PublicKey(x), nil
		}
	case kind == "RSA":
		n, e := bytes("n"), bytes("e")
		if len(n) > 0 && n[0] != 0 && len(n) <= maxRSABytes && len(e) > 0 && len(e) <= 4 && e[0] != 0 {
			if exponent := new(big.Int).SetBytes(e); exponent.IsInt64() && exponent.Int64() >= 3 && exponent.Bit(0) == 1 && exponent.Int64() < 1<<31 {
				return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
			}
		}
	}
	return nil, errJWK
}

// maxRSABytes bounds the modulus of an RSA key: 8192 bits.
const maxRSABytes = 1024
