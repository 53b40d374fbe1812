package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/reload"
)

// policyText is a policy file for one webhook whose secret is a file.
func policyText(name, secretFile string) string {
	return fmt.Sprintf(`apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: %s}
spec:
  match: {paths: [/%s]}
  signature: {scheme: github, secrets: [{version: "1", file: %q}]}
`, name, name, secretFile)
}

// metricsSeen writes down what a server's metrics are told.
type metricsSeen []string

func (m *metricsSeen) PolicyFaults(int) {}

func (m *metricsSeen) Reloaded(good bool, _ time.Time) {
	*m = append(*m, map[bool]string{true: "good", false: "failed"}[good])
}

func (m *metricsSeen) SetPolicies(set *policy.Set, _ time.Time) {
	available := 0
	for _, e := range set.Endpoints() {
		for _, v := range e.Versions {
			if v.Available {
				available++
			}
		}
	}
	*m = append(*m, fmt.Sprintf("%d webhooks, %d secrets", set.Len(), available))
}

// loading is a server's policies over a folder of a test.
type loading struct {
	*policies
	t       *testing.T
	dir     string
	secret  string // a file outside the folder
	metrics *metricsSeen
	log     *bytes.Buffer
}

func newLoading(t *testing.T) loading {
	l := loading{t: t, dir: t.TempDir(), secret: filepath.Join(t.TempDir(), "key"), metrics: new(metricsSeen), log: new(bytes.Buffer)}
	l.policies = &policies{
		dir:     l.dir,
		options: policy.LoadOptions{Secrets: policy.TolerateMissingSecrets},
		metrics: l.metrics,
		logger:  slog.New(slog.NewJSONHandler(l.log, nil)),
		now:     func() time.Time { return time.Unix(1, 0) },
	}
	l.write("a.yaml", policyText("a", l.secret))
	if err := os.WriteFile(l.secret, []byte("XdkZ8Qf0pB7mC2vT9yRw5LhJ"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.start(policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})}); err != nil {
		t.Fatal(err)
	}
	l.seen("good", "1 webhooks, 1 secrets")
	l.said()
	return l
}

func (l loading) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l loading) remove(path string) {
	l.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		l.t.Fatal(err)
	}
}

// seen compares what the metrics were told since the last call.
func (l loading) seen(want ...string) {
	l.t.Helper()
	if diff := cmp.Diff(want, []string(*l.metrics)); diff != "" {
		l.t.Errorf("metrics (-want +got):\n%s", diff)
	}
	*l.metrics = nil
}

// said compares the messages that were logged since the last call.
func (l loading) said(want ...string) {
	l.t.Helper()
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(l.log.String()), "\n") {
		if line == "" {
			continue
		}
		var record struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			l.t.Fatalf("%q: %v", line, err)
		}
		got = append(got, record.Msg)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Errorf("log (-want +got):\n%s", diff)
	}
	l.log.Reset()
}

var (
	policiesChanged = reload.Change{Policies: true}
	secretsChanged  = reload.Change{Secrets: true}
)

func (l loading) change(c reload.Change) bool { return l.changed(context.Background(), c) }

const kept = "policies not reloaded: the last good ones stay in force"

func TestPoliciesInForce(t *testing.T) {
	l := newLoading(t)
	first := l.engine.Set().Revision()

	// A good change comes into force.
	l.write("b.yaml", policyText("b", l.secret))
	l.change(policiesChanged)
	l.seen("good", "2 webhooks, 2 secrets")
	l.said("policies reloaded", "policy warning") // both have the same secret, which is said once
	second := l.engine.Set().Revision()
	if second == first {
		t.Error("the revision is the same after a change")
	}

	// A faulty one does not, and each distinct failure is logged once.
	l.write("b.yaml", "apiVersion: nonsense\n")
	l.change(policiesChanged)
	l.change(policiesChanged)
	l.seen("failed", "2 webhooks, 2 secrets", "failed", "2 webhooks, 2 secrets")
	if got := strings.Count(l.log.String(), kept); got != 1 {
		t.Errorf("the failure is logged %d times, want once:\n%s", got, l.log)
	}
	if !strings.Contains(l.log.String(), `"msg":"policy fault"`) {
		t.Errorf("no fault is logged:\n%s", l.log)
	}
	l.log.Reset()
	if got := l.engine.Set().Revision(); got != second {
		t.Errorf("revision %s in force, want %s", got, second)
	}

	// Another failure is another line.
	l.write("b.yaml", "{")
	l.change(policiesChanged)
	if got := strings.Count(l.log.String(), kept); got != 1 {
		t.Errorf("another failure is logged %d times, want once:\n%s", got, l.log)
	}
	l.log.Reset()
	*l.metrics = nil

	// A folder that is empty, or gone, keeps them as well.
	l.remove(filepath.Join(l.dir, "a.yaml"))
	l.remove(filepath.Join(l.dir, "b.yaml"))
	l.change(policiesChanged)
	l.seen("failed", "2 webhooks, 2 secrets")
	l.remove(l.dir)
	l.change(policiesChanged)
	l.seen("failed", "2 webhooks, 2 secrets")
	if got := l.engine.Set().Revision(); got != second {
		t.Errorf("revision %s in force, want %s", got, second)
	}
	l.log.Reset()

	// What is good again is good again.
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l.write("a.yaml", policyText("a", l.secret))
	l.change(policiesChanged)
	l.seen("good", "1 webhooks, 1 secrets")
	l.said("policies reloaded")
	if got := l.engine.Set().Revision(); got != first {
		t.Errorf("revision %s in force, want that of the same file at the start, %s", got, first)
	}
}

// A key that is deleted stops at once, also while the policy files are faulty.
func TestDeletedSecretStops(t *testing.T) {
	for _, c := range []struct {
		name   string
		faulty bool
		do     func(l loading)
	}{
		{"deleted", false, func(l loading) { l.remove(l.secret) }},
		{"emptied", false, func(l loading) { os.WriteFile(l.secret, nil, 0o600) }},
		{"deleted while the policies are faulty", true, func(l loading) { l.remove(l.secret) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLoading(t)
			if c.faulty {
				l.write("b.yaml", "{")
				l.change(policiesChanged)
				l.seen("failed", "1 webhooks, 1 secrets")
				l.log.Reset()
			}
			c.do(l)
			l.change(secretsChanged)
			l.change(secretsChanged)
			l.seen("1 webhooks, 0 secrets", "1 webhooks, 0 secrets")
			l.said("secrets read again", "secret unavailable", "secrets read again")
			if got := l.engine.Set().Endpoints()[0].Versions[0]; got.Available {
				t.Errorf("version %+v is available", got)
			}

			if err := os.WriteFile(l.secret, []byte("uW3nE6sK1aG4tY8cP0iO2zVx"), 0o600); err != nil {
				t.Fatal(err)
			}
			l.change(secretsChanged)
			l.seen("1 webhooks, 1 secrets")
			l.said("secrets read again")
		})
	}
}

func TestPoliciesDoNotStartWithFaults(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := policies{dir: dir, metrics: new(metricsSeen), logger: slog.New(slog.DiscardHandler), now: time.Now}
	if err := p.start(policy.EngineConfig{}); err == nil {
		t.Error("no error")
	}
}

// What may be readable soon is tried again; what is wrong in the files is not.
func TestPoliciesAskForRetry(t *testing.T) {
	l := newLoading(t)
	if !l.change(policiesChanged) {
		t.Error("a good load asks for a retry")
	}
	l.write("b.yaml", "{")
	if !l.change(policiesChanged) {
		t.Error("a fault in a file asks for a retry")
	}
	l.remove(filepath.Join(l.dir, "b.yaml"))
	l.remove(l.secret)
	if l.change(policiesChanged) || l.change(reload.Change{}) {
		t.Error("a secret file that is not there does not ask for a retry")
	}
	if err := os.WriteFile(l.secret, []byte("XdkZ8Qf0pB7mC2vT9yRw5LhJ"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.log.Reset()
	*l.metrics = nil
	if !l.change(reload.Change{}) {
		t.Error("a retry that read everything asks for another")
	}
	l.seen("1 webhooks, 1 secrets")
	l.said()

	// A folder that cannot be read is loaded again by the retry.
	moved := l.dir + ".moved"
	if err := os.Rename(l.dir, moved); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(moved) })
	if l.change(policiesChanged) {
		t.Error("a folder that is gone does not ask for a retry")
	}
	if err := os.Rename(moved, l.dir); err != nil {
		t.Fatal(err)
	}
	l.log.Reset()
	if !l.change(reload.Change{}) {
		t.Error("a retry that loaded the policies asks for another")
	}
	l.said("policies reloaded")
}
