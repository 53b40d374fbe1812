package signature

import (
	"errors"
	"time"
)

// Scheme is a compiled Spec. It is immutable and may be used by many goroutines at once.
type Scheme struct {
	name string
	spec Spec
}

// Info is what the catalogue knows about a preset.
type Info struct {
	Name string
	// Provider is the sender, as people call it.
	Provider string
	// Documentation is the URL of the sender's own page.
	Documentation string
	Spec          Spec
}

// Key is a secret or public key prepared for one scheme. It may be used by many goroutines at once.
type Key struct{}

// Verification is the state of one verification. The zero value is ready; Reset makes a used one ready again.
type Verification struct{}

var errNotBuilt = errors.New("signature schemes are not built yet")

// Compile checks a scheme and prepares it. All faults come at once; the Scheme is nil if there is one.
func Compile(s Spec) (*Scheme, []Fault) {
	return nil, []Fault{{Field: "alg", Problem: "signature schemes are not built yet", Fix: "wait for it"}}
}

// Preset returns the preset of that name. It is compiled once.
func Preset(name string) (*Scheme, bool) { return nil, false }

// Presets lists the catalogue by name.
func Presets() []Info { return nil }

// Name is the preset's name, "" for an inline scheme.
func (s *Scheme) Name() string { return s.name }

// HasTimestamp says whether the sender gives a time of sending.
func (s *Scheme) HasTimestamp() bool { return false }

// Tolerance is how far the timestamp may be from now; 0 where the sender documents none.
func (s *Scheme) Tolerance() time.Duration { return 0 }

// TimestampSigned says whether the timestamp is part of what is signed. One that is not proves nothing.
func (s *Scheme) TimestampSigned() bool { return false }

// BodySigned says whether the whole body is signed.
func (s *Scheme) BodySigned() bool { return false }

// Nonce says that the signed part is unique per delivery.
func (s *Scheme) Nonce() bool { return false }

// FreshPerAttempt says that the sender signs each attempt anew.
func (s *Scheme) FreshPerAttempt() bool { return false }

// IsToken says that the scheme is a static token.
func (s *Scheme) IsToken() bool { return false }

// NeedsPublicKey says that the scheme is verified with a public key.
func (s *Scheme) NeedsPublicKey() bool { return false }

// NeedsURL says that the scheme signs the URL that the sender was given.
func (s *Scheme) NeedsURL() bool { return false }

// IDSigned says whether the delivery id is part of what is signed.
func (s *Scheme) IDSigned() bool { return false }

// EventSigned says whether the event type is part of what is signed.
func (s *Scheme) EventSigned() bool { return false }

// Headers lists the headers that the scheme reads, in lower case.
func (s *Scheme) Headers() []string { return nil }

// NewKey prepares a shared secret as the operator has it.
func (s *Scheme) NewKey(secret []byte) (*Key, error) { return nil, errNotBuilt }

// NewPublicKey prepares a public key: PEM, base64 DER or raw in the encoding that the scheme names.
func (s *Scheme) NewPublicKey(text []byte) (*Key, error) { return nil, errNotBuilt }

// Parse finds in d what is needed to verify it.
func (s *Scheme) Parse(v *Verification, d *Delivery) Failure { return Malformed }

// Matches says whether any signature of the delivery is right under k.
func (v *Verification) Matches(k *Key) bool { return false }

// MessageID is the identity of the signed message under k.
func (v *Verification) MessageID(k *Key) MessageID { return MessageID{} }

// Timestamp is when the delivery says it was sent.
func (v *Verification) Timestamp() (t time.Time, ok bool) { return time.Time{}, false }

// Fresh says whether the timestamp is within tolerance of now, either way and inclusive.
func (v *Verification) Fresh(now time.Time, tolerance time.Duration) bool { return false }

// DeliveryID is the sender's id of the delivery, "" where there is none.
func (v *Verification) DeliveryID() string { return "" }

// Event is the event type, "" where there is none.
func (v *Verification) Event() string { return "" }

// Reset drops every view of the delivery.
func (v *Verification) Reset() {}

// Sign makes the headers that a valid delivery needs.
func (s *Scheme) Sign(k *Key, d *Delivery, at time.Time, id string) ([]Header, error) {
	return nil, errNotBuilt
}
