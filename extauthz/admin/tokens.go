package admin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Role says what the bearer of a token may do. The zero value is none.
type Role uint8

const (
	noRole   Role = iota
	ReadOnly      // looks
	Operator      // acts as well
)

func (r Role) String() string {
	switch r {
	case ReadOnly:
		return "read-only"
	case Operator:
		return "operator"
	}
	return "none"
}

func parseRole(s string) (Role, bool) {
	for _, r := range []Role{ReadOnly, Operator} {
		if s == r.String() {
			return r, true
		}
	}
	return noRole, false
}

// Person is who asks: the bearer of a token. Where no tokens are asked for, everybody who reaches the listener is the operator "local".
type Person struct {
	Name string
	Role Role
}

// local is who asks where no token is asked for.
var local = Person{"local", Operator}

const (
	maxTokenFile = 256 << 10
	maxTokens    = 1000
	minToken     = 16
	maxToken     = 1024
	maxName      = 64
)

// Token is one line of a token file. The token itself is not kept, only its hash.
type Token struct {
	Person
	// Expires is when it ends. Zero: it does not.
	Expires time.Time

	hash [sha256.Size]byte
}

// ParseTokens reads a token file: one token a line, as "TOKEN" for an operator named "operator", "ROLE NAME TOKEN" with the role operator
// or read-only, or "ROLE NAME EXPIRES TOKEN" with a moment in RFC 3339. Blank lines and lines that begin with # are skipped. A token has 16
// to 1024 visible ASCII characters. An error tells every fault, by the line, and shows nothing of the lines.
func ParseTokens(data []byte) ([]Token, error) {
	var tokens []Token
	seen := make(map[[sha256.Size]byte]int)
	err := eachToken(data, func(line int, fields []string) error {
		t, err := parseToken(fields)
		if err != nil {
			return err
		}
		if first, ok := seen[t.hash]; ok {
			return fmt.Errorf("the token of line %d again", first)
		}
		seen[t.hash] = line
		tokens = append(tokens, t)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(tokens) == 0:
		return nil, errors.New("it holds no token")
	case len(tokens) > maxTokens:
		return nil, fmt.Errorf("it holds %d tokens; %d are the most", len(tokens), maxTokens)
	}
	return tokens, nil
}

// eachToken calls do with the fields of each line that holds a token, and joins its complaints with their lines.
func eachToken(data []byte, do func(line int, fields []string) error) error {
	if len(data) > maxTokenFile {
		return fmt.Errorf("it has more than %d bytes", maxTokenFile)
	}
	if !utf8.Valid(data) {
		return errors.New("it is not text")
	}
	var faults []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxTokenFile+1)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := do(n, fields); err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", n, err))
		}
	}
	return errors.Join(append(faults, lines.Err())...)
}

func parseToken(fields []string) (Token, error) {
	t := Token{Person: Person{"operator", Operator}}
	switch len(fields) {
	case 1:
	case 3, 4:
		var ok bool
		if t.Role, ok = parseRole(fields[0]); !ok {
			return t, errors.New("the first word is no role; write operator or read-only")
		}
		if t.Name = fields[1]; len(t.Name) > maxName || !visible(t.Name) {
			return t, fmt.Errorf("the name has more than %d characters, or others than visible ASCII", maxName)
		}
		if len(fields) == 4 {
			var err error
			if t.Expires, err = time.Parse(time.RFC3339, fields[2]); err != nil {
				return t, errors.New("the third word of four is no moment; write it as 2027-01-31T00:00:00Z")
			}
		}
	default:
		return t, fmt.Errorf("it has %d words; write TOKEN, ROLE NAME TOKEN or ROLE NAME EXPIRES TOKEN", len(fields))
	}
	text := fields[len(fields)-1]
	if len(text) < minToken || len(text) > maxToken || !visible(text) {
		return t, fmt.Errorf("the token does not have %d to %d characters of visible ASCII; 'openssl rand -hex 32' makes a good one", minToken, maxToken)
	}
	t.hash = sha256.Sum256([]byte(text))
	return t, nil
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// FirstToken is the token that a client sends: the last word of the first line that holds one.
func FirstToken(data []byte) (string, error) {
	if _, err := ParseTokens(data); err != nil {
		return "", err
	}
	first := ""
	_ = eachToken(data, func(_ int, fields []string) error { // its faults were told
		if first == "" {
			first = fields[len(fields)-1]
		}
		return nil
	})
	return first, nil
}

// ReadTokenFile reads a token file, which is small.
func ReadTokenFile(path string) (data []byte, mode fs.FileMode, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.IsDir() {
		return nil, 0, fmt.Errorf("%q is a folder", path)
	}
	data, err = io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	return data, info.Mode(), err
}

// Tokens are the tokens of a file, which is read again when it changes. A file that cannot be used leaves those before in force and is
// logged once. It is safe for concurrent use.
type Tokens struct {
	path   string
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // guards what follows
	tokens  []Token
	sum     [sha256.Size]byte
	failed  string // what was logged last; empty once the file is good again
	checked time.Time
}

// OpenTokens reads a token file for the first time. A file that everybody on the machine may read is taken and logged.
func OpenTokens(path string, logger *slog.Logger, now func() time.Time) (*Tokens, error) {
	t := &Tokens{path: path, logger: logger, now: now, checked: now()}
	if _, err := t.read(); err != nil {
		return nil, err
	}
	return t, nil
}

// read reads the file; changed says whether it holds something else than before.
func (t *Tokens) read() (changed bool, err error) {
	// Whoever asks waits for the file: a pipe that nobody writes to would keep all of them waiting for ever.
	if info, err := os.Stat(t.path); err == nil && !info.Mode().IsRegular() {
		return false, fmt.Errorf("the token file %q is not a regular file", t.path)
	}
	data, mode, err := ReadTokenFile(t.path)
	if err != nil {
		return false, fmt.Errorf("reading the token file: %w", err)
	}
	sum := sha256.Sum256(data)
	if sum == t.sum {
		return false, nil
	}
	tokens, err := ParseTokens(data)
	if err != nil {
		return false, fmt.Errorf("the token file %q: %w", t.path, err)
	}
	if mode.Perm()&0o004 != 0 {
		t.logger.Warn("everybody on this machine can read the token file", "file", t.path, "mode", mode.Perm().String(), "fix", "chmod 600")
	}
	t.tokens, t.sum = tokens, sum
	return true, nil
}

// recheck is how long what was read is good without another look at the file.
const recheck = time.Second

// current are the tokens in force.
func (t *Tokens) current(now time.Time) []Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if age := now.Sub(t.checked); age >= 0 && age < recheck { // a clock that was set back does not stop the checks
		return t.tokens
	}
	t.checked = now
	changed, err := t.read()
	switch {
	case err != nil && err.Error() != t.failed:
		t.failed = err.Error()
		t.logger.Error("the token file cannot be used; the tokens before stay in force", "error", err)
	case err == nil:
		t.failed = ""
	}
	if changed {
		t.logger.Info("admin tokens read again", "tokens", len(t.tokens))
	}
	return t.tokens
}

var (
	errUnknownToken = errors.New("unknown token")
	errExpiredToken = errors.New("expired token")
)

// find is the bearer of a token. Every token is compared, hash with hash, so that time does not tell which one is near.
func (t *Tokens) find(text string) (Person, error) {
	now := t.now()
	hash := sha256.Sum256([]byte(text))
	var found *Token
	tokens := t.current(now)
	for i := range tokens {
		if subtle.ConstantTimeCompare(hash[:], tokens[i].hash[:]) == 1 {
			found = &tokens[i]
		}
	}
	switch {
	case found == nil:
		return Person{}, errUnknownToken
	case !found.Expires.IsZero() && !now.Before(found.Expires):
		return Person{found.Name, noRole}, errExpiredToken
	}
	return found.Person, nil
}
