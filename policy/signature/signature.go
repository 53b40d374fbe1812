// Package signature verifies and makes webhook signatures by schemes that are data.
//
// A Spec says in a small language what a sender signs, with what algorithm, and where signature, timestamp and delivery id stand. Compile
// turns it into a Scheme, with every fault of the Spec at once; Preset gives those of known senders. A Scheme prepares Keys, and a
// Verification decides about one Delivery in steps, so that the caller can tell what is wrong: Parse (nothing is missing or ill-formed),
// Matches (a signature is right under this key), Fresh (the timestamp is within its tolerance).
//
// What holds for every scheme: the algorithm comes from the Spec and never from the delivery; the body is verified as it lies, in segments;
// all bytes of a signature count and are compared in constant time; what can be read in two ways (a header or a JSON key twice, a delimiter
// inside a field that it ends, base64 that is not canonical) is refused. The common schemes verify without allocating.
package signature

// Header is one header field. Name is in lower case.
type Header struct {
	Name  string
	Value string
}

// Delivery is what a scheme can sign. All of it are views: nothing is kept after a verification.
type Delivery struct {
	Method string
	// Path is the request target as received, with its query.
	Path string
	// PublicURL is the URL that the sender was given, without a query; empty where the policy names none.
	PublicURL string
	Headers   []Header
	// Merged says that Headers holds each name once, repeats joined with ',' and invalid bytes replaced by '!'.
	Merged bool
	// Body holds the bytes of the body in one or more segments.
	Body [][]byte
}

// MessageID identifies a signed message: the first 16 bytes of the SHA-256 of its MAC or, for a public-key scheme, of the message.
type MessageID [16]byte

// Failure is why a verification ends without a match. The zero value is OK only as the result of Parse.
type Failure uint8

const (
	None Failure = iota
	Missing
	Malformed
	TimestampMissing
	TimestampMalformed
)

// String says in words what is wrong with a delivery.
func (f Failure) String() string {
	switch f {
	case None:
		return "nothing is wrong"
	case Missing:
		return "the signature is missing"
	case TimestampMissing:
		return "the timestamp is missing"
	case TimestampMalformed:
		return "the timestamp is malformed"
	default:
		return "the signature or a signed part is malformed"
	}
}

// Spec is a scheme as written: the language of docs/schemes.md. Compile checks it.
type Spec struct {
	Alg     string        `yaml:"alg"`
	Key     KeySpec       `yaml:"key"`
	Sign    []string      `yaml:"sign"`
	Sig     SigSpec       `yaml:"sig"`
	TS      TimestampSpec `yaml:"ts"`
	ID      string        `yaml:"id"`
	Event   string        `yaml:"event"`
	Require []RequireSpec `yaml:"require"`
	Check   []CheckSpec   `yaml:"check"`

	// JWT says what the claims of a token mean, JWS what a detached signature covers beside its template, and Components what an HTTP
	// Message Signature must cover. Each goes with the algorithms of its name.
	JWT        JWTSpec  `yaml:"jwt"`
	JWS        JWSSpec  `yaml:"jws"`
	Components []string `yaml:"components"`

	// Only guards a scheme that signs part of a body, so that nothing rides along: json:PATH is a list that must have exactly one item, and
	// the form:NAMEs together are all the fields that a form may have.
	Only []string `yaml:"only"`

	// Certificate names the senders whose certificate a delivery names by URL: aws-sns, paypal or paypal-sandbox. Its key verifies the
	// signature, in place of a public key.
	Certificate string `yaml:"certificate"`

	// FreshPerAttempt says that the sender signs each attempt anew.
	FreshPerAttempt bool `yaml:"freshPerAttempt"`
	// Nonce says that the signed part is unique per delivery although it does not hold the body.
	Nonce bool `yaml:"nonce"`
}

// KeySpec says how the secret as the operator has it becomes a key, in the order strip, normalize, append, decode, hash.
type KeySpec struct {
	Strip     []string `yaml:"strip"`
	Normalize string   `yaml:"normalize"`
	Append    string   `yaml:"append"`
	Decode    string   `yaml:"decode"`
	Hash      string   `yaml:"hash"`
}

// SigSpec says where the signatures stand and how they are written.
type SigSpec struct {
	In             []string `yaml:"in"`
	Numbered       string   `yaml:"numbered"`
	Split          string   `yaml:"split"`
	KV             string   `yaml:"kv"`
	Pick           string   `yaml:"pick"`
	DropFirst      bool     `yaml:"drop_first"`
	Prefix         []string `yaml:"prefix"`
	PrefixOptional bool     `yaml:"prefix_optional"`
	Enc            string   `yaml:"enc"`
	// KeyID is the id that a JOSE header (kid) or an HTTP Message Signature (keyid) must give its key. "": any or none.
	KeyID string `yaml:"keyid"`
	// Label and Tag tell one of several HTTP Message Signatures. Without a label there must be one alone.
	Label string `yaml:"label"`
	Tag   string `yaml:"tag"`
}

// JWTSpec says which claims of a token are digests of the delivery, and who issues it.
type JWTSpec struct {
	Body string `yaml:"body"` // claim with the digest of the body
	URL  string `yaml:"url"`  // claim with the digest of the URL: publicURL with the query of the request
	// Digest is how they, each a SHA-256, are written: hex (the default), base64 or base64url.
	Digest string `yaml:"digest" doc:"How the digests, each a SHA-256, are written: hex (the default), base64 or base64url."`
	// BodyOptional says that the sender leaves the claim out where the body is empty.
	BodyOptional bool   `yaml:"body_optional"`
	Issuer       string `yaml:"issuer"` // what iss must be; "": any
}

// JWSSpec says how the JOSE header of a detached signature names headers that are signed.
type JWSSpec struct {
	// List is the parameter that lists them, parted by commas, and Headers are those that it must list. {jws.headers} stands for them.
	List    string   `yaml:"list"`
	Headers []string `yaml:"headers"`
	// Parameters are texts that the JOSE header must hold.
	Parameters map[string]string `yaml:"parameters"`
}

// TimestampSpec says where the timestamp stands. Tolerance is in seconds, 0 where the sender documents none. A token and an HTTP Message
// Signature hold theirs, so that only Tolerance and Optional are given.
type TimestampSpec struct {
	In        []string `yaml:"in"`
	Unit      string   `yaml:"unit"`
	Tolerance int      `yaml:"tolerance"`
	Optional  bool     `yaml:"optional"`
}

// RequireSpec is a header that must have a constant value.
type RequireSpec struct {
	Header string `yaml:"header"`
	Equals string `yaml:"equals"`
}

// CheckSpec demands that two templates give the same text.
type CheckSpec struct {
	A         string `yaml:"a"`
	B         string `yaml:"b"`
	IfPresent string `yaml:"if_present"`
}

// Fault is one thing that is wrong in a Spec.
type Fault struct {
	Field   string // its path in the Spec as written: "alg", "sign[1]", "sig.enc"
	Problem string // what is wrong, lower case, without a full stop
	Fix     string // what to write instead
}
