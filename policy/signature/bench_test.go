package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"testing"
)

// benched are the presets that must not allocate.
var benched = []string{"github", "stripe", "slack", "standard-webhooks", "shopify"}

// prepare makes all that one verification needs.
func prepare(t testing.TB, name string, size int) (*Scheme, *Key, *Delivery) {
	t.Helper()
	s, ok := Preset(name)
	if !ok {
		t.Fatalf("there is no preset %q", name)
	}
	k := key(t, s, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	d := Delivery{Method: "POST", Path: "/", Headers: headers("host: hooks.example.com", "content-type: application/json", "user-agent: sender/1.0", "accept: */*", "x-request-id: 1"), Body: [][]byte{bytes.Repeat([]byte("x"), size)}}
	d, err := s.Sign(k, d, moment, "msg_1")
	if err != nil {
		t.Fatal(err)
	}
	return s, k, &d
}

func verify(v *Verification, s *Scheme, k *Key, d *Delivery) bool {
	ok := s.Parse(v, d) == None && v.Matches(k) && (!s.HasTimestamp() || v.Fresh(moment, s.Tolerance())) && v.MessageID(k) != MessageID{}
	v.Reset()
	return ok
}

func BenchmarkVerify(b *testing.B) {
	for _, name := range benched {
		for _, size := range []int{2 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				s, k, d := prepare(b, name, size)
				var v Verification
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if !verify(&v, s, k, d) {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}

// BenchmarkHMAC is what a verification cannot be faster than.
func BenchmarkHMAC(b *testing.B) {
	for _, size := range []int{2 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), size)
			h := hmac.New(sha256.New, []byte("secret"))
			var sum [sha256.Size]byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				h.Reset()
				h.Write(body)
				h.Sum(sum[:0])
			}
		})
	}
}
