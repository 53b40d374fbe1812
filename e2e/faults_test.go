package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/e2e/stack"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// faultTime is how long a fault lasts: seconds by default, HOOKAUTHZ_FAULT_TIME where it is set (make faults sets 30s).
func faultTime(t *testing.T) time.Duration {
	text := os.Getenv("HOOKAUTHZ_FAULT_TIME")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("HOOKAUTHZ_FAULT_TIME=%s is no duration", text)
	}
	return d
}

const faultPolicies = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookDefaults
spec:
  failures: {limit: unlimited}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: faults-local}
spec:
  match: {paths: [/faults/local]}
  signature: {scheme: x-webhook-signature, secrets: [{version: "1", env: E2E_SECRET}]}
  replay: {window: 1h, onDuplicate: deny}
  rateLimits: [{limit: 100000/second}]
  onStoreFailure: local
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: faults-deny}
spec:
  match: {paths: [/faults/deny]}
  signature: {scheme: x-webhook-signature, secrets: [{version: "1", env: E2E_SECRET}]}
  replay: {window: 1h, onDuplicate: deny}
  onStoreFailure: deny
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: faults-limited}
spec:
  match: {paths: [/faults/limited]}
  signature: {scheme: x-webhook-signature, secrets: [{version: "1", env: E2E_SECRET}]}
  replay: {onDuplicate: allow}
  rateLimits: [{limit: 20/second, burst: 5}]
  onStoreFailure: local
`

// fault is what happens to the store: begin brings it about and end takes it away. loses says that the store's data is gone then.
type fault struct {
	name       string
	begin, end func(*faults)
	loses      bool
	// passing says that the breaker need not open: the store answers, or only new deliveries are refused.
	passing bool
	// returns says that the store comes back before the fault is taken away.
	returns bool
}

func always(f redistest.Fault) (begin, end func(*faults)) {
	return func(x *faults) { x.proxy.Set(f) }, func(x *faults) { x.proxy.Set(redistest.Fault{}) }
}

func storeFaults() []fault {
	none := func(*faults) {}
	slowBegin, slowEnd := always(redistest.Fault{Delay: 200 * time.Millisecond})
	holdBegin, holdEnd := always(redistest.Fault{Hold: true})
	cutBegin, cutEnd := always(redistest.Fault{Cut: true})
	ask := func(words ...string) func(*faults) { return func(x *faults) { x.server.Do(x.t, words...) } }
	return []fault{
		{name: "none", begin: none, end: none, passing: true},
		{name: "stopped", begin: func(x *faults) { x.server.Signal(syscall.SIGSTOP) }, end: func(x *faults) { x.server.Signal(syscall.SIGCONT) }},
		{name: "slow 200 ms", begin: slowBegin, end: slowEnd},
		{name: "black hole", begin: holdBegin, end: holdEnd},
		{name: "cut", begin: cutBegin, end: cutEnd},
		{name: "read-only", begin: ask("REPLICAOF", "127.0.0.1", "1"), end: ask("REPLICAOF", "NO", "ONE")},
		{name: "out of memory", begin: ask("CONFIG", "SET", "maxmemory", "1"), end: ask("CONFIG", "SET", "maxmemory", "0"), passing: true},
		{name: "scripts flushed", begin: ask("SCRIPT", "FLUSH"), end: ask("SCRIPT", "FLUSH"), passing: true},
		{name: "restarted read-only", begin: func(x *faults) {
			x.server.Kill()
			x.restart("--replicaof", "127.0.0.1", "1")
		}, end: ask("REPLICAOF", "NO", "ONE"), loses: true},
		{name: "killed, restarted empty", begin: func(x *faults) { x.server.Kill() }, end: func(x *faults) { x.restart() }, loses: true},
	}
}

// failover is the death of one primary of a cluster, whose replica takes over by itself. Everything was replicated.
func failover(nodes []*redistest.Server, primary int) fault {
	replica := nodes[primary+3]
	return fault{name: "failed over in a cluster", returns: true, begin: func(x *faults) {
		redistest.Replicated(x.t, nodes[primary], replica)
		nodes[primary].Kill()
	}, end: func(x *faults) {
		redistest.Eventually(x.t, "the replica has taken over", func() bool { return strings.Contains(replica.Do(x.t, "INFO", "replication"), "role:master") })
	}}
}

// faults is two replicas, each behind an Envoy of its own, the store that they share, and a third one with a store of its own, which nothing
// happens to.
type faults struct {
	t          *testing.T
	server     *redistest.Server // nil where the store is a cluster
	proxy      *redistest.Proxy
	replicas   [3]*stack.Stack
	transports [3]*http.Transport
	sent       [3]atomic.Int64
	serial     int
	turn       int    // the replica whose turn it is
	read       [3]int // how much of each replica's log was read
}

// embedded is the replica with a store of its own.
const embedded = 2

// start makes the replicas share the store at a URL.
func (x *faults) start(policies, url string) {
	for i := range x.replicas {
		serve := []string{"--store", url}
		if i == embedded {
			serve = nil
		}
		x.replicas[i] = up(x.t, stack.Config{
			Policies: policies,
			Serve:    serve,
			Edit: func(c *stack.EnvoyConfig) {
				for _, name := range []string{"local", "deny", "limited"} {
					c.Listener().AddRoute("/faults/"+name, "faults-"+name)
				}
			},
		})
		x.transports[i] = x.replicas[i].Transport(false, "")
		x.transports[i].MaxIdleConnsPerHost = 64
		x.t.Cleanup(x.transports[i].CloseIdleConnections)
	}
}

// shared are the replicas that share the store.
func (x *faults) shared() []*stack.Stack { return x.replicas[:embedded] }

func (x *faults) restart(args ...string) {
	if err := x.server.Restart(args...); err != nil {
		x.t.Fatal(err)
	}
}

// sent is one delivery and what came of it.
type sent struct {
	path    string
	body    []byte
	replica int
	status  int
}

func (x *faults) send(d sent) sent {
	g := guide(d.path, secret, d.body)
	g.Headers = append(g.Headers, header{"X-Request-Id", fmt.Sprintf("00000000-0000-4000-8000-%012d", time.Now().UnixNano()%1e12)})
	x.sent[d.replica].Add(1)
	r, err := x.replicas[d.replica].SendBy(context.Background(), x.transports[d.replica], g)
	if err != nil {
		x.t.Errorf("sending to replica %d: %v", d.replica, err)
	}
	d.status = r.Status
	return d
}

// steady sends new deliveries to both replicas, evenly, 50 a second at each path.
func (x *faults) steady(d time.Duration, paths ...string) (all []sent) {
	return x.beside(false, d, paths...)
}

// beside is steady, and if it is compared each delivery goes to the embedded store too, at the same time.
func (x *faults) beside(compared bool, d time.Duration, paths ...string) (all []sent) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		x.turn = 1 - x.turn
		replica := x.turn
		for _, path := range paths {
			x.serial++
			body := fmt.Appendf(nil, "%d of %d", x.serial, os.Getpid())
			if compared {
				wait.Go(func() { x.send(sent{path: path, body: body, replica: embedded}) })
			}
			wait.Go(func() {
				s := x.send(sent{path: path, body: body, replica: replica})
				mu.Lock()
				defer mu.Unlock()
				all = append(all, s)
			})
		}
	}
	wait.Wait()
	return all
}

// again sends deliveries once more: to the other replica, or to the same.
func (x *faults) again(all []sent, other bool) (results []sent) {
	results = make([]sent, len(all))
	var wait sync.WaitGroup
	places := make(chan struct{}, 16)
	for i, s := range all {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			if other {
				s.replica = 1 - s.replica
			}
			results[i] = x.send(s)
		})
	}
	wait.Wait()
	return results
}

// replay sends deliveries again, to the other replica, while the store is healthy: none may pass. On a machine that is too busy the store may
// miss a deadline without a fault; what is let through for that goes by onStoreFailure, and is counted apart.
func (x *faults) replay(all []sent) (wrong, late int) {
	x.decided(0, embedded)
	passed := count(x.again(all, true), allowed)
	late, _ = x.decided(0, embedded)
	late = min(late, passed)
	return passed - late, late
}

func count(all []sent, is func(sent) bool) (n int) {
	for _, s := range all {
		if is(s) {
			n++
		}
	}
	return n
}

func allowed(s sent) bool      { return s.status == 200 }
func callersFault(s sent) bool { return s.status >= 400 && s.status < 500 }

func only(all []sent, is func(sent) bool) []sent {
	return slices.DeleteFunc(slices.Clone(all), func(s sent) bool { return !is(s) })
}

// decided is how many checks since the last call were let through without the store, and how many milliseconds each was decided in, by the
// logs of some replicas. It waits until all that was sent is in them.
func (x *faults) decided(from, to int) (degraded int, all durations) {
	x.t.Helper()
	for i := from; i < to; i++ {
		var text string
		if err := stack.Poll(within(x.t), func() error {
			text = x.replicas[i].Hookauthz.Log()
			if logged := int64(strings.Count(text, `"msg":"decision"`)); logged < x.sent[i].Load() {
				return fmt.Errorf("replica %d was sent %d deliveries and has logged %d", i, x.sent[i].Load(), logged)
			}
			return nil
		}); err != nil {
			x.t.Fatal(err)
		}
		for line := range strings.Lines(text[x.read[i]:]) {
			var record struct {
				Message  string  `json:"msg"`
				Decision string  `json:"decision"`
				Degraded bool    `json:"degraded"`
				Duration float64 `json:"duration_ms"`
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Message == "decision" {
				all = append(all, record.Duration)
				if record.Degraded && record.Decision == "allow" {
					degraded++
				}
			}
		}
		x.read[i] = len(text)
	}
	slices.Sort(all)
	return degraded, all
}

// durations are in milliseconds, sorted.
type durations []float64

// p99 is the time within which 99 of 100 were decided.
func (d durations) p99() float64 {
	if len(d) == 0 {
		return 0
	}
	return d[(len(d)-1)*99/100]
}

// beyond is the share of those that took longer.
func (d durations) beyond(most float64) float64 {
	at, _ := slices.BinarySearch(d, most)
	return float64(len(d)-at) / float64(len(d))
}

// metric is the value of a replica's metric.
func (x *faults) metric(replica int, name string) string {
	resp, err := http.Get("http://" + x.replicas[replica].AdminAddr + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "no metric"
}

const breakerState, unwritten = `hookauthz_breaker_state{name="store"}`, `hookauthz_store_keys{kind="journal"}`

// closed waits until both breakers are closed and nothing is left to be written back.
func (x *faults) closed() {
	x.t.Helper()
	if err := stack.Poll(within(x.t), func() error {
		for i := range x.shared() {
			if state, left := x.metric(i, breakerState), x.metric(i, unwritten); state != "0" || left != "0" {
				return fmt.Errorf("the breaker of replica %d is in state %s, with %s deliveries to write back", i, state, left)
			}
		}
		return nil
	}); err != nil {
		x.t.Fatal(err)
	}
}

// The store fails in every way: no replay passes, no valid delivery is refused for it, and the limit holds once it is back.
func TestStoreFaults(t *testing.T) {
	setup(t)
	policies := filepath.Join(t.TempDir(), "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(policies, "faults.yaml"), []byte(faultPolicies), 0o644); err != nil {
		t.Fatal(err)
	}
	lasting := faultTime(t)
	var table comparison
	t.Run("server", func(t *testing.T) {
		x := &faults{t: t, server: redistest.Start(t)}
		x.proxy = redistest.NewProxy(t, x.server.Address())
		x.start(policies, x.proxy.URL())
		for _, f := range storeFaults() {
			t.Run(f.name, func(t *testing.T) {
				x.t = t
				x.run(f, lasting, &table)
			})
		}
	})
	t.Run("cluster", func(t *testing.T) {
		nodes := redistest.StartCluster(t, true)
		x := &faults{t: t}
		x.start(policies, "redis://"+nodes[0].Address()+"?cluster=true&addr="+nodes[1].Address())
		x.run(failover(nodes, holder(t, nodes, "faults-local")), lasting, &table)
	})
	t.Log("\n" + strings.Join(append([]string{
		"| fault | deliveries | wrong allows | valid ones answered 4xx | 503 (deny) | p99 healthy | p99 while away | embedded, meanwhile | limit, allowed of the most | late while healthy |",
		"|---|---|---|---|---|---|---|---|---|---|"}, table.rows...), "\n"))
	table.check(t, lasting)
}

// holder is the primary that has an endpoint's keys.
func holder(t *testing.T, nodes []*redistest.Server, endpoint string) int {
	var slot int
	if _, err := fmt.Sscanf(nodes[0].Do(t, "CLUSTER", "KEYSLOT", "{"+endpoint+"}"), ":%d", &slot); err != nil {
		t.Fatal(err)
	}
	return slot * 3 / 16384
}

// comparison is the table, and how long the checks took in all faults in which the breaker was open, beside those of the embedded store in
// the same seconds on the same machine.
type comparison struct {
	rows           []string
	faults         int // of those that are compared
	away, embedded durations
}

// check wants the checks that the open breaker spared the store to take no more than twice as long as those of the embedded store, at 99 of
// 100. Both were sent at the same moments, so a machine that is busy with other things slows both; and what a machine does to single checks
// is allowed for: of the short faults' few thousand checks three of 100 may take longer. Checks that wait for the store, or of which one at
// a time does, are far more.
func (c *comparison) check(t *testing.T, lasting time.Duration) {
	switch {
	case c.faults == 0:
		t.Log("nothing to compare: no fault has opened the breaker for good")
		return
	case len(c.away) == 0 || len(c.embedded) == 0:
		t.Fatal("no checks are compared")
	}
	slices.Sort(c.away)
	slices.Sort(c.embedded)
	longest, longer := 0.03, c.away.beyond(2*c.embedded.p99())
	if lasting >= 10*time.Second {
		longest = 0.01
	}
	t.Logf("of %d checks while the store was away 99 of 100 took %.2f ms, of %d of the embedded store meanwhile %.2f ms: %.2f times; %.2f%% took longer than twice that",
		len(c.away), c.away.p99(), len(c.embedded), c.embedded.p99(), c.away.p99()/c.embedded.p99(), 100*longer)
	if longer > longest {
		t.Errorf("%.2f%% of the checks while the store was away took more than twice as long as 99 of 100 of the embedded store's, want at most %.0f%%", 100*longer, 100*longest)
	}
}

// run is the life of one fault: healthy, faulty, healthy again.
func (x *faults) run(f fault, lasting time.Duration, table *comparison) {
	t := x.t
	x.closed()
	x.again(x.steady(40*time.Millisecond, "/faults/local"), true) // the server knows the script from then on
	x.decided(0, embedded)
	commands := x.commands()
	before := x.steady(lasting/2, "/faults/local", "/faults/deny")
	_, healthy := x.decided(0, embedded)
	if n := x.commands() - commands; f.name == "none" && n != len(before) {
		t.Errorf("%d deliveries took %d commands, want one each", len(before), n)
	}
	if f.name == "none" {
		redistest.Eventually(t, "the store has run every script that was sent to it, and no other", x.heard)
	}
	x.passed("healthy", before)
	before = only(before, allowed)
	x.closed() // what was late is written back
	wrong, late := x.replay(before[:len(before)/4])

	f.begin(x)
	opening := x.steady(300*time.Millisecond, "/faults/local", "/faults/deny")
	if !f.passing {
		for i := range x.shared() {
			if state := x.metric(i, breakerState); state == "0" {
				t.Errorf("the breaker of replica %d is closed", i)
			}
		}
	}
	x.decided(0, embedded)
	during := x.beside(true, lasting, "/faults/local", "/faults/deny")
	if f.name == "scripts flushed" {
		f.begin(x)
		during = append(during, x.steady(lasting/4, "/faults/local", "/faults/deny")...)
	}
	_, away := x.decided(0, embedded)
	_, unharmed := x.decided(embedded, embedded+1)
	if !f.passing && !f.returns {
		table.faults++
		table.away, table.embedded = append(table.away, away...), append(table.embedded, unharmed...)
	}
	all := slices.Concat(opening, during)
	local := only(all, func(s sent) bool { return s.path == "/faults/local" })
	x.passed("in the fault", local)
	// The replica that let a delivery through knows it, whatever became of the store.
	wrong += count(x.again(only(local, allowed)[:min(len(local), 50)], false), allowed)
	f.end(x)
	x.closed()

	// What a replica recorded meanwhile is written back, and known to the other.
	known := only(all, allowed)
	if !f.loses {
		known = append(known, before...)
	}
	more, later := x.replay(known)
	wrong, late = wrong+more, late+later
	if late > len(known)/20 {
		t.Errorf("%d of %d replays met a store that was late, though nothing is wrong with it", late, len(known))
	}
	if wrong > 0 {
		t.Errorf("%d replays passed", wrong)
	}
	refused := only(all, func(s sent) bool { return s.status == 503 })
	after := slices.Concat(x.again(refused, true), x.steady(lasting/4, "/faults/local", "/faults/deny"))
	x.passed("healthy again", after)
	mistaken := count(slices.Concat(before, all, after), callersFault)
	if mistaken > 0 {
		t.Errorf("%d valid deliveries were answered with a 4xx", mistaken)
	}
	limited, most := x.limit(lasting)
	table.rows = append(table.rows, fmt.Sprintf("| %s | %d | %d | %d | %d | %.1f ms | %.1f ms | %.1f ms | %d of %d | %d |", f.name,
		len(before)+len(all)+len(after), wrong, mistaken, len(refused), healthy.p99(), away.p99(), unharmed.p99(), limited, most, late))
}

// commands is how many scripts the server has run for deliveries: all but the replicas' signs of life and what they tell of the use of secrets,
// each of which clears a sorted set of what is old.
func (x *faults) commands() int {
	if x.server == nil {
		return 0
	}
	return x.server.Calls(x.t, "evalsha") - x.server.Calls(x.t, "zremrangebyscore")
}

// heard says whether the server has run just as many scripts as were sent on the way to it.
func (x *faults) heard() bool {
	sent := x.proxy.Asked("EVALSHA") + x.proxy.Asked("EVAL")
	return sent > 0 && sent == x.server.Calls(x.t, "evalsha")+x.server.Calls(x.t, "eval")
}

// passed wants every valid delivery to pass. At onStoreFailure: deny one may be refused, for a machine that was too busy to answer in time.
func (x *faults) passed(when string, all []sent) {
	x.t.Helper()
	for _, s := range all {
		if !allowed(s) && (s.path != "/faults/deny" || s.status != 503) {
			x.t.Errorf("%s: a valid delivery to %s was answered %d", when, s.path, s.status)
		}
	}
	if n := count(all, allowed); n < len(all)/2 {
		x.t.Errorf("%s: %d of %d valid deliveries passed", when, n, len(all))
	}
}

// limit sends more than the limit to both replicas for a while and counts what passes.
func (x *faults) limit(d time.Duration) (passed, most int) {
	began := time.Now()
	all := x.steady(d, "/faults/limited")
	span := time.Since(began)
	passed = count(all, allowed)
	const rate, burst = 20, 5
	exact := burst + rate*span.Seconds()
	most = int(math.Ceil(exact * 1.01))
	if passed > most {
		x.t.Errorf("the limit let %d through in %s, more than %d", passed, span, most)
	}
	if len(all) > most && float64(passed) < (rate*d.Seconds())*0.5 { // a busy machine does not send evenly
		x.t.Errorf("the limit let %d of %d through in %s", passed, len(all), span)
	}
	if n := count(all, func(s sent) bool { return s.status != 200 && s.status != 429 }); n > 0 {
		x.t.Errorf("%d were answered with neither 200 nor 429", n)
	}
	return passed, most
}
