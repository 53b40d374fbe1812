package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/policy/secret"
)

const plain = "hunter2-whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// spellings are the ways in which a printer could write the secret. A part of it is as bad as all.
func spellings() []string {
	part := []byte(plain[8:20])
	list := fmt.Sprint([]byte(part))
	golike := fmt.Sprintf("%#v", part)
	return []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		base64.StdEncoding.EncodeToString([]byte(plain)), base64.RawURLEncoding.EncodeToString([]byte(plain)),
		strings.Trim(list, "[]"), strings.ReplaceAll(strings.Trim(list, "[]"), " ", ","), strings.ReplaceAll(strings.Trim(list, "[]"), " ", ", "),
		strings.TrimSuffix(strings.TrimPrefix(golike, "[]byte{"), "}"),
		strings.Trim(fmt.Sprintf("%x", part), " "), strings.Trim(fmt.Sprintf("% x", part), " "), strings.Trim(fmt.Sprintf("%o", part), "[]"),
		strings.Trim(fmt.Sprintf("%b", part), "[]"), strings.Trim(fmt.Sprintf("%U", part), "[]"), strings.Trim(fmt.Sprintf("%q", []rune(string(part))), "[]"),
	}
}

func leaks(out string) bool {
	for _, s := range spellings() {
		if strings.Contains(out, s) {
			return true
		}
	}
	return false
}

// A check that finds nothing anywhere would prove nothing.
func TestLeaksFindsBytes(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%U"} {
		var held any = []byte(plain)
		if verb == "%q" || verb == "%s" {
			held = plain
		}
		if out := fmt.Sprintf(verb, held); !leaks(out) {
			t.Errorf("%s: %s is not found", verb, out)
		}
	}
	out, _ := json.Marshal(struct{ B []byte }{[]byte(plain)})
	if !leaks(string(out)) {
		t.Errorf("%s is not found", out)
	}
}

// holder has a Value in every place that a struct offers.
type holder struct {
	Name    string
	Open    secret.Value
	closed  secret.Value
	Pointer *secret.Value
	pointer *secret.Value
	List    []secret.Value
	list    []secret.Value
	Map     map[string]secret.Value
	named   map[string]secret.Value
	Any     any `xml:"-"`
	any     any
	Nested  struct{ Inner secret.Value }
	nested  struct{ inner *secret.Value }
	secret.Value
}

func newHolder(v secret.Value) *holder {
	h := &holder{Name: "held", Open: v, closed: v, Pointer: &v, pointer: &v, List: []secret.Value{v}, list: []secret.Value{v},
		Map: map[string]secret.Value{"k": v}, named: map[string]secret.Value{"k": v}, Any: v, any: &v, Value: v}
	h.Nested.Inner, h.nested.inner = v, &v
	return h
}

// outer hides the methods that a holder has from its embedded Value, as most structs around a Value have none.
type outer struct {
	Holder *holder
	Fields struct {
		Open   secret.Value
		closed secret.Value
		deep   []map[string]*secret.Value
	}
}

func newOuter(v secret.Value) outer {
	o := outer{Holder: newHolder(v)}
	o.Fields.Open, o.Fields.closed, o.Fields.deep = v, v, []map[string]*secret.Value{{"k": &v}}
	return o
}

func TestNothingPrintsASecret(t *testing.T) {
	v := secret.New([]byte(plain))
	things := map[string]any{
		"value": v, "pointer": &v, "list": []secret.Value{v}, "map": map[string]secret.Value{"k": v}, "array": [1]secret.Value{v},
		"holder": *newHolder(v), "pointer to holder": newHolder(v), "outer": newOuter(v), "pointer to outer": new(newOuter(v)),
		"fields": newOuter(v).Fields, "error": fmt.Errorf("reading %v: %s, %#v, %x, %d", v, v, v, v, v), "reveal": v.Empty,
	}
	for name, thing := range things {
		t.Run(name, func(t *testing.T) {
			check := func(how, out string) {
				t.Helper()
				if leaks(out) {
					t.Errorf("%s shows the secret: %s", how, out)
				}
			}
			for verb := range strings.SplitSeq("v +v #v s +s #s q +q #q x X #x #X d +d o O b c U #U e E f F g G t p #p T w 100v -100v .3v 0x", " ") {
				check("fmt %"+verb, fmt.Sprintf("%"+verb, thing))
			}
			check("fmt.Sprint", fmt.Sprint(thing)+fmt.Sprintln(thing))
			check("an error", fmt.Errorf("failed: %v, %+v, %#v", thing, thing, thing).Error())

			var out bytes.Buffer
			log.New(&out, "", 0).Print(thing)
			check("log", out.String())
			for how, handler := range map[string]slog.Handler{"slog text": slog.NewTextHandler(&out, nil), "slog JSON": slog.NewJSONHandler(&out, nil)} {
				out.Reset()
				logger := slog.New(handler)
				logger.Info("m", "k", thing, slog.Group("g", "k", thing))
				logger.With("k", thing).Info("m", slog.Any("k", []any{thing}))
				check(how, out.String())
			}

			// An encoder may refuse a thing; then its error must not show it either.
			text, err := json.Marshal(thing)
			check("JSON", fmt.Sprintf("%s%v", text, err))
			text, err = json.Marshal(map[string]any{"k": thing})
			check("JSON in a map", fmt.Sprintf("%s%v", text, err))
			text, err = xml.Marshal(thing)
			check("XML", fmt.Sprintf("%s%v", text, err))
			text, err = marshalYAML(thing)
			check("YAML", fmt.Sprintf("%s%v", text, err))
			out.Reset()
			err = gob.NewEncoder(&out).Encode(thing)
			check("gob", fmt.Sprintf("%s%v", &out, err))
			out.Reset()
			err = template.Must(template.New("").Parse(`{{.}} {{printf "%v %s %x" . . .}} {{print .}} {{html .}}`)).Execute(&out, thing)
			check("text/template", fmt.Sprintf("%s%v", &out, err))
			out.Reset()
			err = htmltemplate.Must(htmltemplate.New("").Parse(`{{.}}<script>{{.}}</script>`)).Execute(&out, thing)
			check("html/template", fmt.Sprintf("%s%v", &out, err))

			everything := cmp.Exporter(func(reflect.Type) bool { return true })
			check("cmp.Diff", cmp.Diff(thing, nil, everything)+cmp.Diff([]any{thing}, []any{secret.New(nil)}, everything))
			out.Reset()
			walk(&out, reflect.ValueOf(thing), 0)
			check("reflection", out.String())
		})
	}
}

// marshalYAML turns the panic that yaml has for what it cannot encode into an error.
func marshalYAML(thing any) (text []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return yaml.Marshal(thing)
}

// walk writes whatever reflection can reach, unexported fields too, as dumpers do.
func walk(out *bytes.Buffer, v reflect.Value, depth int) {
	if depth > 20 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			walk(out, v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fmt.Fprintf(out, "%s: ", v.Type().Field(i).Name)
			walk(out, v.Field(i), depth+1)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			walk(out, k, depth+1)
			walk(out, v.MapIndex(k), depth+1)
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			out.Write(v.Bytes())
		}
		for i := range v.Len() {
			walk(out, v.Index(i), depth+1)
		}
	case reflect.String:
		out.WriteString(v.String())
	default:
		fmt.Fprintf(out, "%v ", v)
	}
}

// A crash prints the value of its panic.
func TestPanicPrintsNoSecret(t *testing.T) {
	const variable = "SECRET_TEST_PANIC"
	if kind := os.Getenv(variable); kind != "" {
		v := secret.New([]byte(plain))
		switch kind {
		case "value":
			panic(v)
		case "pointer":
			panic(&v)
		case "holder":
			panic(newHolder(v))
		case "outer":
			panic(newOuter(v))
		case "error":
			panic(fmt.Errorf("broken: %v", v))
		}
		return
	}
	for _, kind := range []string{"value", "pointer", "holder", "outer", "error"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPanicPrintsNoSecret$")
		cmd.Env = append(os.Environ(), variable+"="+kind, "GOTRACEBACK=system")
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("panic: ")) {
			t.Fatalf("%s: no panic: %v\n%s", kind, err, out)
		}
		if leaks(string(out)) {
			t.Errorf("%s: the panic shows the secret:\n%s", kind, out)
		}
	}
}

// Where there are methods to ask, the text is the one word that tells what stood there.
func TestRedacted(t *testing.T) {
	const want = "[redacted]"
	for name, v := range map[string]secret.Value{"full": secret.New([]byte(plain)), "empty": secret.New(nil), "zero": {}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%-20v"} {
			if got := fmt.Sprintf(verb, v); got != want {
				t.Errorf("%s: %s gives %s", name, verb, got)
			}
		}
		text, err := json.Marshal(v)
		if err != nil || string(text) != `"`+want+`"` {
			t.Errorf("%s: JSON gives %s, %v", name, text, err)
		}
		if got := v.LogValue().String(); got != want {
			t.Errorf("%s: slog gives %s", name, got)
		}
		if v.String() != want || v.GoString() != want {
			t.Errorf("%s: %q, %q", name, v.String(), v.GoString())
		}
	}
}

func TestValue(t *testing.T) {
	b := []byte(plain)
	v := secret.New(b)
	clear(b)
	if got := string(v.Reveal()); got != plain {
		t.Errorf("the value follows the bytes that it was made of: %q", got)
	}
	if v.Empty() {
		t.Error("a secret is empty")
	}
	for name, v := range map[string]secret.Value{"zero": {}, "nil": secret.New(nil), "empty": secret.New([]byte{})} {
		if !v.Empty() || len(v.Reveal()) != 0 {
			t.Errorf("the %s value holds %q", name, v.Reveal())
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadFile(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no newline", "abc", "abc"},
		{"newline", "abc\n", "abc"},
		{"carriage return and newline", "abc\r\n", "abc"},
		{"only one newline", "abc\n\n", "abc\n"},
		{"only one newline after a carriage return", "abc\n\r\n", "abc\n"},
		{"a carriage return alone is a byte", "abc\r", "abc\r"},
		{"blanks are bytes", " abc \t\n", " abc \t"},
		{"lines", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----"},
		{"binary", "\x00\xff\n", "\x00\xff"},
		{"as large as may be", strings.Repeat("a", 1<<20), strings.Repeat("a", 1<<20)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "key"), tt.text)
			for _, ref := range []string{"key", "./key", "../" + filepath.Base(dir) + "/key", filepath.Join(dir, "key")} {
				got, err := secret.Source{Dir: dir}.Read(secret.Ref{File: ref})
				if err != nil || string(got.Reveal()) != tt.want {
					t.Errorf("%s: got %.40q, %v, want %.40q", ref, got.Reveal(), err, tt.want)
				}
			}
		})
	}
}

func TestReadFileFaults(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "newline": "\n", "blank": " \t\r\n\v\f\n", "mark": "\ufeff\r\n", "large": plain + strings.Repeat("a", 1<<20), "key": plain} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"dangling": "nowhere", "circle": "circle", "to-pipe": "pipe"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		ref  secret.Ref
		want string
	}{
		{secret.Ref{File: "missing"}, `the secret file "missing" cannot be read: no such file or directory`},
		{secret.Ref{File: "key/below"}, `the secret file "key/below" cannot be read: not a directory`},
		{secret.Ref{File: "dangling"}, `the secret file "dangling" cannot be read: no such file or directory`},
		{secret.Ref{File: "circle"}, `the secret file "circle" cannot be read: too many levels of symbolic links`},
		{secret.Ref{File: "folder"}, `the secret file "folder" cannot be read: it is not a regular file`},
		{secret.Ref{File: "pipe"}, `the secret file "pipe" cannot be read: it is not a regular file`},
		{secret.Ref{File: "to-pipe"}, `the secret file "to-pipe" cannot be read: it is not a regular file`},
		{secret.Ref{File: "/dev/zero"}, `the secret file "/dev/zero" cannot be read: it is not a regular file`},
		{secret.Ref{File: "large"}, `the secret file "large" cannot be read: it has more than 1048576 bytes`},
		{secret.Ref{File: "a\x00b"}, `the secret file "a\x00b" cannot be read: invalid argument`},
		{secret.Ref{File: "empty"}, `the secret file "empty" is empty`},
		{secret.Ref{File: "newline"}, `the secret file "newline" is empty`},
		{secret.Ref{File: "blank"}, `the secret file "blank" is empty`},
		{secret.Ref{File: "mark"}, `the secret file "mark" is empty`},
		{secret.Ref{}, "a secret stands in either an environment variable or a file"},
		{secret.Ref{Env: "SET", File: "key"}, "a secret stands in either an environment variable or a file"},
	}
	s := secret.Source{Dir: dir, LookupEnv: func(string) (string, bool) { return plain, true }}
	for _, tt := range tests {
		got, err := s.Read(tt.ref)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.ref, err, tt.want)
		}
		if !got.Empty() {
			t.Errorf("%q: got a secret with the error", tt.ref)
		}
	}
	if _, err := s.Read(secret.Ref{File: "missing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not tell that the file is missing", err)
	}
}

// A secret in a ConfigMap or Secret volume is a link to a link.
func TestReadFileThroughLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "..2026", "key"), plain+"\n")
	for link, target := range map[string]string{"..data": "..2026", "key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := secret.Source{Dir: dir}.Read(secret.Ref{File: "key"})
	if err != nil || string(got.Reveal()) != plain {
		t.Errorf("got %d bytes, %v", len(got.Reveal()), err)
	}
}

func TestReadEnv(t *testing.T) {
	environment := map[string]string{"KEY": plain, "LINE": plain + "\n", "EMPTY": "", "BLANK": " \t\n"}
	s := secret.Source{LookupEnv: func(name string) (string, bool) { v, ok := environment[name]; return v, ok }}
	for name, want := range map[string]string{"KEY": plain, "LINE": plain + "\n"} { // a variable has no newline of its own
		got, err := s.Read(secret.Ref{Env: name})
		if err != nil || string(got.Reveal()) != want {
			t.Errorf("%s: got %q, %v", name, got.Reveal(), err)
		}
	}
	for name, want := range map[string]string{
		"MISSING": `the environment variable "MISSING" is not set`,
		"EMPTY":   `the environment variable "EMPTY" is empty`,
		"BLANK":   `the environment variable "BLANK" is empty`,
	} {
		got, err := s.Read(secret.Ref{Env: name})
		if err == nil || err.Error() != want || !got.Empty() {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	t.Setenv("SECRET_TEST_KEY", plain)
	got, err := secret.Source{}.Read(secret.Ref{Env: "SECRET_TEST_KEY"})
	if err != nil || string(got.Reveal()) != plain {
		t.Errorf("from the process: got %d bytes, %v", len(got.Reveal()), err)
	}
}

func TestPath(t *testing.T) {
	s := secret.Source{Dir: "/policies"}
	for file, want := range map[string]string{"key": "/policies/key", "../key": "/key", "/run/secrets/key": "/run/secrets/key"} {
		if got := s.Path(secret.Ref{File: file}); got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
}

func TestWindow(t *testing.T) {
	from := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	to := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		window secret.Window
		t      time.Time
		want   bool
	}{
		{"no bounds", secret.Window{}, from, true},
		{"before", secret.Window{NotBefore: from, NotAfter: to}, from.Add(-1), false},
		{"at its beginning", secret.Window{NotBefore: from, NotAfter: to}, from, true},
		{"within", secret.Window{NotBefore: from, NotAfter: to}, from.AddDate(0, 1, 0), true},
		{"the last moment", secret.Window{NotBefore: from, NotAfter: to}, to.Add(-1), true},
		{"at its end", secret.Window{NotBefore: from, NotAfter: to}, to, false},
		{"after", secret.Window{NotBefore: from, NotAfter: to}, to.Add(1), false},
		{"no beginning", secret.Window{NotAfter: to}, time.Time{}, true},
		{"no beginning, after", secret.Window{NotAfter: to}, to, false},
		{"no end", secret.Window{NotBefore: from}, to.AddDate(100, 0, 0), true},
		{"no end, before", secret.Window{NotBefore: from}, from.Add(-1), false},
		{"empty", secret.Window{NotBefore: from, NotAfter: from}, from, false},
		{"in another zone", secret.Window{NotBefore: from}, from.In(time.FixedZone("", -7*3600)), true},
	}
	for _, tt := range tests {
		if got := tt.window.Contains(tt.t); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// What is no file, or a link to none, is no secret of a folder, whatever it is named; what cannot be a version's name is told apart.
func TestListOfOddFolders(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, filepath.Join(elsewhere, "outside"), plain)
	for _, name := range []string{"key", ".hidden", "..data", "a b", "new\nline", "schlüssel", "-flag", "key~", strings.Repeat("n", 129)} {
		write(t, filepath.Join(dir, name), plain)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "folder"), 0o700), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"to-outside": filepath.Join(elsewhere, "outside"), "to-folder": "folder", "to-pipe": "pipe", "to-device": "/dev/zero", "dangling": "nowhere", "circle": "circle"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	refs, unfit, err := secret.Source{}.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range refs {
		names = append(names, filepath.Base(r.File))
	}
	if diff := cmp.Diff([]string{"circle", "dangling", "key", "to-outside"}, names); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"-flag", "a b", "key~", "new\nline", strings.Repeat("n", 129), "schlüssel"}, unfit); diff != "" {
		t.Errorf("unfit (-want +got):\n%s", diff)
	}
	for i := range 1100 {
		write(t, filepath.Join(dir, ".hidden"+strconv.Itoa(i)), "")
	}
	if _, _, err := (secret.Source{}).List(dir); err == nil || !strings.Contains(err.Error(), "more than 1024 files") {
		t.Errorf("1,100 files: %v", err)
	}
}
