package secret_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/policy/secret"
)

func TestWeakness(t *testing.T) {
	const short, guessable = "shorter than 16 bytes", "easy to guess"
	for _, tt := range []struct{ secret, want string }{
		{"", short},
		{"hunter2", short},
		{"kV8sQ2xW9zR4tY7", short},
		{"kV8sQ2xW9zR4tY7m", ""},
		{strings.Repeat("a", 64), guessable},
		{strings.Repeat("ab", 32), guessable},
		{strings.Repeat("kV8s", 16), guessable},
		{strings.Repeat("kV8sQ2", 6), guessable},
		{"0123456789abcdef", guessable},
		{"0123456789abcdef0123456789abcdef", guessable},
		{"abcdefghijklmnopqrstuvwxyz", guessable},
		{"zyxwvutsrqponmlkjihgfedcba", guessable},
		{"changeme-changeme-changeme", guessable},
		{"my-super-secret-webhook-token", guessable},
		{"MySecretPassword123!", guessable},
		{"github-webhook-secret-2026", guessable},
		{"your-very-long-random-string-here", guessable},
		{"passwordpassword", guessable},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaak", guessable},
		{string(make([]byte, 32)), guessable},
		// What people and password managers make is taken.
		{"correct horse battery staple", ""},
		{"8f742231b10e8888abcd99yyyzzz85a5", ""},
		{"c3ab8ff13720e8ad9047dd39466b3c89", ""},
		{"2b4acfd1c5518bf03c73a4889d197d77251353857c22694bf150b9e3402ba15f", ""},
		{"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""},
		{"Ibxx_5AKakO-3qeNVR61Dw", ""},
	} {
		got := secret.Weakness([]byte(tt.secret))
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.secret, got, tt.want)
		}
	}
}

// No random secret of a length that senders hand out is called weak.
func TestRandomIsNotWeak(t *testing.T) {
	letters := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for range 20_000 {
		raw := make([]byte, 24)
		rand.Read(raw)
		alphanumeric := make([]byte, 22)
		for i := range alphanumeric {
			n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
			alphanumeric[i] = letters[n.Int64()]
		}
		for _, s := range []string{string(raw), hex.EncodeToString(raw[:16]), base64.StdEncoding.EncodeToString(raw[:16]), string(alphanumeric)} {
			if why := secret.Weakness([]byte(s)); why != "" {
				t.Fatalf("%q: %s", s, why)
			}
		}
	}
}

func FuzzWeakness(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	f.Add([]byte("secretsecretsecretsecret"))
	f.Fuzz(func(t *testing.T, s []byte) {
		if why := secret.Weakness(s); len(s) < secret.Least && why == "" {
			t.Errorf("%q is short and not weak", s)
		} else if why != "" && len(s) >= 4 && strings.Contains(why, string(s)) {
			t.Errorf("%q is in %q", s, why)
		}
	})
}
