package policy

import (
	"net/netip"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature"
)

// Header is one header field of a delivery. Names are in lower case, as Envoy sends them.
type Header = signature.Header

// BodyState says what is known about the body of a delivery.
type BodyState uint8

const (
	// NoBody: no body was buffered. It is right only for a delivery without one.
	NoBody BodyState = iota
	// WholeBody: the body is complete and its bytes are the ones received.
	WholeBody
	// PartialBody: the body was cut off.
	PartialBody
	// TextBody: the body is complete but was sent as text, in which Envoy replaces every invalid byte by '!'.
	TextBody
)

// Request is one delivery as the authorizer sees it. Strings and body are views: Decide neither keeps nor changes them.
type Request struct {
	// Time is the moment of the decision. Windows, tolerances and rates are judged by it.
	Time time.Time
	// StreamID is Envoy's id of the HTTP stream. A second request with the same one within 10 s is Envoy's own retry.
	StreamID string
	// RequestID names the delivery in replies and logs (x-request-id).
	RequestID string

	// Named says that Envoy's route names the endpoint, in Endpoint (context extension "hookauthz.endpoint").
	Named    bool
	Endpoint string

	Method string
	Host   string
	// Path is the request target as received, with its query.
	Path    string
	Headers []Header
	// Merged says that Headers holds each name once, repeats joined with ',' and invalid bytes replaced by '!'.
	Merged bool

	// Peer is the address of the TCP or PROXY-protocol peer; the zero value where there is none.
	Peer netip.Addr

	// Body holds the bytes of the body in their order, in one or more segments.
	Body      [][]byte
	BodyState BodyState
}

// BodyLen is the number of bytes in the body.
func (r *Request) BodyLen() int {
	n := 0
	for _, s := range r.Body {
		n += len(s)
	}
	return n
}
