package signature

import (
	"crypto/rsa"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Verification is the state of one verification. The zero value is ready. It may be used again and again, which spares memory, by one
// goroutine at a time; between Parse and Reset it holds views of the delivery.
type Verification struct {
	scheme   *Scheme
	delivery *Delivery

	headers []headerValue // by slot of Scheme.headers
	fields  []fieldValue  // by slot of Scheme.fields
	json    []jsonValue   // by slot of Scheme.paths
	form    []pair        // sorted
	query   []pair

	body, jsonBody, formBody, queryPairs progress

	texts      []string // that hold signatures
	candidates []string // signatures as written
	decoded    []byte   // signatures as bytes
	ends       []int    // where each ends in decoded

	stamp   stamp
	stamped int // slot of the field that holds the stamp, -1 for none

	sns            snsMessage
	snsBody        progress
	certificateURL string
	certified      *rsa.PublicKey   // of the certificate, once it is checked
	taken          takenCertificate // outlives the delivery

	matched int // the template that matched, -1 for none
	sums    []keyedSum
	checks  progress

	token    token
	messages messageSignature
	method   jwt.SigningMethod // of a signature that a format carries
	signed   []string          // what it signs, by template
	lifetime lifetime          // of a format that holds its own time

	joined            []byte // a body of several segments
	scratch, scratch2 []byte
	digests           bodyDigests
}

// maxKept bounds the buffers that outlive a delivery.
const maxKept = 1 << 20

// Reset drops every view of the delivery.
func (v *Verification) Reset() {
	v.scheme, v.delivery = nil, nil
	clear(v.headers)
	clear(v.fields)
	clear(v.json)
	clear(v.form)
	clear(v.query)
	clear(v.texts)
	clear(v.candidates)
	clear(v.sums)
	v.headers, v.fields, v.json, v.form, v.query = v.headers[:0], v.fields[:0], v.json[:0], v.form[:0], v.query[:0]
	v.texts, v.candidates, v.decoded, v.ends, v.sums = v.texts[:0], v.candidates[:0], v.decoded[:0], v.ends[:0], v.sums[:0]
	v.body, v.jsonBody, v.formBody, v.queryPairs, v.checks = notTried, notTried, notTried, notTried, notTried
	v.stamp, v.stamped, v.matched = stamp{}, -1, -1
	v.token.reset()
	clear(v.signed)
	v.messages, v.method, v.signed, v.lifetime = messageSignature{}, nil, v.signed[:0], lifetime{}
	v.joined, v.scratch, v.scratch2 = keep(v.joined), keep(v.scratch), keep(v.scratch2)
	v.sns, v.snsBody, v.certificateURL, v.certified = snsMessage{}, notTried, "", nil
	v.digests.have256, v.digests.have512 = false, false
}

func keep(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// Timestamp is when the delivery says it was sent. A time that is not signed is not told.
func (v *Verification) Timestamp() (t time.Time, ok bool) {
	if v.scheme == nil || v.stamped < 0 {
		return time.Time{}, false
	}
	return v.stamp.time(), true
}

// Fresh says whether the timestamp is within tolerance of now, either way and inclusive, compared in the timestamp's own unit. Where the
// scheme lets the timestamp be absent, an absent one is fresh.
func (v *Verification) Fresh(now time.Time, tolerance time.Duration) bool {
	if v.scheme == nil || v.stamped < 0 {
		return v.scheme != nil && v.scheme.ts.optional
	}
	if v.scheme.ts.carried {
		return v.lifetime.fresh(now, tolerance)
	}
	return v.stamp.fresh(now, tolerance)
}

// DeliveryID is the sender's id of the delivery, "" where there is none.
func (v *Verification) DeliveryID() string { return v.told(func(s *Scheme) int { return s.id }) }

// Event is the event type, "" where there is none. It may stand in the body: ask after a match.
func (v *Verification) Event() string { return v.told(func(s *Scheme) int { return s.event }) }

func (v *Verification) told(slot func(*Scheme) int) string {
	if v.scheme == nil || slot(v.scheme) < 0 || len(v.fields) == 0 {
		return ""
	}
	text, state := v.field(slot(v.scheme))
	if state != present {
		return ""
	}
	return text
}
