package secret

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the published secrets
	"encoding/hex"
	"math"
	"strings"
	"sync"
)

// Least is how long a secret must be, in bytes, not to be weak. Senders hand out 16 bytes and more.
const Least = 16

// leastBits is what a secret must hold at a careful estimate. 16 random bytes hold 64 of them, 16 hex digits about 54.
const leastBits = 56

// Weakness says why a secret can be guessed, for a person; "" where it seems good. It never tells anything of the secret.
//
// The secret is what counts of it: without a prefix that all secrets of a sender have, and decoded.
func Weakness(secret []byte) string {
	switch {
	case len(secret) < Least:
		return "it is shorter than 16 bytes"
	case bits(secret) < leastBits:
		return "it is easy to guess, being made of words, or of few characters that repeat or follow each other"
	}
	return ""
}

// words are those that people make secrets of.
var words = strings.Fields(`secret password passwd passphrase changeme change-me change_me webhook hookauthz development production staging
	example sample testing test demo dummy default placeholder replace insert enter your-own your admin root user guest token signing signature
	verification verify private public access client server github gitlab stripe slack shopify twilio hello world welcome letmein qwerty asdf
	zxcv foobar foo bar baz todo fixme super very long string random this that not the and for key api app dev`)

// examined is how much of a secret is looked at: what is good there is good.
const examined = 128

// bits estimates how much there is to guess. What continues a run ("aaaa", "3456"), or repeats what came before, adds nothing, and a word
// counts as one character. Each of the rest holds what the number of different ones says.
func bits(secret []byte) float64 {
	b := bytes.Clone(secret[:min(len(secret), examined)])
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	var different [256]bool
	kinds, count := 0, 0
	for i := 0; i < len(b); {
		if !different[b[i]] {
			different[b[i]] = true
			kinds++
		}
		count++
		if n := word(b[i:]); n > 0 {
			i += n
		} else if n := repeated(b, i); n > 0 {
			i += n
		} else if n := run(b, i); n > 0 {
			count--
			i += n
		} else {
			i++
		}
	}
	return float64(count) * math.Log2(float64(max(kinds, 1)))
}

// word is the length of the word that b begins with, 0 where it begins with none.
func word(b []byte) int {
	for _, w := range wordsBy[b[0]] {
		if bytes.HasPrefix(b, []byte(w)) {
			return len(w)
		}
	}
	return 0
}

// wordsBy are the words by their first letter: thousands of policies are loaded at once.
var wordsBy = func() (by [256][]string) {
	for _, w := range words {
		by[w[0]] = append(by[w[0]], w)
	}
	return by
}()

// repeated is how many bytes at i stand so before i, from four on.
func repeated(b []byte, i int) (most int) {
	for from := range i {
		n := 0
		for i+n < len(b) && b[from+n] == b[i+n] {
			n++
		}
		if n >= 4 {
			most = max(most, n)
		}
	}
	return most
}

// run is how many bytes at i go on as the two before them do: the same, or each one up or down.
func run(b []byte, i int) (n int) {
	if i < 2 {
		return 0
	}
	step := int(b[i-1]) - int(b[i-2])
	if step < -1 || step > 1 {
		return 0
	}
	for i+n < len(b) && int(b[i+n])-int(b[i+n-1]) == step {
		n++
	}
	return n
}

// publishedText holds, for each secret of published examples, the first 8 bytes of its SHA-256: as they are, scanners of repositories and
// binaries would take them for leaks. A test makes it of the catalogue and of the vectors.
//
//go:embed published.txt
var publishedText string

var published = sync.OnceValue(func() map[string]bool {
	known := map[string]bool{}
	for _, sum := range strings.Fields(publishedText) {
		known[sum] = true
	}
	return known
})

// Published reports whether v is a secret from published examples: documentation, SDKs and their tests.
func (v Value) Published() bool { return published()[Fingerprint(string(v.Reveal()))] }

// Fingerprint is what Published knows a secret by. It is no protection of a secret that can be guessed.
func Fingerprint(secret string) string {
	secret = strings.TrimPrefix(strings.TrimSpace(secret), "whsec_")
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:8])
}
