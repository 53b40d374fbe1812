package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

func TestReadPassword(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"plain", "pw", "pw"}, {"newline", "pw\n", "pw"}, {"carriage return", "pw\r\n", "pw"}, {"two newlines", "pw\n\n", "pw\n"}, {"empty", "", ""}, {"only a newline", "\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pw")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readPassword(file)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := readPassword(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there gives a password")
	}
}

func TestStoreFlagsTakePassword(t *testing.T) {
	f := storeFlags{url: "redis://u:hunter2@h/1", timeout: 50 * time.Millisecond}
	if err := f.check(); err != nil {
		t.Fatal(err)
	}
	if f.redis.Password != "hunter2" || f.redis.CallTimeout != f.timeout || f.String() != "redis://h:6379/1" {
		t.Errorf("got %q, %s and %q", f.redis.Password, f.redis.CallTimeout, f.String())
	}
	f.passwordFile = "pw"
	if err := f.check(); err == nil {
		t.Error("two passwords are none too many")
	}
}

// A store that is not there at the start is asked until it is, and decides from then on.
func TestServeWithoutItsStore(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	dir, _ := folder(t)
	s := startServing(t, "--policies", dir, "--store", server.URL(), "--store-required=false")
	if _, ok := s.log.find("the store does not answer: onStoreFailure decides without it"); !ok {
		t.Error("the log does not say that the store is not there")
	}
	eventually(t, "the breaker opens", func() bool { return s.shows(`hookauthz_breaker_state{name="store"} 2`) })
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the breaker closes", func() bool { return s.shows(`hookauthz_breaker_state{name="store"} 0`) })
	eventually(t, "the store has a sign of life", func() bool { return server.Calls(t, "zadd") > 0 })
}

// shows says whether the metrics have this line.
func (s *serving) shows(line string) bool {
	_, metrics := s.get("/metrics")
	return strings.Contains(metrics, line)
}

// A store that will not do ends serve with what to change; with --store-required=false it decides without.
func TestServeRefusesItsStore(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "hunter2", "--databases", "2")
	cluster := redistest.Start(t, "--cluster-enabled", "yes")
	dir, _ := folder(t)
	tests := []struct{ name, url, want, hint string }{
		{"refused password", "redis://:hunter3@" + server.Address(), "WRONGPASS", "check the user and the password: in the URL (percent-encoded), or --store-password-file"},
		{"no password", "redis://" + server.Address(), "NOAUTH", "the server wants a password: give it in the URL or with --store-password-file"},
		{"wrong database", "redis://:hunter2@" + server.Address() + "/7", "DB index is out of range", "give a database that the server has, as in redis://host:6379/0"},
		{"old version", "redis://" + redistest.Claiming(t, "redis", "6.2.14"), "it is redis 6.2.14, which is too old", "upgrade it to 7 or later"},
		{"a cluster without the flag", "redis://" + cluster.Address(), "it is a node of a cluster", "add ?cluster=true to the URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs strings.Builder
			code := run(t.Context(), process{
				args:   []string{"serve", "--policies", dir, "--listen", "127.0.0.1:0", "--admin", "off", "--store", tt.url},
				lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now,
				signals: func(chan<- os.Signal, ...os.Signal) {},
			})
			if got := errs.String(); code != 1 || !strings.Contains(got, tt.want) || !strings.Contains(got, "\nhint: "+tt.hint+"; or start without it: --store-required=false\n") {
				t.Errorf("got %d and %s\nwant 1, %q and the hint %q", code, got, tt.want, tt.hint)
			}
			if strings.Contains(errs.String(), "hunter") {
				t.Errorf("the password is in %s", &errs)
			}
			s := startServing(t, "--policies", dir, "--store", tt.url, "--store-required=false")
			record, ok := s.log.find("the store does not answer: onStoreFailure decides without it")
			if fix, _ := record["fix"].(string); !ok || fix != tt.hint {
				t.Errorf("logged %v, want the fix %q", record, tt.hint)
			}
		})
	}
}

// A server that cannot learn what is revoked does not start, where its store must be there: it would let in what others deny.
func TestServeKnowsIncidents(t *testing.T) {
	tests := []struct {
		name, want string
		spoil      func(t *testing.T, s *redistest.Server)
	}{
		{"of a later version", "it has the version 2; this program knows 1", func(t *testing.T, s *redistest.Server) { s.Do(t, "SET", "hookauthz:incidents", `{"version":2}`) }},
		{"of another type", "WRONGTYPE", func(t *testing.T, s *redistest.Server) { s.Do(t, "RPUSH", "hookauthz:incidents", "x") }},
		{"that may not be read", "NOPERM", func(t *testing.T, s *redistest.Server) {
			s.Do(t, "ACL", "SETUSER", "default", "resetkeys", "~hookauthz:{*", "~hookauthz:replicas", "~hookauthz:secrets")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t)
			tt.spoil(t, server)
			dir, _ := folder(t)
			var out, errs strings.Builder
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // of a server that starts all the same
			defer cancel()
			code := run(ctx, process{
				args:   []string{"serve", "--policies", dir, "--listen", "127.0.0.1:0", "--admin", "off", "--store", server.URL()},
				lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now,
				signals: func(chan<- os.Signal, ...os.Signal) {},
			})
			if got := errs.String(); code != 1 || !strings.Contains(got, tt.want) || !strings.Contains(got, "--store-required=false") {
				t.Errorf("got %d and %s\nwant 1 and %q", code, got, tt.want)
			}
			startServing(t, "--policies", dir, "--store", server.URL(), "--store-required=false")
		})
	}
}
