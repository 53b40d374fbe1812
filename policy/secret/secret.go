// Package secret reads secrets from the environment and from files, and keeps them out of everything that prints.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// redacted stands wherever a Value is printed.
const redacted = "[redacted]"

// Value is a secret. It prints as "[redacted]" in every way that fmt, log/slog and the encoders know; only Reveal gives its bytes.
// The bytes are held by a function, so that printing a struct around it, which reaches unexported fields, shows an address.
type Value struct{ reveal func() []byte }

// New holds a copy of b.
func New(b []byte) Value {
	b = bytes.Clone(b)
	return Value{func() []byte { return b }}
}

// Reveal is the secret itself. The caller must not change it, print it or keep it longer than needed.
func (v Value) Reveal() []byte {
	if v.reveal == nil {
		return nil
	}
	return v.reveal()
}

// Empty reports whether there is nothing in it.
func (v Value) Empty() bool { return len(v.Reveal()) == 0 }

func (Value) String() string               { return redacted }
func (Value) GoString() string             { return redacted }
func (Value) Format(s fmt.State, _ rune)   { io.WriteString(s, redacted) }
func (Value) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Ref says where a secret stands: exactly one of the two is set.
type Ref struct{ Env, File string }

// Source reads secrets.
type Source struct {
	// LookupEnv reads an environment variable. Default: os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Dir is the folder that relative files are relative to.
	Dir string
}

// maxBytes bounds what a secret file may hold.
const maxBytes = 1 << 20

// Path is the file that a Ref names.
func (s Source) Path(r Ref) string {
	if filepath.IsAbs(r.File) {
		return r.File
	}
	return filepath.Join(s.Dir, r.File)
}

// Read is the secret that a Ref names. A file loses one trailing newline. What is empty, or holds nothing but white space, is an error.
// Errors name the variable or the file and never what is in it.
func (s Source) Read(r Ref) (Value, error) {
	if r.Env != "" {
		lookup := s.LookupEnv
		if lookup == nil {
			lookup = os.LookupEnv
		}
		text, ok := lookup(r.Env)
		switch {
		case !ok:
			return Value{}, fmt.Errorf("the environment variable %q is not set", r.Env)
		case len(bytes.TrimSpace([]byte(text))) == 0:
			return Value{}, fmt.Errorf("the environment variable %q is empty", r.Env)
		}
		return New([]byte(text)), nil
	}
	data, err := readFile(s.Path(r))
	if err != nil {
		return Value{}, fmt.Errorf("the secret file %q cannot be read: %w", r.File, err)
	}
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = bytes.TrimSuffix(data[:n-1], []byte("\r"))
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return Value{}, fmt.Errorf("the secret file %q is empty", r.File)
	}
	return New(data), nil
}

func readFile(path string) ([]byte, error) {
	// A pipe would block the load for ever, so its kind is looked at before it is opened.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		var pathError *os.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxBytes:
		return nil, fmt.Errorf("it has more than %d bytes", maxBytes)
	}
	f, err := os.Open(path)
	if err != nil {
		var pathError *os.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes))
}

// Window is when a version is good: from NotBefore on, and before NotAfter. A zero moment sets no bound.
type Window struct{ NotBefore, NotAfter time.Time }

// Contains reports whether t is in the window.
func (w Window) Contains(t time.Time) bool {
	return (w.NotBefore.IsZero() || !t.Before(w.NotBefore)) && (w.NotAfter.IsZero() || t.Before(w.NotAfter))
}
