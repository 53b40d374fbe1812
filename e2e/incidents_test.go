package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/e2e/stack"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

const incidentPolicies = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: incident}
spec:
  match: {paths: [/incident]}
  clientAddress: {from: xForwardedFor, trustedHops: 1}
  signature: {scheme: x-webhook-signature, secrets: [{version: "1", env: E2E_SECRET}]}
`

// What is done at one replica both obey, behind a real Envoy each; it survives a restart and the loss of the store's data.
func TestIncidentsOfTwoReplicas(t *testing.T) {
	setup(t)
	server := redistest.Start(t)
	policies := filepath.Join(t.TempDir(), "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(policies, "incident.yaml"), []byte(incidentPolicies), 0o644); err != nil {
		t.Fatal(err)
	}
	var replicas [2]*stack.Stack
	for i := range replicas {
		replicas[i] = up(t, stack.Config{
			Policies: policies,
			Serve:    []string{"--store", server.URL()},
			Edit:     func(c *stack.EnvoyConfig) { c.Listener().AddRoute("/incident", "incident") },
		})
	}
	n := 0
	send := func(replica int) stack.Reply {
		t.Helper()
		n++
		d := guide("/incident", secret, fmt.Appendf(nil, "%d of %d", n, os.Getpid()))
		d.Headers = append(d.Headers, header{"X-Forwarded-For", "203.0.113.7"})
		r, err := replicas[replica].Send(within(t), d)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	obeyed := func(status int) {
		t.Helper()
		begin := time.Now()
		for i := range replicas {
			eventually(t, func() error {
				if r := send(i); r.Status != status {
					return fmt.Errorf("replica %d answers %d, not %d", i, r.Status, status)
				}
				return nil
			})
		}
		t.Logf("both answer %d after %v", status, time.Since(begin).Round(time.Millisecond))
	}
	run := func(replica int, args ...string) string {
		t.Helper()
		out, err := replicas[replica].Run(within(t), nil, append(args, "--admin-url", "http://"+replicas[replica].AdminAddr)...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	obeyed(200)

	if out := run(0, "pause", "incident", "--for", "1h", "--why", "e2e"); !strings.Contains(out, "On every server within a second; kept in the store.") {
		t.Errorf("pause says %q", out)
	}
	obeyed(503)
	for i := range replicas {
		after, err := strconv.Atoi(send(i).Header.Get("Retry-After"))
		if err != nil || after < 3500 || after > 3600 {
			t.Errorf("replica %d: Retry-After %d, %v; want about an hour", i, after, err)
		}
	}
	run(1, "unpause", "incident")
	obeyed(200)

	run(1, "revoke", "incident", "1", "--why", "e2e")
	obeyed(401)

	// The store loses its data: the replicas write it again. A replica that starts obeys at once.
	server.Do(t, "FLUSHALL")
	eventually(t, func() error {
		if got := server.Do(t, "EXISTS", "hookauthz:incidents"); !strings.HasSuffix(got, "1") {
			return fmt.Errorf("EXISTS says %q", got)
		}
		return nil
	})
	if err := replicas[0].Hookauthz.Stop(patience); err != nil {
		t.Fatal(err)
	}
	if err := replicas[0].StartHookauthz(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := replicas[0].WaitHealthy(within(t)); err != nil {
		t.Fatal(err)
	}
	if r := send(0); r.Status != 401 {
		t.Errorf("after a restart it answers %d, want 401", r.Status)
	}
	var list struct {
		Incidents []struct{ Kind, Endpoint, Version, Why string }
	}
	if err := json.Unmarshal([]byte(run(0, "incidents", "-o", "json")), &list); err != nil || len(list.Incidents) != 1 || list.Incidents[0].Version != "1" || list.Incidents[0].Why != "e2e" {
		t.Errorf("incidents: %+v, %v", list, err)
	}
	run(0, "restore", "incident", "1")
	obeyed(200)

	run(0, "block", "203.0.113.0/24", "--for", "1h", "--why", "e2e")
	obeyed(403)

	// It ends by itself.
	run(1, "unblock", "203.0.113.0/24")
	run(0, "pause", "incident", "--for", "2s", "--why", "e2e")
	obeyed(503)
	obeyed(200)
}
