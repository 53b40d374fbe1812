package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// signed is what a message says, read by others' code.
type signed struct {
	body                        []byte
	signature, stream, endpoint string
	path                        string
}

func readCheck(t *testing.T, data []byte) signed {
	t.Helper()
	var r authv3.CheckRequest
	if err := proto.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	h := r.GetAttributes().GetRequest().GetHttp()
	s := signed{body: h.GetRawBody(), stream: h.GetId(), endpoint: r.GetAttributes().GetContextExtensions()["hookauthz.endpoint"], path: h.GetPath()}
	for _, header := range h.GetHeaderMap().GetHeaders() {
		if header.GetKey() == "x-hub-signature-256" {
			s.signature = string(header.GetRawValue())
		}
	}
	return s
}

func readHTTP(t *testing.T, data []byte) signed {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return signed{body: body, signature: r.Header.Get("X-Hub-Signature-256"), path: r.URL.Path}
}

func (s signed) valid() bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(s.body)
	return s.signature == "sha256="+hex.EncodeToString(mac.Sum(nil))
}

// Each delivery is of the size that was asked for, new, and signed over all of its body.
func TestMessages(t *testing.T) {
	for name, kind := range map[string]struct {
		encode func(*delivery, []byte) ([]byte, error)
		read   func(*testing.T, []byte) signed
	}{"check": {asCheck, readCheck}, "HTTP": {asHTTP, readHTTP}} {
		for _, d := range []delivery{{size: small}, {size: medium, only: 7}, {size: small, forged: true}} {
			template, err := newMessage(d, kind.encode)
			if err != nil {
				t.Fatal(err)
			}
			bodies, streams := make(map[string]bool), make(map[string]bool)
			for range 3 {
				m := template.clone() // goroutines share nothing but the counter
				for range 50 {
					data, err := m.next()
					if err != nil {
						t.Fatal(err)
					}
					got := kind.read(t, data)
					if len(got.body) != d.size {
						t.Fatalf("%s: a body of %d bytes, want %d", name, len(got.body), d.size)
					}
					if got.valid() == d.forged {
						t.Fatalf("%s: %+v: the signature %s", name, d, got.signature)
					}
					bodies[string(got.body)], streams[got.stream] = true, true
					if want := map[int]string{0: "/webhooks/bench-00000", 7: "/webhooks/bench-00007"}[d.only]; got.path != want {
						t.Fatalf("%s: path %q, want %q", name, got.path, want)
					}
				}
			}
			if len(bodies) != 150 || (name == "check" && len(streams) != 150) {
				t.Errorf("%s: of 150 deliveries %d bodies and %d streams are new", name, len(bodies), len(streams))
			}
		}
	}
}

// Deliveries to many policies go round all of them.
func TestMessageGoesRound(t *testing.T) {
	m, err := newMessage(delivery{size: small, policies: 3}, asCheck)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bench-00000", "bench-00001", "bench-00002", "bench-00000"} {
		data, err := m.next()
		if err != nil {
			t.Fatal(err)
		}
		if got := readCheck(t, data); got.endpoint != want || got.path != "/webhooks/"+want {
			t.Errorf("endpoint %q, path %q, want %q", got.endpoint, got.path, want)
		}
	}
}

func TestMessageTooSmall(t *testing.T) {
	if _, err := newMessage(delivery{size: 10}, asCheck); err == nil {
		t.Error("a body of 10 bytes holds no number")
	}
}
