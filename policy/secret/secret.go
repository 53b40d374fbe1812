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
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// redacted stands wherever a Value is printed.
const redacted = "[redacted]"

// Value is a secret. It prints as "[redacted]" in every way that fmt, log/slog and the encoders know; only Reveal gives its bytes.
// The bytes are held by a function, because printing a struct around a Value goes by reflection, past its methods: that shows an address.
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

// What follows is how printers and encoders ask for a text.

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
	switch {
	case (r.Env == "") == (r.File == ""):
		return Value{}, errors.New("a secret stands in either an environment variable or a file")
	case r.Env != "":
		return s.readEnv(r.Env)
	}
	return s.readFile(r)
}

func (s Source) readEnv(name string) (Value, error) {
	lookup := s.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	text, ok := lookup(name)
	v := New([]byte(text))
	switch {
	case !ok:
		return Value{}, fmt.Errorf("the environment variable %q is not set", name)
	case v.blank():
		return Value{}, fmt.Errorf("the environment variable %q is empty", name)
	}
	return v, nil
}

func (s Source) readFile(r Ref) (Value, error) {
	data, err := readRegular(s.Path(r))
	if err != nil {
		return Value{}, fmt.Errorf("the secret file %q cannot be read: %w", r.File, err)
	}
	if line, ok := bytes.CutSuffix(data, []byte("\n")); ok {
		data = bytes.TrimSuffix(line, []byte("\r"))
	}
	v := New(data)
	if v.blank() {
		return Value{}, fmt.Errorf("the secret file %q is empty", r.File)
	}
	return v, nil
}

// maxEntries bounds what a folder of secrets may hold, hidden files included.
const maxEntries = 1024

// nameForm is what the name of a file in a folder of secrets looks like: that of a key of a Kubernetes Secret. An editor's backup copy
// ("key~", "key (copy)") is none.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// List lists the secrets in a folder, by name: its regular files, and links to such, that are not hidden. Folders in it are left out, so
// that a Kubernetes mount, whose files are links into ..data, reads as what it means. Names that cannot be used are listed apart.
// A link that leads nowhere is listed: its secret is there and cannot be read.
func (s Source) List(dir string) (refs []Ref, unfit []string, err error) {
	path := s.Path(Ref{File: dir})
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the folder %q cannot be read: %w", dir, cause(err))
	}
	defer f.Close()
	entries, err := f.ReadDir(maxEntries + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, nil, fmt.Errorf("the folder %q cannot be read: %w", dir, cause(err))
	case len(entries) > maxEntries:
		return nil, nil, fmt.Errorf("the folder %q holds more than %d files", dir, maxEntries)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(path, name)); err == nil && !info.Mode().IsRegular() {
			continue
		}
		if !nameForm.MatchString(name) {
			unfit = append(unfit, name)
			continue
		}
		refs = append(refs, Ref{File: filepath.Join(dir, name)})
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.File, b.File) })
	slices.Sort(unfit)
	if len(refs) == 0 {
		return nil, unfit, fmt.Errorf("the folder %q holds no secret", dir)
	}
	return refs, unfit, nil
}

// byteOrderMark is all that some editors leave in an empty file.
const byteOrderMark = "\ufeff"

func (v Value) blank() bool {
	text := bytes.TrimPrefix(v.Reveal(), []byte(byteOrderMark))
	return len(bytes.TrimSpace(text)) == 0
}

// readRegular reads a regular file of a bounded size. Its errors leave out the path, which the caller names as the policy writes it.
func readRegular(path string) ([]byte, error) {
	// Opening a pipe that nobody writes to would block the load for ever, but for O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	switch {
	case err != nil:
		return nil, cause(err)
	case len(data) > maxBytes:
		return nil, fmt.Errorf("it has more than %d bytes", maxBytes)
	}
	return data, nil
}

// cause is err without the path that it names.
func cause(err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// Window is when a version is good: from NotBefore on, and before NotAfter. A zero moment sets no bound.
type Window struct{ NotBefore, NotAfter time.Time }

// Contains reports whether t is in the window.
func (w Window) Contains(t time.Time) bool {
	return (w.NotBefore.IsZero() || !t.Before(w.NotBefore)) && (w.NotAfter.IsZero() || t.Before(w.NotAfter))
}
