// Package audit keeps a file of what was done and decided, one JSON object a line, in which nothing can be removed, changed or moved unseen: each
// line holds the hash of the one before.
//
// The hash of a line is the SHA-256 of its bytes without the hash itself: {"seq":7,...,"prev":"..."}. It proves nothing against somebody who
// can rewrite the whole file, unless a later hash is known from elsewhere: the head, which the server tells, logs when it stops and keeps beside the file.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kinds of lines.
const (
	Start      = "start"         // the server begins to serve
	Stop       = "stop"          // the server ends
	Reload     = "reload"        // policies were loaded, or refused
	Action     = "action"        // somebody on call did something
	Login      = "login_refused" // wrong tokens
	Decision   = "decision"      // of a policy that has its decisions audited
	Suppressed = "suppressed"    // equal decisions of a flood that were only counted
	Dropped    = "dropped"       // lines that could not be written
	Continued  = "continued"     // the first line of a file that goes on where another ended
	Damaged    = "damaged"       // something was wrong with the file when it was opened
)

// Kinds are all of them.
var Kinds = []string{Start, Stop, Reload, Action, Login, Decision, Suppressed, Dropped, Continued, Damaged}

// Entry is one line. What does not belong to its kind is left out. It never holds a secret, a token, a signature or a body.
type Entry struct {
	Seq  uint64    `json:"seq"` // counts from 1
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`

	// Of actions, decisions.
	Endpoint string `json:"endpoint,omitempty"`
	// Of decisions: as the log has them. Of actions: the version that is revoked or restored.
	SecretVersion  string `json:"secret_version,omitempty"`
	Decision       string `json:"decision,omitempty"`
	Reason         string `json:"reason,omitempty"`
	Shadow         string `json:"shadow,omitempty"`
	Degraded       bool   `json:"degraded,omitempty"`
	Status         int    `json:"status,omitempty"`
	DeliveryID     string `json:"delivery_id,omitempty"`
	EventType      string `json:"event_type,omitempty"`
	ClientAddress  string `json:"client_address,omitempty"`
	Method         string `json:"method,omitempty"`
	Path           string `json:"path,omitempty"`
	BodyBytes      int    `json:"body_bytes,omitempty"`
	RequestID      string `json:"request_id,omitempty"`
	PolicyRevision string `json:"policy_revision,omitempty"` // of start and reload too

	// Of actions.
	Action  string    `json:"action,omitempty"`
	Address string    `json:"address,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	By      string    `json:"by,omitempty"`    // who says to have done it
	Token   string    `json:"token,omitempty"` // the name of the token
	Why     string    `json:"why,omitempty"`

	Result  string `json:"result,omitempty"`  // of a reload: good or bad
	Faults  int    `json:"faults,omitempty"`  // of a bad reload
	Count   int    `json:"count,omitempty"`   // of suppressed decisions, dropped lines and refused tokens
	From    string `json:"from,omitempty"`    // where the last of the refused tokens came from
	Version string `json:"version,omitempty"` // of the server that starts
	Problem string `json:"problem,omitempty"` // what was wrong

	Prev string `json:"prev"` // the hash of the line before; zeros for the first
	Hash string `json:"hash"`
}

// Head is the newest line: its number and its hash.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

const (
	hashLength = 2 * sha256.Size
	// maxLine bounds a line with its newline.
	maxLine = 64 << 10
)

// IsHash says that a text has the form of a hash.
func IsHash(text string) bool {
	return len(text) == hashLength && strings.Trim(text, "0123456789abcdef") == ""
}

var (
	hashKey  = []byte(`,"hash":"`)
	lineEnd  = []byte("\"}\n")
	tailSize = len(hashKey) + hashLength + len(lineEnd)
	noHash   = string(bytes.Repeat([]byte("0"), hashLength))
)

// beginning is the head before the first line.
var beginning = Head{Hash: noHash}

// line is an entry that follows another, and the head from then on.
func (h Head) line(e Entry) ([]byte, Head, error) {
	e.Seq, e.Prev, e.Hash = h.Seq+1, h.Hash, noHash
	e.Time = e.Time.UTC().Round(0)
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return nil, h, fmt.Errorf("writing an audit line: %w", err)
	}
	text := b.Bytes()
	if len(text) > maxLine {
		return nil, h, fmt.Errorf("writing an audit line: it has %d bytes; %d are the most", len(text), maxLine)
	}
	e.Hash = hashOf(text)
	copy(text[len(text)-len(lineEnd)-hashLength:], e.Hash)
	return text, Head{e.Seq, e.Hash}, nil
}

// hashOf is the hash of a line that has the right form.
func hashOf(line []byte) string {
	h := sha256.New()
	h.Write(line[:len(line)-tailSize])
	h.Write([]byte("}"))
	return hex.EncodeToString(h.Sum(nil))
}

var (
	errForm    = errors.New("it is no line of an audit file")
	errChanged = errors.New("it was changed: its hash is another")
	errCut     = errors.New("it is cut off")
)

// read reads a line with its newline. An error says what is wrong with it alone.
func read(line []byte) (Entry, error) {
	var e Entry
	switch {
	case len(line) > 0 && line[len(line)-1] != '\n':
		return e, errCut
	case len(line) <= tailSize || !bytes.HasPrefix(line[len(line)-tailSize:], hashKey) || !bytes.HasSuffix(line, lineEnd):
		return e, errForm
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || e.Seq == 0 {
		return e, errForm
	}
	if len(e.Prev) != hashLength || string(line[len(line)-len(lineEnd)-hashLength:len(line)-len(lineEnd)]) != hashOf(line) || e.Hash != hashOf(line) {
		return e, errChanged
	}
	return e, nil
}
