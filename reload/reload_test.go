package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

// tree is a folder to change as deployments do.
type tree struct {
	t    *testing.T
	root string
}

func (f tree) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

func (f tree) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f tree) write(name, text string) {
	f.t.Helper()
	f.check(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.check(os.WriteFile(f.path(name), []byte(text), 0o644))
}

func (f tree) link(target, name string) {
	f.t.Helper()
	f.check(os.Symlink(target, f.path(name)))
}

func (f tree) rename(from, to string) { f.t.Helper(); f.check(os.Rename(f.path(from), f.path(to))) }
func (f tree) remove(name string)     { f.t.Helper(); f.check(os.RemoveAll(f.path(name))) }

// watched are the files besides those of policies: a secret, a folder of them with what was in it, and an empty folder.
func (f tree) watched() []string {
	return []string{f.path("secrets/key"), f.path("keys"), f.path("keys/old"), f.path("empty")}
}

// start makes policies/a.yaml, policies/b.yml, secrets/key and, as Kubernetes lays it out, mounted/m.yaml and keys/old, all of them watched.
func start(t *testing.T) tree {
	f := tree{t, t.TempDir()}
	f.write("policies/a.yaml", "one")
	f.write("policies/b.yml", "two")
	f.write("secrets/key", "secret")
	f.write("mounted/..2026_1/m.yaml", "one")
	f.link("..2026_1", "mounted/..data")
	f.link("..data/m.yaml", "mounted/m.yaml")
	f.write("keys/..2026_1/old", "secret")
	f.link("..2026_1", "keys/..data")
	f.link("..data/old", "keys/old")
	f.check(os.Mkdir(f.path("empty"), 0o755))
	return f
}

var (
	policies = Change{Policies: true}
	secrets  = Change{Secrets: true}
)

// changes holds what may happen to files and what a watcher must say of it.
var changes = []struct {
	name string
	dir  string // the policy folder; "policies" where empty
	do   func(f tree)
	want []Change
}{
	{name: "nothing", do: func(f tree) {}},
	{name: "written again with the same bytes", do: func(f tree) { f.write("policies/a.yaml", "one") }},
	{name: "changed", do: func(f tree) { f.write("policies/a.yaml", "ONE") }, want: []Change{policies}},
	{name: "new file", do: func(f tree) { f.write("policies/c.yaml", "") }, want: []Change{policies}},
	{name: "new file of another kind", do: func(f tree) { f.write("policies/readme.md", "hello") }},
	{name: "hidden file", do: func(f tree) { f.write("policies/.a.yaml", "half") }},
	{name: "deleted file", do: func(f tree) { f.remove("policies/a.yaml") }, want: []Change{policies}},
	{name: "renamed file", do: func(f tree) { f.rename("policies/a.yaml", "policies/z.yaml") }, want: []Change{policies}},
	{name: "bytes moved to the next file", do: func(f tree) {
		f.write("policies/a.yaml", "onet")
		f.write("policies/b.yml", "wo")
	}, want: []Change{policies}},
	{name: "atomic rename", do: func(f tree) {
		f.write("policies/.a.yaml.tmp", "ONE")
		f.rename("policies/.a.yaml.tmp", "policies/a.yaml")
	}, want: []Change{policies}},
	{name: "folder deleted", do: func(f tree) { f.remove("policies") }, want: []Change{policies}},
	{name: "folder emptied", do: func(f tree) { f.remove("policies/a.yaml"); f.remove("policies/b.yml") }, want: []Change{policies}},
	{name: "folder replaced", do: func(f tree) {
		f.write("next/a.yaml", "ONE")
		f.rename("policies", "old")
		f.rename("next", "policies")
	}, want: []Change{policies}},
	{name: "a pipe in the folder", do: func(f tree) {
		f.check(syscall.Mkfifo(f.path("policies/pipe.yaml"), 0o600))
	}, want: []Change{policies}},
	{name: "secret changed", do: func(f tree) { f.write("secrets/key", "SECRET") }, want: []Change{secrets}},
	{name: "secret deleted", do: func(f tree) { f.remove("secrets/key") }, want: []Change{secrets}},
	{name: "secret emptied", do: func(f tree) { f.write("secrets/key", "") }, want: []Change{secrets}},
	{name: "secret replaced by a folder", do: func(f tree) { f.remove("secrets/key"); f.write("secrets/key/x", "") }, want: []Change{secrets}},
	{name: "file beside the secret", do: func(f tree) { f.write("secrets/other", "x") }},
	{name: "new file in a folder of secrets", do: func(f tree) { f.write("keys/new", "x") }, want: []Change{secrets}},
	{name: "first file in a folder of secrets", do: func(f tree) { f.write("empty/new", "x") }, want: []Change{secrets}},
	{name: "hidden file in a folder of secrets", do: func(f tree) { f.write("keys/.new", "x") }},
	{name: "file in a folder of secrets changed", do: func(f tree) { f.write("keys/..2026_1/old", "SECRET") }, want: []Change{secrets}},
	{name: "link in a folder of secrets leads nowhere", do: func(f tree) { f.remove("keys/..2026_1/old") }, want: []Change{secrets}},
	{name: "folder of secrets emptied", do: func(f tree) { f.remove("keys/old") }, want: []Change{secrets}},
	{name: "folder of secrets deleted", do: func(f tree) { f.remove("keys") }, want: []Change{secrets}},
	{name: "Secret swap", do: func(f tree) {
		f.write("keys/..2026_2/old", "secret")
		f.write("keys/..2026_2/new", "x")
		f.link("..2026_2", "keys/..data_tmp")
		f.rename("keys/..data_tmp", "keys/..data")
		f.link("..data/new", "keys/new")
		f.remove("keys/..2026_1")
	}, want: []Change{secrets}},
	{name: "both", do: func(f tree) {
		f.write("policies/a.yaml", "ONE")
		f.write("secrets/key", "SECRET")
	}, want: []Change{{Policies: true, Secrets: true}}},
	{name: "ConfigMap swap", dir: "mounted", do: func(f tree) {
		f.write("mounted/..2026_2/m.yaml", "two")
		f.link("..2026_2", "mounted/..data_tmp")
		f.rename("mounted/..data_tmp", "mounted/..data")
		f.remove("mounted/..2026_1")
	}, want: []Change{policies}},
	{name: "ConfigMap swap to the same bytes", dir: "mounted", do: func(f tree) {
		f.write("mounted/..2026_2/m.yaml", "one")
		f.link("..2026_2", "mounted/..data_tmp")
		f.rename("mounted/..data_tmp", "mounted/..data")
		f.remove("mounted/..2026_1")
	}},
	{name: "folder behind a link", dir: "current", do: func(f tree) {
		f.write("release-2/a.yaml", "ONE")
		f.link("release-2", "current_tmp")
		f.rename("current_tmp", "current")
	}, want: []Change{policies}},
}

// record collects changes.
type record struct {
	mu   sync.Mutex
	list []Change
}

func (r *record) changed(_ context.Context, c Change) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, c)
	return true
}

func (r *record) all() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Change(nil), r.list...)
}

func noEvents() (*fsnotify.Watcher, error) { return nil, errors.New("no events here") }

// run runs w until the test ends.
func run(t *testing.T, w *Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// In each of these the clock is synctest's: what takes 4 s takes no time.
func TestPolling(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			f := start(t)
			dir := c.dir
			switch dir {
			case "":
				dir = "policies"
			case "current":
				f.write("release-1/a.yaml", "one")
				f.link("release-1", "current")
			}
			synctest.Test(t, func(t *testing.T) {
				var r record
				w := New(Config{Dir: f.path(dir), Files: f.watched, Changed: r.changed})
				w.open = noEvents
				ctx, cancel := context.WithCancel(t.Context())
				go w.Run(ctx)
				time.Sleep(time.Second)
				// The secret files of the first load count as other than before.
				if diff := cmp.Diff([]Change{secrets}, r.all()); diff != "" {
					t.Fatalf("at the start (-want +got):\n%s", diff)
				}
				c.do(f)
				time.Sleep(4 * time.Second)
				synctest.Wait()
				got := r.all()[1:]
				if len(got) == 0 {
					got = nil
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("changes within 4 s (-want +got):\n%s", diff)
				}
				time.Sleep(time.Minute)
				if n := len(r.all()); n != 1+len(c.want) {
					t.Errorf("%d changes after a minute of rest, want %d", n, 1+len(c.want))
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// The same changes, seen by events alone: polling is an hour away.
func TestEvents(t *testing.T) {
	for _, c := range changes {
		if len(c.want) == 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			dir := c.dir
			switch dir {
			case "":
				dir = "policies"
			case "current":
				f.write("release-1/a.yaml", "one")
				f.link("release-1", "current")
			}
			got := make(chan Change, 16)
			w := New(Config{
				Dir:      f.path(dir),
				Files:    f.watched,
				Changed:  func(_ context.Context, c Change) bool { got <- c; return true },
				Interval: time.Hour,
				Settle:   10 * time.Millisecond,
			})
			run(t, w)
			next := func() Change {
				select {
				case c := <-got:
					return c
				case <-time.After(10 * time.Second):
					t.Fatal("no change was seen within 10 s")
					return Change{}
				}
			}
			if c := next(); c != secrets {
				t.Fatalf("at the start %+v, want %+v", c, secrets)
			}
			c.do(f)
			// A change that is made in several steps may be seen in several steps.
			var all Change
			for all != c.want[0] {
				c := next()
				all.Policies = all.Policies || c.Policies
				all.Secrets = all.Secrets || c.Secrets
			}
		})
	}
}

func TestTruncateThenWrite(t *testing.T) {
	f := start(t)
	synctest.Test(t, func(t *testing.T) {
		var held []string
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return nil }, Changed: func(context.Context, Change) bool {
			b, err := os.ReadFile(f.path("policies/a.yaml"))
			if err != nil {
				t.Error(err)
			}
			held = append(held, string(b))
			return true
		}})
		w.open = noEvents
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(2*time.Second - time.Millisecond)

		// A quick writer is not seen half-way: the poll at 2 s falls between its two steps.
		f.write("policies/a.yaml", "")
		time.Sleep(100 * time.Millisecond)
		f.write("policies/a.yaml", "quick")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"quick"}, held); diff != "" {
			t.Errorf("loads (-want +got):\n%s", diff)
		}

		// A slow one is, and what it writes in the end is loaded too.
		held = nil
		f.write("policies/a.yaml", "")
		time.Sleep(5 * time.Second)
		f.write("policies/a.yaml", "slow")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"", "slow"}, held); diff != "" {
			t.Errorf("loads (-want +got):\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

// A file that never rests cannot put off a change for ever: a deleted key must stop.
func TestRestlessFile(t *testing.T) {
	f := start(t)
	synctest.Test(t, func(t *testing.T) {
		var r record
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return []string{f.path("secrets/key")} }, Changed: r.changed})
		w.open = noEvents
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(time.Second)
		f.remove("secrets/key")
		for i := range 80 {
			f.write("policies/.a.yaml", strconv.Itoa(i))
			f.rename("policies/.a.yaml", "policies/a.yaml")
			time.Sleep(50 * time.Millisecond)
		}
		synctest.Wait()
		var seen bool
		for _, c := range r.all()[1:] {
			seen = seen || c.Secrets
		}
		if !seen {
			t.Error("the deleted secret was not reported within 4 s")
		}
		cancel()
		synctest.Wait()
	})
}

func TestReload(t *testing.T) {
	f := start(t)
	synctest.Test(t, func(t *testing.T) {
		var r record
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return nil }, Changed: r.changed})
		w.open = noEvents
		for range 3 { // those that nobody took yet are one
			w.Reload()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		synctest.Wait() // no time passes
		if diff := cmp.Diff([]Change{policies}, r.all()); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

// What changes while the policies are loaded is one more change.
func TestChangeDuringLoad(t *testing.T) {
	f := start(t)
	synctest.Test(t, func(t *testing.T) {
		var r record
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return nil }, Changed: func(ctx context.Context, c Change) bool {
			if len(r.all()) == 0 {
				f.write("policies/a.yaml", "later")
			}
			return r.changed(ctx, c)
		}})
		w.open = noEvents
		f.write("policies/a.yaml", "between New and Run")
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]Change{policies, policies}, r.all()); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

// Policies that name other secret files than before have them compared from the next look on.
func TestOtherSecretFiles(t *testing.T) {
	f := start(t)
	f.write("secrets/second", "two")
	synctest.Test(t, func(t *testing.T) {
		var r record
		var files []string
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return files }, Changed: func(ctx context.Context, c Change) bool {
			r.changed(ctx, c)
			if c.Policies {
				files = []string{f.path("secrets/second")}
			}
			return true
		}})
		w.open = noEvents
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(time.Second)
		f.write("policies/a.yaml", "names the second")
		time.Sleep(4 * time.Second)
		f.write("secrets/second", "three")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]Change{policies, secrets, secrets}, r.all()); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

// What could not be read is tried again, although no file changes, until it can.
func TestRetry(t *testing.T) {
	f := start(t)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var calls []time.Duration
		w := New(Config{Dir: f.path("policies"), Files: func() []string { return nil }, Changed: func(_ context.Context, c Change) bool {
			if want := (Change{Policies: len(calls) == 0}); c != want {
				t.Errorf("call %d with %+v, want %+v", len(calls), c, want)
			}
			calls = append(calls, time.Since(begin))
			return len(calls) == 3
		}})
		w.open = noEvents
		w.Reload()
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]time.Duration{0, 10 * time.Second, 20 * time.Second}, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

// A file in a folder of secrets is an event that concerns, also the first one: no watched file lies there yet.
func TestEventsOfFolders(t *testing.T) {
	f := start(t)
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	e := events{fs: fs, watched: map[string]bool{}}
	defer e.close()
	e.watch(f.path("policies"), f.watched())
	f.write("empty/new", "x")
	for {
		select {
		case ev := <-e.events():
			if e.concerns(ev) {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event within 10 s")
		}
	}
}
