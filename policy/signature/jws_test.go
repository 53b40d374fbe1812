package signature

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"
)

// The sender's own test key and webhook, from github:TrueLayer/truelayer-signing test-resources.
const (
	trueLayerKey = `-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAoLuW4nFqoUuR8d7FVsUoI62libYd
QlWGtLStnqdudLY92bQ0ra5eZAbkunrGTR9+w9mr4o2Etyb6pC7YB2+23WMBfVyO
QYyKW2KQ+uRfj2rC4kN1wRNpOyP6TIU/yOwX1blcAHdni0GJC1zvYNCclh4rIBX9
PqplO0UoWv5OniK76Ps=
-----END PUBLIC KEY-----
`
	trueLayerToken = "eyJhbGciOiJFUzUxMiIsImtpZCI6IjQ1ZmM3NWNmLTU2NDktNDEzNC04NGIzLTE5MmMyYzc4ZTk5MCIsInRsX3ZlcnNpb24iOiIyIiwidGxfaGVhZGVycyI6IlgtVGwtV2ViaG9vay1UaW1lc3RhbXAsQ29udGVudC1UeXBlIiwiamt1IjoiaHR0cHM6Ly93ZWJob29rcy50cnVlbGF5ZXIuY29tLy53ZWxsLWtub3duL2p3a3MifQ" +
		"..AB9S1dzZTmw0tofUjJNGO7Kt_jZsahPyIrBTdhfxBWOI3KoLALkMy6ka1MjpZQx06_hQUJnanu9K_LS6V9lNaNGiAX5Cos5RWQfbeBCZWqAvIpXO3FvIzyJKRaTYK8FBG4lfJYPi76_pIkCLGKWeq8__7ElpMVRcLTM5IBKWL8isVZn_"
	trueLayerBody = `{"event_type":"example","event_id":"18b2842b-a57b-4887-a0a6-d3c7c36f1020"}`
	trueLayerTime = "2021-11-29T11:42:55Z"
)

func trueLayer(t *testing.T, pem string) (*Scheme, *Key) {
	t.Helper()
	s, ok := Preset("truelayer")
	if !ok {
		t.Fatal("no preset")
	}
	key, err := s.NewPublicKey([]byte(pem))
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func trueLayerDelivery() Delivery {
	return Delivery{Method: "POST", Path: "/tl-webhook", Body: [][]byte{[]byte(trueLayerBody)}, Headers: []Header{
		{"tl-signature", trueLayerToken}, {"x-tl-webhook-timestamp", trueLayerTime}, {"content-type", "application/json"}}}
}

// The webhook that the sender publishes verifies; with anything else in it, it does not.
func TestDetached(t *testing.T) {
	s, key := trueLayer(t, trueLayerKey)
	at, err := time.Parse(time.RFC3339, trueLayerTime)
	if err != nil {
		t.Fatal(err)
	}
	var v Verification
	good := trueLayerDelivery()
	if f := s.Parse(&v, &good); f != None || !v.Matches(key) || !v.Fresh(at.Add(time.Minute), time.Minute) || v.Fresh(at.Add(61*time.Second), time.Minute) {
		t.Fatalf("the published webhook is refused: %v", f)
	}
	changes := map[string]func(d *Delivery){
		"method":             func(d *Delivery) { d.Method = "PUT" },
		"path":               func(d *Delivery) { d.Path = "/other" },
		"body":               func(d *Delivery) { d.Body = [][]byte{[]byte(trueLayerBody + " ")} },
		"time":               func(d *Delivery) { d.Headers[1].Value = "2021-11-29T11:42:56Z" },
		"signed header":      func(d *Delivery) { d.Headers[2].Value = "text/plain" },
		"no time":            func(d *Delivery) { d.Headers = append(d.Headers[:1], d.Headers[2]) },
		"two times":          func(d *Delivery) { d.Headers = append(d.Headers, Header{"x-tl-webhook-timestamp", trueLayerTime}) },
		"two tokens":         func(d *Delivery) { d.Headers = append(d.Headers, d.Headers[0]) },
		"token with payload": func(d *Delivery) { d.Headers[0].Value = strings.Replace(trueLayerToken, "..", ".e30.", 1) },
		"cut signature":      func(d *Delivery) { d.Headers[0].Value = trueLayerToken[:len(trueLayerToken)-4] },
		"signature of zeroes": func(d *Delivery) {
			d.Headers[0].Value = strings.Split(trueLayerToken, "..")[0] + ".." + strings.Repeat("A", 176)
		},
	}
	for name, change := range changes {
		d := trueLayerDelivery()
		change(&d)
		if s.Parse(&v, &d) == None && v.Matches(key) {
			t.Errorf("another %s is taken", name)
		}
	}
}

// What the token's header says is not believed.
func TestDetachedHeaders(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	s, key := trueLayer(t, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	token := func(header, signedHeaders string) string {
		payload := "POST /tl-webhook\n" + signedHeaders + trueLayerBody
		head := base64.RawURLEncoding.EncodeToString([]byte(header))
		sum := sha512.Sum512([]byte(head + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))))
		r, q, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return head + ".." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 66)), q.FillBytes(make([]byte, 66))...))
	}
	const line = "X-Tl-Webhook-Timestamp: " + trueLayerTime + "\n"
	tests := []struct{ name, header, lines, want string }{
		{"good", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`, line, "match"},
		{"other casing", `{"alg":"ES512","tl_version":"2","tl_headers":"x-tl-webhook-timestamp"}`, strings.ToLower(line[:22]) + line[22:], "match"},
		{"no headers", `{"alg":"ES512","tl_version":"2"}`, "", TimestampMissing.String()},
		{"without the time", `{"alg":"ES512","tl_version":"2","tl_headers":"Content-Type"}`, "Content-Type: application/json\n", TimestampMissing.String()},
		{"header twice", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp,x-tl-webhook-timestamp"}`, line + line, Malformed.String()},
		{"header that is not there", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp,X-Gone"}`, line + "X-Gone: \n", Malformed.String()},
		{"header with a line break", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp\n"}`, line, Malformed.String()},
		{"version 1", `{"alg":"ES512","tl_version":"1","tl_headers":"X-Tl-Webhook-Timestamp"}`, line, Malformed.String()},
		{"alg none", `{"alg":"none","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`, line, Malformed.String()},
		{"alg HS512", `{"alg":"HS512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`, line, Malformed.String()},
		{"two algs", `{"alg":"ES512","alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`, line, Malformed.String()},
		{"crit", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp","crit":["x"]}`, line, Malformed.String()},
		{"b64", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp","b64":false}`, line, Malformed.String()},
		{"a jku of another", `{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp","jku":"https://evil.example/"}`, line, "match"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := trueLayerDelivery()
			d.Headers[0].Value = token(tt.header, tt.lines)
			var v Verification
			got := "mismatch"
			if f := s.Parse(&v, &d); f != None {
				got = f.String()
			} else if v.Matches(key) {
				got = "match"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if _, other := trueLayer(t, trueLayerKey); func() bool {
		var v Verification
		d := trueLayerDelivery()
		d.Headers[0].Value = token(`{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`, line)
		return s.Parse(&v, &d) == None && v.Matches(other)
	}() {
		t.Error("another sender's key is taken")
	}
}

func FuzzDetached(f *testing.F) {
	f.Add(trueLayerToken, trueLayerBody)
	f.Add("a..b", "")
	f.Fuzz(func(t *testing.T, token, body string) {
		s, key := trueLayer(t, trueLayerKey)
		var v Verification
		d := trueLayerDelivery()
		d.Headers[0].Value, d.Body = token, [][]byte{[]byte(body)}
		if s.Parse(&v, &d) == None && v.Matches(key) && (token != trueLayerToken || body != trueLayerBody) {
			t.Errorf("a signature that nobody made is taken: %q", token)
		}
	})
}
