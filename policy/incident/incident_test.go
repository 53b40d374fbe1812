package incident_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy/incident"
)

// place is a Shared in memory that may be away.
type place struct {
	mu   sync.Mutex
	data []byte
	away error
}

func (p *place) LoadIncidents(context.Context) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.data, p.away
}

func (p *place) SwapIncidents(_ context.Context, last, next []byte) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away != nil {
		return false, p.away
	}
	if !bytes.Equal(p.data, last) {
		return false, nil
	}
	p.data = next
	return true, nil
}

func (p *place) set(away error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// server is a Book that runs until its test ends, with what it has put in force.
type server struct {
	*incident.Book
	mu    sync.Mutex
	holds *incident.Snapshot
	log   strings.Builder
}

func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *server) snapshot() *incident.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds
}

// start must be called in a bubble of synctest.
func start(t *testing.T, shared incident.Shared, file string) *server {
	t.Helper()
	return startAhead(t, shared, file, 0)
}

// startAhead is start with a clock that is ahead.
func startAhead(t *testing.T, shared incident.Shared, file string, ahead time.Duration) *server {
	t.Helper()
	s := new(server)
	book, err := incident.Open(t.Context(), incident.Config{
		Apply:  func(next *incident.Snapshot) { s.mu.Lock(); s.holds = next; s.mu.Unlock() },
		Shared: shared, File: file, Logger: slog.New(slog.NewTextHandler(s, nil)), Now: func() time.Time { return time.Now().Add(ahead) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Book = book
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { book.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

func (s *server) do(t *testing.T, a incident.Action) incident.Done {
	t.Helper()
	done, err := s.Do(t.Context(), a)
	if err != nil {
		t.Fatalf("%s: %v", a.Do, err)
	}
	return done
}

var (
	pause   = incident.Action{Do: "pause", Endpoint: "github", For: time.Hour, Why: "leak", By: "alice", Token: "oncall"}
	unpause = incident.Action{Do: "unpause", Endpoint: "github", By: "bob"}
	revoke  = incident.Action{Do: "revoke", Endpoint: "github", Version: "1", Why: "leak"}
	restore = incident.Action{Do: "restore", Endpoint: "github", Version: "1"}
)

func paused(s *server) bool { return time.Now().Before(s.snapshot().PausedUntil("github")) }

// What one server does all of them obey within a second, and it ends by itself.
func TestServersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := new(place)
		a, b := start(t, shared, ""), start(t, shared, "")
		if done := a.do(t, pause); done.Pending != nil || a.Kept() != incident.InStore || !paused(a) {
			t.Errorf("%+v, kept %s, paused %t", done, a.Kept(), paused(a))
		}
		a.do(t, revoke)
		time.Sleep(time.Second)
		if !paused(b) || !b.snapshot().Revoked("github", "1") || b.snapshot().Revoked("github", "2") || b.snapshot().Revoked("gitlab", "1") {
			t.Errorf("a second later the other server holds %+v", b.snapshot())
		}
		// A server that starts later knows it at once.
		if c := start(t, shared, ""); !paused(c) {
			t.Error("a server that starts does not pause")
		}
		b.do(t, unpause)
		b.do(t, restore)
		time.Sleep(time.Second)
		if a.snapshot() != nil {
			t.Errorf("after it was undone the first server holds %+v", a.snapshot())
		}
		if _, err := a.Do(t.Context(), unpause); err == nil {
			t.Error("it is undone twice")
		}
		a.do(t, pause)
		time.Sleep(59 * time.Minute)
		if !paused(b) {
			t.Error("the pause ends too soon")
		}
		time.Sleep(time.Minute + time.Second)
		if paused(a) || paused(b) || len(a.List()) != 0 {
			t.Error("the pause does not end")
		}
		if log := b.log.String(); strings.Count(log, `msg="incident in force"`) != 3 || strings.Count(log, `msg="incident ended"`) != 3 {
			t.Errorf("the log of the other server:\n%s", log)
		}
	})
}

// What is undone on a server whose clock is behind stays undone.
func TestClocksDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := new(place)
		a, b := startAhead(t, shared, "", 10*time.Second), start(t, shared, "")
		for range 3 {
			a.do(t, pause)
			time.Sleep(time.Second)
			b.do(t, unpause)
			time.Sleep(time.Second)
			if a.snapshot() != nil || b.snapshot() != nil {
				t.Fatalf("after it was undone: %v and %v", a.List(), b.List())
			}
		}
	})
}

// While the store is away a server keeps what it knows; what is done then is in force there at once, and everywhere when it is back.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := new(place)
		a, b := start(t, shared, ""), start(t, shared, "")
		a.do(t, pause)
		time.Sleep(time.Second)
		shared.set(errors.New("connection refused"))
		time.Sleep(2 * time.Second)
		if done := a.do(t, revoke); done.Pending == nil || !a.snapshot().Revoked("github", "1") {
			t.Errorf("%+v", done)
		}
		if done := b.do(t, unpause); done.Pending == nil || paused(b) {
			t.Errorf("%+v", done)
		}
		time.Sleep(2 * time.Second)
		if !paused(a) || b.snapshot().Revoked("github", "1") {
			t.Error("they know what they cannot know")
		}
		shared.set(nil)
		time.Sleep(2 * time.Second)
		if paused(a) || !b.snapshot().Revoked("github", "1") || a.Pending() != nil || b.Pending() != nil {
			t.Errorf("after the store came back: %+v and %+v", a.List(), b.List())
		}
		// What the store loses is written again.
		shared.mu.Lock()
		shared.data = nil
		shared.mu.Unlock()
		time.Sleep(time.Second)
		if c := start(t, shared, ""); !c.snapshot().Revoked("github", "1") {
			t.Error("what the store lost is not written again")
		}
		if n := strings.Count(a.log.String(), "cannot be asked for incidents"); n != 1 {
			t.Errorf("it is logged %d times that the store is away:\n%s", n, a.log.String())
		}
	})
}

// What cannot be read is not overwritten, and what is known stays in force.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := new(place)
		a := start(t, shared, "")
		a.do(t, pause)
		shared.mu.Lock()
		shared.data = []byte(`{"version":2}`)
		shared.mu.Unlock()
		time.Sleep(2 * time.Second)
		done := a.do(t, revoke)
		if done.Pending == nil || !strings.Contains(done.Pending.Error(), "it has the version 2") || !paused(a) || !a.snapshot().Revoked("github", "1") {
			t.Errorf("%+v", done)
		}
		if string(shared.data) != `{"version":2}` {
			t.Errorf("it was overwritten: %s", shared.data)
		}
	})
}

// However servers act, lose the store and find it again, they agree in the end.
func TestServersConverge(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"pause", "unpause", "revoke", "restore", "away", "back", "lost", "wait"}), 1, 30).Draw(r, "steps")
		who := rapid.SliceOfN(rapid.IntRange(0, 2), len(steps), len(steps)).Draw(r, "who")
		var lists []string
		synctest.Test(t, func(t *testing.T) {
			shared := new(place)
			servers := []*server{start(t, shared, ""), start(t, shared, ""), start(t, shared, "")}
			for i, step := range steps {
				s := servers[who[i]]
				switch step {
				case "away":
					shared.set(errors.New("away"))
				case "back":
					shared.set(nil)
				case "lost":
					shared.mu.Lock()
					shared.data = nil
					shared.mu.Unlock()
				case "wait":
					time.Sleep(2 * time.Second)
				default:
					for _, a := range []incident.Action{pause, unpause, revoke, restore} {
						if a.Do == step {
							_, _ = s.Do(t.Context(), a) // there may be nothing to undo
						}
					}
				}
			}
			shared.set(nil)
			time.Sleep(3 * time.Second)
			for _, s := range servers {
				lists = append(lists, fmt.Sprint(s.List()))
				if (s.snapshot() == nil) != (len(s.List()) == 0) {
					t.Errorf("it lists %v and holds %+v", s.List(), s.snapshot())
				}
			}
		})
		if len(slices.Compact(slices.Clone(lists))) != 1 {
			r.Fatalf("they disagree:\n%s", strings.Join(lists, "\n"))
		}
	})
}

// A file keeps what is in force over a restart.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state.json")
		a := start(t, nil, file)
		if done := a.do(t, pause); done.Pending != nil || a.Kept() != incident.InFile {
			t.Errorf("%+v, kept %s", done, a.Kept())
		}
		a.do(t, revoke)
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("the file: %v, %v; want the mode 0600", info, err)
		}
		b := start(t, nil, file)
		if !paused(b) || !b.snapshot().Revoked("github", "1") || !slices.Equal(a.List(), b.List()) {
			t.Errorf("after a restart %+v, want %+v", b.List(), a.List())
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*"))
		if err != nil || len(left) > 0 {
			t.Errorf("files are left: %q, %v", left, err)
		}
		// A file that cannot be written any more does not undo what is in force, and is tried again.
		os.RemoveAll(filepath.Dir(file))
		if done := b.do(t, unpause); done.Pending == nil || paused(b) {
			t.Errorf("%+v", done)
		}
		if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if b.Pending() != nil {
			t.Errorf("it is not tried again: %v", b.Pending())
		}
	})
}

func TestBadFiles(t *testing.T) {
	good := `{"kind":"pause","endpoint":"x","since":"2026-11-26T08:00:00Z","until":"2026-11-26T09:00:00Z","by":"","token":"t","why":"w","changed":"2026-11-26T08:00:00Z"}`
	tests := []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"not JSON", "{", "after byte 0: unexpected EOF"},
		{"not ours", `[]`, "cannot unmarshal array"},
		{"unknown field", `{"version":1,"incidents":[],"x":1}`, `unknown field "x"`},
		{"unknown field of an incident", `{"version":1,"incidents":[` + strings.Replace(good, `"by"`, `"bye"`, 1) + `]}`, `unknown field "bye"`},
		{"no version", `{"incidents":[]}`, "it has the version 0; this program knows 1"},
		{"another version", `{"version":2,"incidents":[]}`, "it has the version 2"},
		{"more behind it", `{"version":1,"incidents":[]}{}`, "something follows the object"},
		{"twice the same", `{"version":1,"incidents":[` + good + "," + good + `]}`, "incident 2: there are two of x"},
		{"unknown kind", `{"version":1,"incidents":[` + strings.Replace(good, "pause", "stop", 1) + `]}`, `incident 1: there is no kind "stop"`},
		{"no endpoint", `{"version":1,"incidents":[` + strings.Replace(good, `"endpoint":"x",`, "", 1) + `]}`, "incident 1: the endpoint is missing"},
		{"a version too many", `{"version":1,"incidents":[` + strings.Replace(good, `"since"`, `"version":"1","since"`, 1) + `]}`, "a pause has no version"},
		{"an address too many", `{"version":1,"incidents":[` + strings.Replace(good, `"since"`, `"address":"192.0.2.1/32","since"`, 1) + `]}`, "a block has an address, and nothing else has"},
		{"no end", `{"version":1,"incidents":[` + strings.Replace(good, `"until":"2026-11-26T09:00:00Z",`, "", 1) + `]}`, "it ends before it begins"},
		{"for years", `{"version":1,"incidents":[` + strings.Replace(good, `"until":"2026`, `"until":"2027`, 1) + `]}`, "it lasts longer than 30 days"},
		{"no moment", `{"version":1,"incidents":[` + strings.Replace(good, `"changed":"2026`, `"changed":"2025`, 1) + `]}`, "it was changed before it began"},
		{"a terminal's escape", `{"version":1,"incidents":[` + strings.Replace(good, `"why":"w`, `"why":"\u001b[2J`, 1) + `]}`, "what cannot be printed"},
		{"large", strings.Repeat(" ", 5<<20), "it has more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := incident.Open(t.Context(), incident.Config{Apply: func(*incident.Snapshot) {}, File: file, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != tt.text {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestBadActions(t *testing.T) {
	long := strings.Repeat("x", 501)
	tests := []struct {
		name string
		a    incident.Action
		code string
	}{
		{"nothing", incident.Action{}, "action"},
		{"unknown", incident.Action{Do: "explode", Endpoint: "x"}, "action"},
		{"no endpoint", incident.Action{Do: "pause", For: time.Hour, Why: "w"}, "endpoint"},
		{"no time", incident.Action{Do: "pause", Endpoint: "x", Why: "w"}, "for"},
		{"too long", incident.Action{Do: "pause", Endpoint: "x", Why: "w", For: 30*24*time.Hour + 1}, "for"},
		{"too short", incident.Action{Do: "pause", Endpoint: "x", Why: "w", For: time.Millisecond}, "for"},
		{"backwards", incident.Action{Do: "pause", Endpoint: "x", Why: "w", For: -time.Hour}, "for"},
		{"no reason", incident.Action{Do: "pause", Endpoint: "x", For: time.Hour, Why: " "}, "why"},
		{"long reason", incident.Action{Do: "pause", Endpoint: "x", For: time.Hour, Why: long}, "why"},
		{"two lines", incident.Action{Do: "pause", Endpoint: "x", For: time.Hour, Why: "a\nlevel=ERROR"}, "why"},
		{"long endpoint", incident.Action{Do: "pause", Endpoint: long, For: time.Hour, Why: "w"}, "endpoint"},
		{"pause of a version", incident.Action{Do: "pause", Endpoint: "x", Version: "1", For: time.Hour, Why: "w"}, "version"},
		{"no version", incident.Action{Do: "revoke", Endpoint: "x", Why: "w"}, "version"},
		{"revoked for a time", incident.Action{Do: "revoke", Endpoint: "x", Version: "1", For: time.Hour, Why: "w"}, "for"},
		{"undone for a time", incident.Action{Do: "unpause", Endpoint: "x", For: time.Hour}, "for"},
		{"no address", incident.Action{Do: "block", For: time.Hour, Why: "w"}, "address"},
		{"block of an endpoint", incident.Action{Do: "block", Endpoint: "x", Address: netip.MustParsePrefix("192.0.2.1/32"), For: time.Hour, Why: "w"}, "endpoint"},
		{"everybody", incident.Action{Do: "block", Address: netip.MustParsePrefix("0.0.0.0/0"), For: time.Hour, Why: "w"}, "address"},
		{"host bits", incident.Action{Do: "block", Address: netip.MustParsePrefix("192.0.2.1/24"), For: time.Hour, Why: "w"}, "address"},
		{"nothing to undo", incident.Action{Do: "restore", Endpoint: "x", Version: "1"}, "not_in_force"},
	}
	book, err := incident.Open(t.Context(), incident.Config{Apply: func(*incident.Snapshot) { t.Error("something came into force") }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		_, err := book.Do(t.Context(), tt.a)
		if r, ok := incident.IsRefused(err); !ok || r.Code != tt.code || r.Problem == "" {
			t.Errorf("%s: %v, want a refusal %s", tt.name, err, tt.code)
		}
	}
}

// A sender on the machine of Envoy can be blocked like any other.
func TestBlockLoopback(t *testing.T) {
	var held *incident.Snapshot
	book, err := incident.Open(t.Context(), incident.Config{Apply: func(s *incident.Snapshot) { held = s }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Do(t.Context(), incident.Action{Do: "block", Address: netip.MustParsePrefix("127.0.0.9/32"), For: time.Hour, Why: "w"}); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{"127.0.0.9": true, "::ffff:127.0.0.9": true, "127.0.0.1": false} {
		if got := held.Blocked(netip.MustParseAddr(address), time.Now()); got != want {
			t.Errorf("%s blocked: %t, want %t", address, got, want)
		}
	}
}

// There are not more than can be kept.
func TestTooMany(t *testing.T) {
	book, err := incident.Open(t.Context(), incident.Config{Apply: func(*incident.Snapshot) {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	block := func(n int) error {
		_, err := book.Do(t.Context(), incident.Action{Do: "block", Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 32), For: time.Hour, Why: "w"})
		return err
	}
	for n := range incident.MaxInForce {
		if err := block(n); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
	if r, ok := incident.IsRefused(block(incident.MaxInForce)); !ok || r.Code != "too_many" {
		t.Error("there is one too many")
	}
	if err := block(0); err != nil {
		t.Errorf("one that is in force cannot be made longer: %v", err)
	}
}

// The longest match knows the end of the ranges around it.
func TestBlockedLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type block struct {
			prefix netip.Prefix
			until  time.Time
		}
		begin := time.Now()
		var holds *incident.Snapshot
		now := begin
		book, err := incident.Open(context.Background(), incident.Config{Apply: func(s *incident.Snapshot) { holds = s }, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		last := make(map[netip.Prefix]block)
		for range rapid.IntRange(0, 12).Draw(t, "blocks") {
			p, err := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "byte")}).Prefix(rapid.IntRange(8, 32).Draw(t, "bits"))
			if err != nil {
				t.Fatal(err)
			}
			minutes := time.Duration(rapid.IntRange(1, 5).Draw(t, "minutes")) * time.Minute
			if _, err := book.Do(context.Background(), incident.Action{Do: "block", Address: p, For: minutes, Why: "w"}); err != nil {
				t.Fatal(err)
			}
			last[p] = block{p, begin.Add(minutes)}
		}
		a := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address")})
		at := begin.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, "at")) * time.Minute)
		want := false
		for _, b := range last {
			want = want || b.prefix.Contains(a) && at.Before(b.until)
		}
		if got := holds.Blocked(a, at); got != want {
			t.Fatalf("%s after %s: %t, want %t of %v", a, at.Sub(begin), got, want, last)
		}
		if got := holds.Blocked(netip.AddrFrom16(a.As16()), at); got != want {
			t.Fatalf("as IPv4 in IPv6: %t, want %t", got, want)
		}
	})
}

// Nothing in force costs nothing.
func TestNothingInForce(t *testing.T) {
	var s *incident.Snapshot
	if n := testing.AllocsPerRun(100, func() {
		if !s.PausedUntil("x").IsZero() || s.Revoked("x", "1") || s.Blocked(netip.IPv6Loopback(), time.Time{}) {
			t.Error("something is in force")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"incidents":[{"kind":"pause","endpoint":"x","since":"2026-11-26T08:00:00Z","until":"2026-11-26T09:00:00Z","by":"","token":"t","why":"w","changed":"2026-11-26T08:00:00Z"}]}`))
	f.Add([]byte(`{"version":1,"incidents":[{"kind":"block","address":"192.0.2.0/24","since":"2026-11-26T08:00:00Z","until":"2026-11-26T09:00:00Z","by":"","token":"t","why":"w","changed":"2026-11-26T08:00:00Z","undone":true}]}`))
	f.Add([]byte(`{"version":1}`))
	now := time.Date(2026, 11, 26, 8, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		open := func() (*incident.Book, error) {
			return incident.Open(t.Context(), incident.Config{Apply: func(*incident.Snapshot) {}, File: file, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
		}
		one, err := open()
		if err != nil {
			return
		}
		// What was written is what was read.
		two, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fmt.Sprint(one.List()), fmt.Sprint(two.List()); a != b {
			t.Fatalf("read %s, then %s", a, b)
		}
	})
}
