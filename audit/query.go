package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"
)

// Query picks lines. Empty fields pick all.
type Query struct {
	Kind, Endpoint, SecretVersion, Decision string
	// From the first moment on, and before the second.
	Since, Until time.Time
}

// signs are the parts that the text of a matching line holds: the rest is not decoded.
func (q *Query) signs() (signs [][]byte) {
	for _, part := range [][2]string{{"kind", q.Kind}, {"endpoint", q.Endpoint}, {"secret_version", q.SecretVersion}, {"decision", q.Decision}} {
		if part[1] == "" {
			continue
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if e.Encode(part[1]) == nil { // a text is always encoded
			signs = append(signs, slices.Concat([]byte(`"`+part[0]+`":`), bytes.TrimSpace(b.Bytes())))
		}
	}
	return signs
}

func (q *Query) matches(e *Entry) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(q.Kind, e.Kind) && is(q.Endpoint, e.Endpoint) && is(q.SecretVersion, e.SecretVersion) && is(q.Decision, e.Decision) &&
		(q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until))
}

// ErrEnough is what a caller of Find returns to end it.
var ErrEnough = errors.New("enough")

// Found says how far a search came.
type Found struct {
	// End is where the line begins that was not read.
	End int64
	// Unread is how many lines cannot be read: the file was changed.
	Unread int
}

// Find calls found with the lines that match, in their order; one that returns ErrEnough ends it. A last line without its end is left out: it
// may be under way. The chain is not verified.
func Find(r io.Reader, q Query, found func(e Entry, line []byte) error) (Found, error) {
	signs := q.signs()
	var f Found
	err := eachLine(r, func(line []byte, length int, err error) error {
		if err != nil { // too long for a line that is under way
			f.End += int64(length)
			f.Unread++
			return nil
		}
		if line[len(line)-1] != '\n' {
			return nil
		}
		f.End += int64(length)
		for _, sign := range signs {
			if !bytes.Contains(line, sign) {
				return nil
			}
		}
		e, err := read(line)
		if err != nil {
			f.Unread++
			return nil
		}
		if !q.matches(&e) {
			return nil
		}
		return found(e, line)
	})
	if errors.Is(err, ErrEnough) {
		err = nil
	}
	return f, err
}

// Begin says where a file begins that goes on from another.
type Begin struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// BeginOf reads the first line of a file; nil where nothing is before it, as far as can be read.
func BeginOf(r io.ReaderAt) *Begin {
	line, err := bufio.NewReaderSize(io.NewSectionReader(r, 0, maxLine), maxLine).ReadSlice('\n')
	if err != nil {
		return nil
	}
	e, err := read(line)
	if err != nil || e.Seq == 1 {
		return nil
	}
	return &Begin{e.Seq, e.Time}
}

// HashBefore is the hash of the line that ends where another begins; empty where none does.
func HashBefore(r io.ReaderAt, end int64) string {
	text := make([]byte, tailSize)
	if end < int64(tailSize) {
		return ""
	}
	if _, err := r.ReadAt(text, end-int64(tailSize)); err != nil || !bytes.HasPrefix(text, hashKey) || !bytes.HasSuffix(text, lineEnd) {
		return ""
	}
	return string(text[len(hashKey) : len(text)-len(lineEnd)])
}
