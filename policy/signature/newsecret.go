package signature

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
)

// leastSecret is how many random bytes a new secret has at least.
const leastSecret = 32

// NewSecret makes a random secret in the form that the scheme's key has: with the prefix and in the encoding of the sender, else as hex
// digits, which every sender's form takes. It holds as many random bytes as the hash is long, 32 at least.
func (s *Scheme) NewSecret() (string, error) {
	switch {
	case s.certificates != nil:
		return "", errors.New("it is verified with the certificate that each delivery names")
	case s.NeedsPublicKey():
		return "", errors.New("it is verified with a public key, whose private key is the sender's alone")
	}
	size := leastSecret
	if s.alg.hash != nil {
		size = max(size, s.alg.hash().Size())
	}
	for _, m := range s.alg.methods { // of HMAC, by the way the token or message chooses
		if sum, err := m.Sign("", make([]byte, leastSecret)); err == nil {
			size = max(size, len(sum))
		}
	}
	random := make([]byte, size)
	rand.Read(random)
	text := hex.EncodeToString(random)
	switch s.spec.Key.Decode {
	case "base64":
		text = base64.StdEncoding.EncodeToString(random)
	case "base64url":
		text = base64.RawURLEncoding.EncodeToString(random)
	}
	if len(s.keySteps.strip) > 0 {
		text = s.keySteps.strip[0] + text
	}
	return text, nil
}
