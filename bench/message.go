package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// delivery says what a message carries.
type delivery struct {
	size     int
	policies int    // the deliveries go round so many policies, from the first on; 0: all to the first
	only     int    // with policies 0: to this one
	address  string // of the sender; empty: one that the policies allow
	endpoint string // the policy that Envoy's route names; empty: the delivery's own
	forged   bool   // the signature is of another body
}

// message is an encoded delivery. Each call of next makes it a new one, with a body, a signature and a stream of its own: one that was sent
// before would be taken for a replay, or for Envoy's own retry, and cost less.
//
// Only the end of the body changes, so that the sender computes one block of the HMAC anew. The server has to compute all of it.
type message struct {
	bytes      []byte
	numbers    []int // where the delivery's number stands
	policies   []int // where its policy's number stands
	signatures []int // where its signature stands
	before     hash.Cloner
	delivery   delivery
	turn       int
}

// Each mark holds a place in what is encoded.
const (
	numberMark   = "<number-of-delivery>"
	policyMark   = "<num>"
	signatureLen = 2 * sha256.Size // in hex
	bodyEnd      = `"}`
)

var signatureMark = "<" + strings.Repeat("signature", 7)[:signatureLen-2] + ">"

// delivered numbers the deliveries of the whole run.
var delivered atomic.Int64

func newMessage(d delivery, encode func(d *delivery, body []byte) ([]byte, error)) (*message, error) {
	begin, middle := `{"data":"`, `","delivery":"`
	filler := d.size - len(begin) - len(middle) - len(numberMark) - len(bodyEnd)
	if filler < 0 {
		return nil, fmt.Errorf("a body of %d bytes is too small", d.size)
	}
	data := make([]byte, filler)
	for i := range data {
		data[i] = byte('a' + i%26)
	}
	body := []byte(begin + string(data) + middle + numberMark + bodyEnd)
	encoded, err := encode(&d, body)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body[:bytes.Index(body, []byte(numberMark))])
	m := &message{bytes: encoded, before: mac.(hash.Cloner), delivery: d, turn: d.only}
	m.numbers, m.policies, m.signatures = places(encoded, numberMark), places(encoded, policyMark), places(encoded, signatureMark)
	return m, nil
}

func places(data []byte, mark string) (at []int) {
	for from := 0; ; {
		i := bytes.Index(data[from:], []byte(mark))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(mark)
	}
}

// clone is a copy for another goroutine.
func (m *message) clone() *message {
	c := *m
	c.bytes = bytes.Clone(m.bytes)
	return &c
}

// next makes it a new delivery. The bytes are good until the next call.
func (m *message) next() ([]byte, error) {
	var number [len(numberMark)]byte
	writeNumber(number[:], delivered.Add(1))
	h, err := m.before.Clone()
	if err != nil {
		return nil, err
	}
	h.Write(number[:])
	h.Write([]byte(bodyEnd))
	var sum [sha256.Size]byte
	var text [signatureLen]byte
	hex.Encode(text[:], h.Sum(sum[:0]))
	if m.delivery.forged {
		text[0] = "123456789abcdef0"[strings.IndexByte("0123456789abcdef", text[0])]
	}
	for _, at := range m.numbers {
		copy(m.bytes[at:], number[:])
	}
	for _, at := range m.signatures {
		copy(m.bytes[at:], text[:])
	}
	for _, at := range m.policies {
		writeNumber(m.bytes[at:at+len(policyMark)], int64(m.turn))
	}
	if m.delivery.policies > 0 {
		m.turn = (m.turn + 1) % m.delivery.policies
	}
	return m.bytes, nil
}

// writeNumber fills b with the decimal digits of n.
func writeNumber(b []byte, n int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

func (d *delivery) path() string { return "/webhooks/bench-" + policyMark }

// asCheck encodes a delivery as Envoy asks about it.
func asCheck(d *delivery, body []byte) ([]byte, error) {
	address, endpoint := d.address, d.endpoint
	if address == "" {
		address = "192.0.2.1"
	}
	if endpoint == "" {
		endpoint = "bench-" + policyMark
	}
	headers := &corev3.HeaderMap{}
	for _, h := range [][2]string{
		{":authority", "hooks.example.com"}, {":method", "POST"}, {":path", d.path()}, {":scheme", "https"},
		{"accept", "*/*"}, {"content-length", strconv.Itoa(len(body))}, {"content-type", "application/json"}, {"user-agent", "GitHub-Hookshot/044aadd"},
		{"x-envoy-auth-partial-body", "false"}, {"x-forwarded-for", address}, {"x-forwarded-proto", "https"},
		{"x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"}, {"x-github-event", "push"}, {"x-github-hook-id", "292430182"},
		{"x-hub-signature-256", "sha256=" + signatureMark}, {"x-request-id", "7c8f1a52-" + numberMark},
	} {
		headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: numberMark, Method: "POST", Path: d.path(), Host: "hooks.example.com", Scheme: "https", Protocol: "HTTP/1.1",
			Size: int64(len(body)), RawBody: body, HeaderMap: headers,
		}},
		ContextExtensions: map[string]string{"hookauthz.endpoint": endpoint},
	}})
}

// asHTTP encodes a delivery as its sender sends it.
func asHTTP(d *delivery, body []byte) ([]byte, error) {
	head := "POST " + d.path() + " HTTP/1.1\r\nHost: hooks.example.com\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) +
		"\r\nUser-Agent: GitHub-Hookshot/044aadd\r\nX-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\nX-GitHub-Event: push\r\nX-GitHub-Hook-ID: 292430182\r\n" +
		"X-Hub-Signature-256: sha256=" + signatureMark + "\r\n\r\n"
	return append([]byte(head), body...), nil
}
