package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var moment = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

// running is a Log whose Run has not ended.
type running struct {
	*Log
	log  *lockedBuffer
	stop func()
}

func run(t *testing.T, path string) *running {
	t.Helper()
	r := &running{log: new(lockedBuffer)}
	var err error
	r.Log, err = Open(Config{Path: path, Now: func() time.Time { return moment }, Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }()
	r.stop = func() { once.Do(func() { cancel(); <-ended }) }
	t.Cleanup(r.stop)
	return r
}

func (r *running) record(t *testing.T, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if err := r.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// decision is the nth delivery.
func decision(n int) Entry {
	return Entry{Time: moment.Add(time.Duration(n) * time.Second), Kind: Decision, Endpoint: "github", SecretVersion: fmt.Sprint(n % 3), Decision: []string{"allow", "deny"}[n%2], DeliveryID: fmt.Sprint("id-", n)}
}

// written is a file with n lines, and its path.
func written(t *testing.T, n int) (path string, lines []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.jsonl")
	r := run(t, path)
	for i := range n {
		r.record(t, decision(i))
	}
	r.stop()
	return path, slices.Collect(strings.Lines(read1(t, path)))
}

func read1(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func put(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// verify reads files with the head beside the last one.
func verify(t *testing.T, paths ...string) Report {
	t.Helper()
	kept, err := ReadHead(paths[len(paths)-1])
	if err != nil {
		t.Fatal(err)
	}
	v := NewVerifier()
	for _, p := range paths {
		if err := v.Read(filepath.Base(p), strings.NewReader(read1(t, p))); err != nil {
			t.Fatal(err)
		}
	}
	return v.Report(kept)
}

func TestIntact(t *testing.T) {
	path, lines := written(t, 5)
	report := verify(t, path)
	if len(report.Faults) != 0 || report.Lines != 5 || report.Head.Seq != 5 || report.First != 1 || !report.Anchored {
		t.Errorf("%+v", report)
	}
	if !strings.HasPrefix(lines[0], `{"seq":1,"time":"2026-11-26T08:00:00Z","kind":"decision","endpoint":"github","secret_version":"0","decision":"allow","delivery_id":"id-0","prev":"000`) {
		t.Errorf("the first line: %s", lines[0])
	}
	for _, p := range []string{path, path + ".head"} {
		info, err := os.Stat(p)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want the mode 0600", p, info.Mode(), err)
		}
	}
	// It goes on after a restart.
	r := run(t, path)
	r.record(t, decision(5))
	r.stop()
	if report := verify(t, path); len(report.Faults) != 0 || report.Head.Seq != 6 || r.log.String() != "" {
		t.Errorf("after a restart: %+v\n%s", report, r.log)
	}
}

// Whatever is done to a file is found, with the line.
func TestTampering(t *testing.T) {
	forged := func(lines []string, at int, change func(*Entry)) string {
		e, err := read([]byte(lines[at]))
		if err != nil {
			t.Fatal(err)
		}
		before := Head{e.Seq - 1, e.Prev}
		change(&e)
		text, _, err := before.line(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	tests := []struct {
		name   string
		change func(l []string) []string
		line   int
		want   string
	}{
		{"first line removed", func(l []string) []string { return l[1:] }, 1, "before it 1 line is missing"},
		{"line removed", func(l []string) []string { return slices.Delete(l, 4, 5) }, 5, "before it 1 line is missing: number 6 after 4"},
		{"lines removed", func(l []string) []string { return slices.Delete(l, 4, 7) }, 5, "before it 3 lines are missing"},
		{"last line removed", func(l []string) []string { return l[:9] }, 10, "at the end 1 line is missing: the newest was number 10"},
		{"cut off within a line", func(l []string) []string { l[9] = l[9][:50]; return l }, 10, "it is cut off"},
		{"the newline cut off", func(l []string) []string { l[9] = strings.TrimSuffix(l[9], "\n"); return l }, 10, "it is cut off"},
		{"emptied", func([]string) []string { return nil }, 1, "at the end 10 lines are missing"},
		{"changed", func(l []string) []string { l[3] = strings.Replace(l[3], "deny", "allow", 1); return l }, 4, "it was changed"},
		{"its hash changed", func(l []string) []string { l[3] = l[3][:len(l[3])-5] + "0000" + l[3][len(l[3])-3:]; return l }, 4, ""},
		{"a blank added", func(l []string) []string { l[3] = strings.Replace(l[3], ",", ", ", 1); return l }, 4, "it was changed"},
		{"a key twice", func(l []string) []string {
			l[3] = strings.Replace(l[3], `"kind"`, `"kind":"x","kind"`, 1)
			return l
		}, 4, "it was changed"},
		{"changed with its hash", func(l []string) []string { l[3] = forged(l, 3, func(e *Entry) { e.Decision = "allow" }); return l }, 5, "it does not follow the line before it"},
		{"the last one changed with its hash", func(l []string) []string { l[9] = forged(l, 9, func(e *Entry) { e.Decision = "allow" }); return l }, 11, "is missing"},
		{"moved", func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, 4, "before it 1 line is missing"},
		{"repeated", func(l []string) []string { return slices.Insert(l, 4, l[3]) }, 5, "it is out of order or there twice: number 4 after 4"},
		{"put there", func(l []string) []string { return slices.Insert(l, 4, forged(l, 4, func(e *Entry) { e.Why = "x" })) }, 6, "out of order or there twice"},
		{"put there before the first, as number 0", func(l []string) []string {
			zeroth, _, err := Head{math.MaxUint64, noHash}.line(Entry{Time: moment, Kind: Action, Why: "x"})
			if err != nil || !strings.HasPrefix(string(zeroth), `{"seq":0,`) {
				t.Fatal(string(zeroth), err)
			}
			return slices.Insert(l, 0, string(zeroth))
		}, 1, "it is no line of an audit file"},
		{"an empty line", func(l []string) []string { return slices.Insert(l, 4, "\n") }, 5, "it is no line of an audit file"},
		{"something else", func(l []string) []string { return slices.Insert(l, 4, "hello\n") }, 5, "it is no line of an audit file"},
		{"a line without end", func(l []string) []string { return slices.Insert(l, 4, strings.Repeat("x", 3*maxLine)+"\n") }, 5, "it has more than"},
		{"NUL bytes", func(l []string) []string { return append(l, strings.Repeat("\x00", 100)) }, 11, "it is cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, lines := written(t, 10)
			head := keptHead(t, path)
			put(t, path, tt.change(lines)...)
			v := NewVerifier(head.Hash)
			if err := v.Read("f", strings.NewReader(read1(t, path))); err != nil {
				t.Fatal(err)
			}
			report := v.Report(&head)
			if len(report.Faults) == 0 || report.Faults[0].Line != tt.line || !strings.Contains(report.Faults[0].Problem, tt.want) {
				t.Errorf("got %v, want line %d: %s", report.Faults, tt.line, tt.want)
			}
		})
	}
}

// keptHead is the head that is kept beside a file.
func keptHead(t *testing.T, path string) Head {
	t.Helper()
	kept, err := ReadHead(path)
	if err != nil || kept == nil {
		t.Fatal(kept, err)
	}
	return *kept
}

// Every byte counts: one that is flipped is found.
func TestEveryByteCounts(t *testing.T) {
	path, _ := written(t, 3)
	text := []byte(read1(t, path))
	head := keptHead(t, path)
	for i := range text {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		v := NewVerifier()
		if err := v.Read("f", bytes.NewReader(changed)); err != nil {
			t.Fatal(err)
		}
		if report := v.Report(&head); len(report.Faults) == 0 {
			t.Fatalf("byte %d (%q) changed and not found", i, text[i])
		}
	}
}

// What is wrong when the server starts is told in a line, and never hidden by going on.
func TestResume(t *testing.T) {
	tests := []struct {
		name    string
		change  func(t *testing.T, path string, lines []string)
		problem string // of the line that tells it
		intact  bool   // apart from that line nothing is wrong
	}{
		{"a crash within a line", func(t *testing.T, p string, l []string) { put(t, p, append(l, l[0][:40])...) }, "the last line was cut off: its 40 bytes were removed", true},
		{"a crash before the head was kept", func(t *testing.T, p string, l []string) {
			e, _ := read([]byte(l[3]))
			put(t, p+".head", fmt.Sprintf("%020d %s\n", e.Seq, e.Hash))
		}, "", true},
		{"the newest lines cut off", func(t *testing.T, p string, l []string) { put(t, p, l[:3]...) }, "at the end 2 lines are missing", false},
		{"the last line changed", func(t *testing.T, p string, l []string) {
			l[4] = strings.Replace(l[4], "allow", "deny", 1)
			put(t, p, l...)
		}, "the last line is not what was written", false},
		{"the head is missing", func(t *testing.T, p string, _ []string) { os.Remove(p + ".head") }, "the head that is kept beside the file is missing", true},
		{"the head is something else", func(t *testing.T, p string, _ []string) { put(t, p+".head", "x") }, "is not what was written there", true},
		{"moved away while it was down", func(t *testing.T, p string, _ []string) { os.Rename(p, p+".1") }, "", true},
		{"another file", func(t *testing.T, p string, _ []string) { put(t, p, "hello\n") }, "the last line is not what was written", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, lines := written(t, 5)
			tt.change(t, path, lines)
			r := run(t, path)
			r.record(t, decision(7))
			r.stop()
			text := read1(t, path)
			if told := strings.Contains(text, `"kind":"damaged"`); told != (tt.problem != "") || !strings.Contains(text, tt.problem) {
				t.Errorf("the file tells %t, want %q:\n%s", told, tt.problem, text)
			}
			if tt.problem != "" && !strings.Contains(r.log.String(), "the audit file is damaged") {
				t.Errorf("the log: %s", r.log)
			}
			if report := verify(t, path); (len(report.Faults) == 0) != tt.intact {
				t.Errorf("intact: %v, want %t", report.Faults, tt.intact)
			}
		})
	}
}

// A file that is moved away is followed by another one, and the chain goes on.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	r := run(t, path)
	r.record(t, decision(1), decision(2))
	r.Reopen() // nothing was moved
	r.record(t, decision(3))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	r.record(t, decision(4))
	r.Reopen()
	for deadline := time.After(10 * time.Second); ; {
		if _, err := os.Stat(path); err == nil {
			break
		}
		select {
		case <-deadline:
			t.Fatal("no new file")
		case <-time.After(time.Millisecond):
		}
	}
	r.record(t, decision(5))
	r.stop()
	if report := verify(t, path+".1", path); len(report.Faults) != 0 || report.Head.Seq != 6 || report.Lines != 6 {
		t.Errorf("both: %+v", report)
	}
	if report := verify(t, path); len(report.Faults) != 0 || report.First != 5 {
		t.Errorf("the second alone: %+v", report)
	}
	if report := verify(t, path, path+".1"); len(report.Faults) == 0 {
		t.Errorf("in the wrong order: %+v", report)
	}
}

// A second server does not write to the same file.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	run(t, path)
	if _, err := Open(Config{Path: path, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "another server writes to it") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(Config{Path: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a folder is opened")
	}
}

// A disk that takes nothing loses lines, says so, and goes on afterwards; the chain stays whole.
func TestCannotWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var log lockedBuffer
	failed, lost := 0, 0
	l, err := Open(Config{Path: path, Now: func() time.Time { return moment }, Logger: slog.New(slog.NewTextHandler(&log, nil)), Failed: func() { failed++ }, Lost: func(n int) { lost += n }})
	if err != nil {
		t.Fatal(err)
	}
	l.take(noted{entry: decision(1)})
	good := l.file
	if l.file, err = os.Open(path); err != nil { // for reading only
		t.Fatal(err)
	}
	done := make(chan error, 1)
	l.take(noted{decision(2), done})
	l.take(noted{entry: decision(3)})
	l.tellLost()
	if err := <-done; !errors.Is(err, fs.ErrPermission) && err == nil {
		t.Errorf("a line that was not written: %v", err)
	}
	l.file.Close()
	l.file = good
	l.take(noted{entry: decision(4)})
	if err := l.sync(); err != nil {
		t.Fatal(err)
	}
	l.close()
	text := read1(t, path)
	if !strings.Contains(text, `"kind":"dropped","count":2`) || strings.Contains(text, "id-2") || !strings.Contains(text, "id-4") {
		t.Errorf("the file:\n%s", text)
	}
	if report := verify(t, path); len(report.Faults) != 0 || report.Lines != 3 {
		t.Errorf("%+v", report)
	}
	if failed == 0 || lost != 2 || strings.Count(log.String(), "lines are lost until it can") != 1 || strings.Count(log.String(), "can be written again") != 1 {
		t.Errorf("%d failures, %d lost, and the log:\n%s", failed, lost, log.String())
	}
}

// Note never waits: what finds no place is counted in a line.
func TestQueueIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Open(Config{Path: path, Now: func() time.Time { return moment }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for n := range queueLength + 7 { // nobody writes yet
		l.Note(decision(n))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Run(ctx)
	if text := read1(t, path); !strings.Contains(text, `"kind":"dropped","count":7`) || strings.Count(text, `"kind":"decision"`) != queueLength {
		t.Errorf("%d lines", strings.Count(text, "\n"))
	}
	if report := verify(t, path); len(report.Faults) != 0 {
		t.Errorf("%+v", report)
	}
	if err := l.Record(t.Context(), decision(1)); err == nil {
		t.Error("a closed file takes lines")
	}
}

func TestFind(t *testing.T) {
	path, lines := written(t, 12)
	text := strings.Join(lines, "")
	tests := []struct {
		name string
		q    Query
		want int
	}{
		{"all", Query{}, 12},
		{"an endpoint", Query{Endpoint: "github"}, 12},
		{"another", Query{Endpoint: "git"}, 0},
		{"a version", Query{SecretVersion: "2"}, 4},
		{"a decision", Query{Decision: "deny"}, 6},
		{"both", Query{SecretVersion: "2", Decision: "allow"}, 2},
		{"since", Query{Since: moment.Add(10 * time.Second)}, 2},
		{"until", Query{Until: moment.Add(10 * time.Second)}, 10},
		{"a kind", Query{Kind: Action}, 0},
		{"a delivery id is no endpoint", Query{Endpoint: "id-1"}, 0},
	}
	for _, tt := range tests {
		got := 0
		found, err := Find(strings.NewReader(text), tt.q, func(Entry, []byte) error { got++; return nil })
		if got != tt.want || err != nil || found.Unread != 0 || found.End != int64(len(text)) {
			t.Errorf("%s: %d, %+v, %v; want %d", tt.name, got, found, err, tt.want)
		}
	}
	// It can be ended and gone on with.
	got := ""
	for end := int64(0); end < int64(len(text)); {
		found, err := Find(strings.NewReader(text[end:]), Query{Decision: "deny"}, func(e Entry, _ []byte) error { got += e.DeliveryID + " "; return ErrEnough })
		if err != nil {
			t.Fatal(err)
		}
		end += found.End
	}
	if got != "id-1 id-3 id-5 id-7 id-9 id-11 " {
		t.Errorf("in parts: %s", got)
	}
	found, err := Find(strings.NewReader(lines[0]+"hello\n"+strings.Repeat("x", 2*maxLine)+"\n"+lines[1][:30]), Query{}, func(Entry, []byte) error { return nil })
	if err != nil || found.Unread != 2 || found.End != int64(len(lines[0])+6+2*maxLine+1) {
		t.Errorf("what cannot be read: %+v, %v", found, err)
	}
	// One that is too long to be under way hides nothing that follows it, also where only a part is read.
	endless := lines[0] + strings.Repeat("x", 2*maxLine)
	found, err = Find(strings.NewReader(endless), Query{}, func(Entry, []byte) error { return nil })
	if err != nil || found.Unread != 1 || found.End != int64(len(endless)) {
		t.Errorf("a line without end: %+v, %v", found, err)
	}
	_ = path
}

// A head that names no line anchors nothing.
func TestHeadOfNothing(t *testing.T) {
	v := NewVerifier()
	if err := v.Read("f", strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if r := v.Report(&Head{0, noHash}); r.Anchored {
		t.Errorf("%+v", r)
	}
}

// Whatever a file holds, it is read without fault of ours; what is intact is what can be written.
func FuzzVerify(f *testing.F) {
	head := beginning
	var good []byte
	for n := range 3 {
		text, next, err := head.line(decision(n))
		if err != nil {
			f.Fatal(err)
		}
		good, head = append(good, text...), next
	}
	f.Add(good)
	f.Add(good[:len(good)-10])
	f.Add([]byte("{\"seq\":1,\"hash\":\"\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v := NewVerifier()
		if err := v.Read("f", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		report := v.Report(nil)
		entries := 0
		found, err := Find(bytes.NewReader(data), Query{}, func(Entry, []byte) error { entries++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Faults) == 0 && (entries != report.Lines || found.Unread != 0) {
			t.Fatalf("%d lines are intact and %d can be read", report.Lines, entries)
		}
		if entries+found.Unread > report.Lines {
			t.Fatalf("%d and %d of %d lines", entries, found.Unread, report.Lines)
		}
	})
}

// lockedBuffer is a buffer that goroutines share.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
