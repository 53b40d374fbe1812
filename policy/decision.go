package policy

import (
	"net/netip"
	"time"
)

// Outcome is what happens to a delivery. The zero value denies.
type Outcome uint8

const (
	Deny   Outcome = iota // refused: Status, Retry-After and an error body go back
	Allow                 // forwarded to the application
	Answer                // answered here: the application does not see it
)

func (o Outcome) String() string {
	switch o {
	case Allow:
		return "allow"
	case Answer:
		return "answer"
	}
	return "deny"
}

// Reason says why a decision is what it is. The list is closed; the zero value is the reason of our own fault.
type Reason uint8

const (
	InternalError Reason = iota
	NoPolicy
	AmbiguousPath
	Paused
	SourceUnknown
	SourceDenied
	MethodNotAllowed
	UnsupportedMediaType
	UpgradeRefused
	BodyPartial
	BodyTooLarge
	BodyNotRaw
	BodyLengthMismatch
	BodyMissing
	SignatureMissing
	SignatureMalformed
	SignatureMismatch
	TimestampMissing
	TimestampMalformed
	TimestampOutOfTolerance
	SecretExpired
	SecretUnavailable
	TooManyFailures
	Replayed
	InFlight
	RateLimited
	StoreUnavailable
	DeadlineExceeded
	Overloaded

	OK        // allow: every check holds
	Shadow    // allow: it would have been denied or answered; Decision.Shadow says why
	Duplicate // allow: seen before and tagged; answer: seen before and acknowledged
	Degraded  // allow: the store was down and the policy says allow
	Handshake // answer: a handshake of the provider

	reasonCount
)

// reasons holds, for each reason, its name and, for a denial, the HTTP status and the coarse code that the sender sees.
var reasons = [reasonCount]struct {
	name   string
	status int
	code   string
}{
	InternalError:           {"internal_error", 500, "internal_error"},
	NoPolicy:                {"no_policy", 403, "not_found_or_forbidden"},
	AmbiguousPath:           {"ambiguous_path", 403, "not_found_or_forbidden"},
	Paused:                  {"paused", 503, "unavailable"},
	SourceUnknown:           {"source_unknown", 403, "forbidden_source"},
	SourceDenied:            {"source_denied", 403, "forbidden_source"},
	MethodNotAllowed:        {"method_not_allowed", 405, "invalid_request"},
	UnsupportedMediaType:    {"unsupported_media_type", 415, "invalid_request"},
	UpgradeRefused:          {"upgrade_refused", 400, "invalid_request"},
	BodyPartial:             {"body_partial", 413, "payload_too_large"},
	BodyTooLarge:            {"body_too_large", 413, "payload_too_large"},
	BodyNotRaw:              {"body_not_raw", 503, "unavailable"},
	BodyLengthMismatch:      {"body_length_mismatch", 400, "invalid_request"},
	BodyMissing:             {"body_missing", 400, "invalid_request"},
	SignatureMissing:        {"signature_missing", 401, "invalid_signature"},
	SignatureMalformed:      {"signature_malformed", 401, "invalid_signature"},
	SignatureMismatch:       {"signature_mismatch", 401, "invalid_signature"},
	TimestampMissing:        {"timestamp_missing", 401, "invalid_signature"},
	TimestampMalformed:      {"timestamp_malformed", 401, "invalid_signature"},
	TimestampOutOfTolerance: {"timestamp_out_of_tolerance", 401, "invalid_signature"},
	SecretExpired:           {"secret_expired", 401, "invalid_signature"},
	SecretUnavailable:       {"secret_unavailable", 503, "unavailable"},
	TooManyFailures:         {"too_many_failures", 429, "rate_limited"},
	Replayed:                {"replayed", 409, "duplicate"},
	InFlight:                {"in_flight", 503, "unavailable"},
	RateLimited:             {"rate_limited", 429, "rate_limited"},
	StoreUnavailable:        {"store_unavailable", 503, "unavailable"},
	DeadlineExceeded:        {"deadline_exceeded", 503, "unavailable"},
	Overloaded:              {"overloaded", 503, "unavailable"},

	OK:        {name: "ok"},
	Shadow:    {name: "shadow"},
	Duplicate: {name: "duplicate"},
	Degraded:  {name: "degraded"},
	Handshake: {name: "handshake"},
}

// messages holds the sentence that goes with each coarse code.
var messages = map[string]string{
	"internal_error":         "Internal error",
	"not_found_or_forbidden": "Not found or forbidden",
	"unavailable":            "Temporarily unavailable",
	"forbidden_source":       "Forbidden source",
	"invalid_request":        "Invalid request",
	"payload_too_large":      "Payload too large",
	"invalid_signature":      "Invalid signature",
	"rate_limited":           "Too many requests",
	"duplicate":              "Duplicate delivery",
}

// String is the name of the reason in logs, metrics and metadata.
func (r Reason) String() string {
	if r >= reasonCount {
		return reasons[InternalError].name
	}
	return reasons[r].name
}

// Allows reports whether a delivery may be let through for this reason.
func (r Reason) Allows() bool { return r == OK || r == Shadow || r == Duplicate || r == Degraded }

// Answers reports whether a delivery may be answered here for this reason.
func (r Reason) Answers() bool { return r == Handshake || r == Duplicate }

// Status is the HTTP status of a denial for this reason: 500 for a reason that is none of a denial.
func (r Reason) Status() int {
	if r >= reasonCount || reasons[r].status == 0 {
		return reasons[InternalError].status
	}
	return reasons[r].status
}

// Code is the coarse code that the sender sees.
func (r Reason) Code() string {
	if r >= reasonCount || reasons[r].code == "" {
		return reasons[InternalError].code
	}
	return reasons[r].code
}

// Message is the sentence that goes with Code.
func (r Reason) Message() string { return messages[r.Code()] }

// Reasons lists every reason.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Reply is what an answer sends back to the caller.
type Reply struct {
	ContentType string
	Body        []byte
}

// Decision is the verdict on one delivery, with all that replies, logs, metrics and traces say of it.
// The zero value denies with 500.
type Decision struct {
	Outcome Outcome
	Reason  Reason
	// Shadow is why a delivery that a shadow policy let through would have been stopped. It counts where Reason is Shadow.
	Shadow Reason
	// Status is the HTTP status of a denial or an answer; 0 for an allow.
	Status int
	// RetryAfter is when the sender may try again; 0 where there is no such time.
	RetryAfter time.Duration
	// Reply is the body of an answer.
	Reply Reply

	// Endpoint is the name of the policy; empty where none was found.
	Endpoint string
	Scheme   string
	// ClientAddress is the sender's address by the policy's rule; the zero value where it is unknown.
	ClientAddress netip.Addr
	// SecretVersion is the version whose secret matches; empty where none does.
	SecretVersion string
	// Verification is the result of the signature check for metrics: "" where there was none, "valid", DecoyUsed, or the name of the reason.
	Verification string
	// Sent is when the delivery says it was sent: the timestamp that it is signed with, where the signature is right. The zero value: unknown.
	Sent time.Time
	// DeliveryID and Event are as the sender gave them. They are the sender's word only, unless the scheme signs them.
	DeliveryID       string
	DeliveryIDSigned bool
	Event            string
	EventSigned      bool
	// Duplicate says that the delivery was seen before and goes on, tagged.
	Duplicate bool
	// Degraded says that the shared store did not take part.
	Degraded bool
	// Reservation is the token that the outcome of the delivery must come back with; empty where none is awaited.
	Reservation string
	// Revision names the policy files in force.
	Revision string
	// LogShare is the share of allowed deliveries that are logged, as 1/N: 0 and 1 mean all.
	LogShare int
	// Audit says which decisions of the policy go into the audit file.
	Audit Audit
}

// Audit says which decisions go into the audit file. The zero value is none.
type Audit uint8

const (
	AuditNone   Audit = iota
	AuditDenied       // those that are denied, or would be but for shadow mode
	AuditAll
)

// Denial says whether the delivery is denied, or would be but for shadow mode.
func (d *Decision) Denial() bool { return d.Outcome == Deny || d.Reason == Shadow }

// Audited says whether the decision goes into the audit file.
func (d *Decision) Audited() bool { return d.Audit == AuditAll || d.Audit == AuditDenied && d.Denial() }

// DecoyUsed is the Verification of a delivery that only a decoy version signs: somebody uses a secret that was never handed out.
const DecoyUsed = "decoy"

// Denied is the denial for a reason.
func Denied(r Reason) Decision { return Decision{Outcome: Deny, Reason: r, Status: r.Status()} }

// Step is one line of an explanation: what was checked and what came of it.
type Step struct {
	Name   string `json:"name"`
	Result string `json:"result"` // "ok", "skipped" or the name of a reason
	Detail string `json:"detail,omitempty"`
}
