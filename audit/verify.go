package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Fault is one place where a file is not what was written.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // counted from 1
	Problem string `json:"problem"`
}

func (f Fault) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Problem) }

// maxFaults is how many are told: what follows the first ones is mostly their consequence.
const maxFaults = 20

// Report is what Verify found.
type Report struct {
	Lines  int     `json:"lines"`
	First  uint64  `json:"first_seq,omitempty"` // the number of the first line; more than 1 where it goes on from a file that was not given
	Head   Head    `json:"head"`                // the newest line
	Faults []Fault `json:"faults"`              // at most 20
	// Anchored says that the head was known from elsewhere, so that lines that were cut off at the end would have been found.
	Anchored bool `json:"anchored"`
}

// Verifier reads files in their order.
type Verifier struct {
	report Report
	last   Head
	file   string
	line   int
	wanted map[string]bool // hashes that must occur, and whether they did
}

// NewVerifier begins. The hashes, which were known as heads before, must be among the lines.
func NewVerifier(heads ...string) *Verifier {
	v := &Verifier{wanted: make(map[string]bool), report: Report{Faults: []Fault{}}}
	for _, h := range heads {
		v.wanted[h] = false
	}
	return v
}

func (v *Verifier) fault(format string, args ...any) {
	if len(v.report.Faults) < maxFaults {
		v.report.Faults = append(v.report.Faults, Fault{v.file, v.line, fmt.Sprintf(format, args...)})
	}
}

// Read reads the next file. The error is one of reading, not of what was read.
func (v *Verifier) Read(file string, r io.Reader) error {
	v.file, v.line = file, 0
	return eachLine(r, func(line []byte, _ int, err error) error {
		v.line++
		v.report.Lines++
		if err != nil {
			v.fault("%v", err)
			return nil
		}
		v.check(line)
		return nil
	})
}

func (v *Verifier) check(line []byte) {
	e, err := read(line)
	if err != nil {
		v.fault("%v", err)
		if e.Seq == 0 {
			return // the lines that follow it are told apart by their numbers
		}
	}
	switch {
	case v.report.First == 0:
		v.report.First = e.Seq
		if e.Seq == 1 && e.Prev != noHash {
			v.fault("it says that it is the first line, and names one before it")
		} else if e.Seq > 1 && e.Kind != Continued {
			v.fault("before it %s", missing(e.Seq-1))
		} else if _, wanted := v.wanted[e.Prev]; wanted { // it ended the file before
			v.wanted[e.Prev] = true
		}
	case e.Seq <= v.last.Seq:
		v.fault("it is out of order or there twice: number %d after %d", e.Seq, v.last.Seq)
		return
	case e.Seq > v.last.Seq+1:
		v.fault("before it %s: number %d after %d", missing(e.Seq-v.last.Seq-1), e.Seq, v.last.Seq)
	case e.Prev != v.last.Hash && v.last.Hash != "":
		v.fault("it does not follow the line before it: one of them was put there or changed")
	}
	if err != nil {
		e.Hash = "" // what follows it cannot be told: it was told that it was changed
	}
	v.last = Head{e.Seq, e.Hash}
	if _, wanted := v.wanted[e.Hash]; wanted {
		v.wanted[e.Hash] = true
	}
}

func missing(n uint64) string {
	if n == 1 {
		return "1 line is missing"
	}
	return fmt.Sprintf("%d lines are missing", n)
}

// Report ends. The head that was kept beside the last file, if there is one, must not be newer than its lines.
func (v *Verifier) Report(kept *Head) Report {
	v.report.Head = v.last
	v.line++
	if kept != nil && kept.Seq > v.last.Seq {
		v.fault("at the end %s: the newest was number %d", missing(kept.Seq-v.last.Seq), kept.Seq)
	}
	for hash, found := range v.wanted {
		if !found {
			v.fault("the line with the hash %s is missing", hash)
		}
	}
	v.report.Anchored = kept != nil && kept.Seq > 0 || len(v.wanted) > 0
	return v.report
}

// eachLine calls do with each line and its newline, and with its length; the last may have no newline. One that is too long is an error.
func eachLine(r io.Reader, do func(line []byte, length int, err error) error) error {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		length := len(line)
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = b.ReadSlice('\n')
			length += len(line)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the audit file: %w", err)
		}
		var fault error
		if tooLong {
			fault = fmt.Errorf("it has more than %d bytes", maxLine)
		}
		if length > 0 {
			if err := do(line, length, fault); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}
