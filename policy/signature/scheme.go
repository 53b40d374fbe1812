package signature

import (
	"slices"
	"time"
)

// Scheme is a compiled Spec. It is immutable and may be used by many goroutines at once.
type Scheme struct {
	name string
	spec Spec
	alg  algorithm

	// headers are the names, in lower case, of all headers that are read; a header's slot is its place here.
	headers []string
	// fields are all texts that are read; a field's slot is its place here.
	fields    []field
	templates []template
	sig       signatures
	ts        timestamps
	id, event int // slots, -1 for none
	required  []guard
	checks    []check
	only      []source

	jwt        jwtClaims
	jws        jwsHeaders
	components components
	keyID      string // that the signature must name, "" for any

	keySteps keySteps
	// needsForm says that the fields of a form are wanted before the signature can be checked; needsQuery likewise.
	needsForm, needsQuery bool
	paths                 []jsonPath
	facts                 facts

	certificates   *certificates // nil: the key does not come from a certificate
	certificateURL int           // slot of its URL
	parameters     Parameters
}

// field is one text that a scheme reads.
type field struct {
	source source
	header int // slot of its header, -1 where it is none
	path   int // slot of its JSON path, -1 where it is none
	// signed says that the field stands in a template.
	signed bool
	// required says that the field must be there.
	required bool
	// timestamp says that the field is read as the time of sending.
	timestamp bool
	// id says that the field is the delivery id.
	id bool
	// bounds are the literals that part the field from its neighbours: it must not hold one, or bytes could move between fields.
	bounds []string
	// adjoins says that another part follows without a literal between.
	adjoins bool
}

// signatures says where the signatures stand and how they are written.
type signatures struct {
	in             []int // slots of fields, first present wins
	numbered       string
	split          string
	kv             string
	pick           string
	dropFirst      bool
	prefixes       []string
	prefixOptional bool
	enc            encoding
}

// timestamps says where the time of sending stands.
type timestamps struct {
	in        []int // slots of fields, first present wins
	unit      unit
	layout    string // of a custom unit, as the package time has it
	tolerance time.Duration
	optional  bool
	// carried says that the token or the HTTP Message Signature holds the time itself.
	carried bool
}

// guard is a header that must have a constant value.
type guard struct {
	header int
	equals string
}

// check demands that two templates give the same text.
type check struct {
	a, b      template
	ifPresent int // slot of the field without which the check does not apply, -1 for always
}

// Name is the preset's name, "" for an inline scheme.
func (s *Scheme) Name() string { return s.name }

// HasTimestamp says whether the sender gives a time of sending.
func (s *Scheme) HasTimestamp() bool { return len(s.ts.in) > 0 || s.ts.carried }

// Tolerance is how far the timestamp may be from now, either way; 0 where the sender documents none.
func (s *Scheme) Tolerance() time.Duration { return s.ts.tolerance }

// TimestampSigned says whether the timestamp is part of what is signed. One that is not proves nothing.
func (s *Scheme) TimestampSigned() bool { return s.facts.timestampSigned }

// BodySigned says whether the body is signed.
func (s *Scheme) BodySigned() bool { return s.facts.bodySigned }

// Nonce says that the signed part is unique per delivery although it does not hold the body.
func (s *Scheme) Nonce() bool { return s.spec.Nonce }

// FreshPerAttempt says that the sender signs each attempt anew.
func (s *Scheme) FreshPerAttempt() bool { return s.spec.FreshPerAttempt }

// IsToken says that the scheme is a static token: nothing is signed.
func (s *Scheme) IsToken() bool { return s.alg.family == tokenFamily }

// NeedsPublicKey says that the scheme is verified with a public key.
func (s *Scheme) NeedsPublicKey() bool { return s.alg.family == publicKeyFamily }

// NeedsURL says that the scheme signs the URL that the sender was given.
func (s *Scheme) NeedsURL() bool { return s.facts.needsURL }

// IDSigned says whether the delivery id is part of what is signed.
func (s *Scheme) IDSigned() bool { return s.facts.idSigned }

// EventSigned says whether the event type is part of what is signed.
func (s *Scheme) EventSigned() bool { return s.facts.eventSigned }

// Headers lists the headers that the scheme reads, in lower case. They must arrive as the sender wrote them.
func (s *Scheme) Headers() []string { return slices.Clone(s.headers) }

// Spec is the scheme as written.
func (s *Scheme) Spec() Spec { return s.spec }
