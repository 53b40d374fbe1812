package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/e2e/stack"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// Secrets that no other test has.
const (
	oldSecret  = "e2e-7Kq2vXr9sT4mWb8yLz3c"
	newSecret  = "e2e-Jd5nPf1hGu6aEo0iRk7x"
	baitSecret = "e2e-Qw8eZt4uYi2oMa6sNd1f"
)

// versions is what `secrets status` says of the webhook "live": each version with its state and what is marked.
func versions(t *testing.T, s *stack.Stack, flags ...string) (words []string, shared bool) {
	t.Helper()
	text, err := s.Run(t.Context(), nil, append([]string{"secrets", "status", "--admin-url", "http://" + s.AdminAddr, "--endpoint", "live", "-o", "json"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Shared  bool `json:"shared"`
		Secrets []struct {
			Version, State, Note string
			Matches              uint64
			LastUsed             time.Time `json:"last_used"`
			Current              bool
			SafeToRemove         bool `json:"safe_to_remove"`
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, v := range report.Secrets {
		w := v.Version + " " + v.State
		if v.LastUsed.IsZero() {
			w += " unused"
		}
		if v.Current {
			w += " current"
		}
		if v.SafeToRemove {
			w += " safe"
		}
		words = append(words, w)
	}
	return words, report.Shared
}

// says waits until `secrets status` says so.
func says(t *testing.T, s *stack.Stack, want []string, flags ...string) {
	t.Helper()
	eventually(t, func() error {
		got, _ := versions(t, s, flags...)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("secrets status (-want +got):\n%s", diff)
		}
		return nil
	})
}

// A secret is rotated while deliveries come in: the old one, both, the sender switches, the new one. Not one delivery is lost, and at each
// stage `secrets status` says what is next.
func TestRotation(t *testing.T) {
	setup(t)
	for _, way := range []struct {
		name string
		// begin gives the signature of the policy with the old secret alone; add adds the new one, and remove takes the old one away.
		begin, add, remove func(t *testing.T, policies, secrets string)
	}{
		{"with a file for each version",
			func(t *testing.T, policies, secrets string) {
				replaceFile(t, filepath.Join(secrets, "old"), oldSecret+"\n")
				writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{version: old, file: %s/old}]}\n", secrets))
			},
			func(t *testing.T, policies, secrets string) {
				replaceFile(t, filepath.Join(secrets, "new"), newSecret+"\n")
				writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{version: old, file: %s/old}, {version: new, file: %[1]s/new}]}\n", secrets))
			},
			func(t *testing.T, policies, secrets string) {
				writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{version: new, file: %s/new}]}\n", secrets))
			}},
		{"with a folder as Kubernetes mounts a Secret",
			func(t *testing.T, policies, secrets string) {
				mount(t, secrets, "..1", map[string]string{"old": oldSecret})
				writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{dir: %s}]}\n", secrets))
			},
			func(t *testing.T, _, secrets string) {
				mount(t, secrets, "..2", map[string]string{"old": oldSecret, "new": newSecret})
			},
			func(t *testing.T, _, secrets string) { mount(t, secrets, "..3", map[string]string{"new": newSecret}) }},
	} {
		scenario(t, way.name, func(t *testing.T) {
			policies, secrets := t.TempDir(), t.TempDir()
			way.begin(t, policies, secrets)
			s := up(t, stack.Config{Policies: policies, Edit: liveRoute})
			byOld, byNew := guide("/e2e/live", oldSecret, []byte("rotated")), guide("/e2e/live", newSecret, []byte("rotated"))
			var sender atomic.Pointer[delivery]
			sender.Store(&byOld)
			l := startLoadOf(t, s, func() delivery { return *sender.Load() }, guide("/e2e/live", "guessed", []byte("rotated")))
			l.more(t, 200, 5)
			says(t, s, []string{"old in_force current"})
			denied(t, s, byNew, 401, "signature_mismatch")

			way.add(t, policies, secrets)
			says(t, s, []string{"new in_force unused", "old in_force current"})
			l.more(t, 200, 5)

			sender.Store(&byNew)
			l.more(t, 200, 10)
			says(t, s, []string{"new in_force current", "old in_force"})
			says(t, s, []string{"new in_force current", "old in_force safe"}, "--quiet", "1s") // a second later

			way.remove(t, policies, secrets)
			says(t, s, []string{"new in_force current"})
			l.more(t, 200, 10)
			l.end()
			l.only(t, []int{200}, []int{401})
			denied(t, s, byOld, 401, "signature_mismatch")
			passes(t, s, byNew, "ok")
		})
	}
}

// mount lays secrets out as the kubelet does, and swaps them for those that were there.
func mount(t *testing.T, dir, generation string, secrets map[string]string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	inner := filepath.Join(dir, generation)
	check(os.Mkdir(inner, 0o755))
	for name, text := range secrets {
		check(os.WriteFile(filepath.Join(inner, name), []byte(text), 0o600))
	}
	old, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	check(os.Symlink(generation, filepath.Join(dir, "..data_tmp")))
	check(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	for name := range secrets {
		if link := filepath.Join(dir, name); !exists(link) {
			check(os.Symlink(filepath.Join("..data", name), link))
		}
	}
	entries, err := os.ReadDir(dir)
	check(err)
	for _, e := range entries {
		if _, stays := secrets[e.Name()]; !stays && !strings.HasPrefix(e.Name(), "..") {
			check(os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if old != "" {
		check(os.RemoveAll(filepath.Join(dir, old)))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A secret file that turns empty, vanishes or cannot be read stops its own version at once, and nothing else.
func TestSecretFileGone(t *testing.T) {
	setup(t)
	for name, spoil := range map[string]func(path string) error{
		"emptied":    func(path string) error { return os.Truncate(path, 0) },
		"blank":      func(path string) error { return os.WriteFile(path, []byte(" \n"), 0o600) },
		"deleted":    os.Remove,
		"unreadable": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		scenario(t, name, func(t *testing.T) {
			policies, secrets := t.TempDir(), t.TempDir()
			first, second := filepath.Join(secrets, "first"), filepath.Join(secrets, "second")
			replaceFile(t, first, oldSecret+"\n")
			replaceFile(t, second, newSecret+"\n")
			writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{version: first, file: %s}, {version: second, file: %s}]}\n", first, second))
			s := up(t, stack.Config{Policies: policies, Edit: liveRoute})
			spoiled, kept := guide("/e2e/live", oldSecret, []byte("spoiled")), guide("/e2e/live", newSecret, []byte("kept"))
			passes(t, s, spoiled, "ok")
			l := startLoad(t, s, kept, guide("/e2e/live", "guessed", []byte("kept")))
			l.more(t, 200, 5)

			began := time.Now()
			if err := spoil(first); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error { return metricIs(s, `hookauthz_secret_available{endpoint="live",version="first"} 0`) })
			if took := time.Since(began); took > inForce+time.Second {
				t.Errorf("in force after %s, want at most %s", took, inForce)
			}
			denied(t, s, spoiled, 401, "signature_mismatch")
			if err := metricIs(s, `hookauthz_secret_available{endpoint="live",version="second"} 1`); err != nil {
				t.Error(err)
			}
			if got, _ := versions(t, s); !slices.Equal(got, []string{"first unavailable", "second in_force current"}) {
				t.Errorf("secrets status says %q", got)
			}
			if log := s.Hookauthz.Log(); !strings.Contains(log, `"level":"ERROR","msg":"secret unavailable"`) || strings.Contains(log, oldSecret) {
				t.Errorf("the log does not say so, or says the secret")
			}
			l.more(t, 200, 5)

			// With the other one gone too there is no key left, which is our fault and not the sender's.
			if err := os.Remove(second); err != nil {
				t.Fatal(err)
			}
			l.more(t, http.StatusServiceUnavailable, 1)
			l.end()
			l.only(t, []int{200, 503}, []int{401, 503})
			denied(t, s, kept, 503, "secret_unavailable")
			if _, err := get(s, "/readyz"); err != nil {
				t.Errorf("one webhook without secrets makes the server unready: %v", err)
			}
			if err := os.RemoveAll(first); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, first, oldSecret+"\n")
			eventually(t, func() error {
				if r := send(t, s, spoiled); r.Status != 200 {
					return fmt.Errorf("status %d, want 200", r.Status)
				}
				return nil
			})
		})
	}
}

// get reads a page of the listener for probes.
func get(s *stack.Stack, path string) (int, error) {
	resp, err := http.Get("http://" + s.MetricsAddr + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		err = errors.New(resp.Status)
	}
	return resp.StatusCode, err
}

// Whoever signs with a decoy is denied, and the alarm sounds; in shadow mode, where signatures do not decide, it sounds all the same.
func TestDecoy(t *testing.T) {
	setup(t)
	const signature = "  signature: {scheme: x-webhook-signature, secrets: [{version: \"1\", env: E2E_SECRET}, {version: bait, env: E2E_BAIT, decoy: true}]}\n"
	for name, mode := range map[string]string{"enforced": "", "in shadow mode": "  mode: shadow\n"} {
		scenario(t, name, func(t *testing.T) {
			policies := t.TempDir()
			writePolicy(t, policies, signature+mode)
			s := up(t, stack.Config{Policies: policies, Edit: liveRoute, Env: []string{"E2E_BAIT=" + baitSecret}})
			const metric = `hookauthz_decoy_used_total{endpoint="live",version="bait"} `
			if err := metricIs(s, metric+"0"); err != nil {
				t.Error(err)
			}
			passes(t, s, guide("/e2e/live", secret, []byte("good")), "ok")
			bait := guide("/e2e/live", baitSecret, []byte("bad"))
			if mode == "" {
				denied(t, s, bait, 401, "secret_expired")
			} else if r := send(t, s, bait); r.Status != 200 {
				t.Errorf("status %d, want 200", r.Status)
			}
			eventually(t, func() error { return metricIs(s, metric+"1") })
			eventually(t, func() error {
				if !strings.Contains(s.Hookauthz.Log(), `"level":"ERROR","msg":"decoy used","endpoint":"live","secret_version":"bait"`) {
					return errors.New("no alarm in the log")
				}
				return nil
			})
			says(t, s, []string{"1 in_force current", "bait decoy"})
			if strings.Contains(s.Hookauthz.Log(), baitSecret) {
				t.Error("the decoy is in the log")
			}
		})
	}
}

// What one server has seen, the other tells; and a restart forgets nothing.
func TestServersShareUses(t *testing.T) {
	setup(t)
	server := redistest.Start(t)
	policies := t.TempDir()
	writePolicy(t, policies, "  signature: {scheme: x-webhook-signature, secrets: [{version: old, env: E2E_OLD}, {version: new, env: E2E_NEW}]}\n")
	config := stack.Config{Policies: policies, Edit: liveRoute, Serve: []string{"--store", server.URL()}, Env: []string{"E2E_OLD=" + oldSecret, "E2E_NEW=" + newSecret}}
	one, two := up(t, config), up(t, config)
	// No delivery asks the store for it: this policy needs no store at all. What there is are signs of life and, every few seconds, the uses.
	began, before := time.Now(), server.Calls(t, "evalsha")
	for range 100 {
		passes(t, one, guide("/e2e/live", oldSecret, []byte("to the one")), "ok")
	}
	if calls, most := server.Calls(t, "evalsha")-before, 4+3*int(time.Since(began).Seconds()); calls > most {
		t.Errorf("100 deliveries made %d calls of the store in %s, want at most %d", calls, time.Since(began), most)
	}
	for _, s := range []*stack.Stack{one, two} {
		says(t, s, []string{"new in_force unused", "old in_force current"})
		if _, shared := versions(t, s); !shared {
			t.Error("secrets status does not say that the store is shared")
		}
	}
	passes(t, two, guide("/e2e/live", newSecret, []byte("to the other")), "ok")
	for _, s := range []*stack.Stack{one, two} {
		says(t, s, []string{"new in_force current", "old in_force"})
	}
	// The last moment before an end is told too.
	passes(t, one, guide("/e2e/live", oldSecret, []byte("to the one, again")), "ok")
	if err := one.Hookauthz.Stop(patience); err != nil {
		t.Fatal(err)
	}
	if got, _ := versions(t, two); !slices.Equal(got, []string{"new in_force", "old in_force current"}) {
		t.Errorf("after the end of the one, the other says %q", got)
	}
	if err := one.StartHookauthz(within(t)); err != nil {
		t.Fatal(err)
	}
	says(t, one, []string{"new in_force", "old in_force current"})
	server.Kill()
	eventually(t, func() error {
		if got, shared := versions(t, one); shared || len(got) != 2 {
			return fmt.Errorf("without the store: %q, shared %t", got, shared)
		}
		return nil
	})
}

// A folder of secrets that is emptied stops its own webhook with 503, is seen in metrics and log, and comes back with its files.
func TestSecretFolderGone(t *testing.T) {
	setup(t)
	scenario(t, "and back", func(t *testing.T) {
		policies, secrets := t.TempDir(), t.TempDir()
		mount(t, secrets, "..1", map[string]string{"only": oldSecret})
		writePolicy(t, policies, fmt.Sprintf("  signature: {scheme: x-webhook-signature, secrets: [{dir: %s}]}\n", secrets))
		other := strings.NewReplacer("name: live", "name: other", "/e2e/live", "/e2e/other").Replace
		text, err := os.ReadFile(filepath.Join(policies, "live.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		replaceFile(t, filepath.Join(policies, "other.yaml"), strings.Replace(other(string(text)), "{dir: "+secrets+"}", `{version: "1", env: E2E_SECRET}`, 1))
		s := up(t, stack.Config{Policies: policies, Edit: func(c *stack.EnvoyConfig) {
			liveRoute(c)
			c.Listener().AddRoute("/e2e/other", "other")
		}})
		live, neighbour := guide("/e2e/live", oldSecret, []byte("folder")), guide("/e2e/other", secret, []byte("neighbour"))
		passes(t, s, live, "ok")
		mount(t, secrets, "..2", nil)
		eventually(t, func() error {
			return metricIs(s, `hookauthz_secret_available{endpoint="live",version="dir `+secrets+`"} 0`)
		})
		denied(t, s, live, 503, "secret_unavailable")
		passes(t, s, neighbour, "ok")
		if log := s.Hookauthz.Log(); !strings.Contains(log, `holds no secret","fix":"put a file for each version there"`) {
			t.Error("the log does not say so")
		}
		says(t, s, []string{"dir " + secrets + " unavailable unused"})
		mount(t, secrets, "..3", map[string]string{"next": newSecret})
		eventually(t, func() error {
			if r := send(t, s, guide("/e2e/live", newSecret, []byte("folder"))); r.Status != 200 {
				return fmt.Errorf("status %d, want 200", r.Status)
			}
			return nil
		})
		says(t, s, []string{"next in_force current"})
	})
}
