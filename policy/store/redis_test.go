package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
	"github.com/hookauthz/hookauthz/policy/store/storetest"
)

// open connects to a server.
func open(t testing.TB, url string, change func(*store.RedisConfig)) *store.Redis {
	t.Helper()
	c, err := store.ParseRedisURL(url)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	r := store.NewRedis(c)
	if err := r.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestRedis(t *testing.T) {
	r := open(t, redistest.Shared(t).URL(), (*store.RedisConfig).GoByCallersClock)
	storetest.Run(t, func(*testing.T) policy.Store { return r })
}

// The script's arithmetic is that of rate.Limit.Take, to the nanosecond.
func TestRedisLimitsAreExact(t *testing.T) {
	r := open(t, redistest.Shared(t).URL(), (*store.RedisConfig).GoByCallersClock)
	life := 0
	rapid.Check(t, func(rt *rapid.T) {
		life++
		l := rate.Limit{
			Count:  rapid.IntRange(1, 1_000_000).Draw(rt, "count"),
			Burst:  rapid.IntRange(1, 50).Draw(rt, "burst"),
			Period: time.Duration(rapid.Int64Range(int64(time.Second), int64(24*time.Hour)).Draw(rt, "period")),
		}
		now, stored := start, int64(0)
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), 2*int64(l.Period)/int64(l.Count)).Draw(rt, "pass")))
			if rapid.Bool().Draw(rt, "at once") {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "ahead")))
			}
			next, ok, after := l.Take(stored, now.UnixNano())
			stored = next
			want := policy.Taken{RetryAfter: after}
			if !ok {
				want.Limited = 1
			}
			got, err := r.Take(t.Context(), &policy.Take{Time: now, Endpoint: fmt.Sprint("exact", life), Buckets: []policy.Bucket{{Key: key(1), Limit: l}}})
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("step %d of %+v (-want +got):\n%s", i+1, l, diff)
			}
		}
	})
}

// within is a context as the guard gives it.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestRedisGoesByServersClock(t *testing.T) {
	r := open(t, redistest.Shared(t).URL(), nil)
	take := delivery(1)
	take.Endpoint, take.Window = t.Name(), time.Hour
	take.Time = time.Now().Add(-48 * time.Hour) // a caller whose clock is wrong
	if got, err := r.Take(within(t, time.Second), take); err != nil || got != (policy.Taken{}) {
		t.Fatalf("got %+v, %v, want a new delivery", got, err)
	}
	later := *take
	later.Time = time.Now().Add(48 * time.Hour)
	if got, err := r.Take(within(t, time.Second), &later); err != nil || !got.Duplicate {
		t.Errorf("got %+v, %v, want a duplicate", got, err)
	}
	limit := &policy.Take{Time: take.Time, Endpoint: t.Name(), Buckets: []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 1}}}}
	for i, want := range []int{0, 1} {
		got, err := r.Take(within(t, time.Second), limit)
		if err != nil || got.Limited != want {
			t.Errorf("take %d: got %+v, %v, want limited %d", i+1, got, err, want)
		}
		if want == 1 && (got.RetryAfter > time.Hour || got.RetryAfter < time.Hour-time.Minute) {
			t.Errorf("retry after %s, want nearly an hour", got.RetryAfter)
		}
	}
}

func TestRedisKeys(t *testing.T) {
	s := redistest.Start(t)
	r := open(t, s.URL(), nil)
	take := delivery(1)
	take.Messages = append(take.Messages, message(2), message(1))
	take.Endpoint, take.Stream, take.Reservation = "github-ci", "secret-looking stream", time.Minute
	take.Buckets = []policy.Bucket{{Key: key(7), Limit: rate.Limit{Count: 1, Period: time.Minute, Burst: 3}}}
	before := s.Calls(t, "evalsha") + s.Calls(t, "eval")
	taken, err := r.Take(within(t, time.Second), take)
	if err != nil || taken.Token == (policy.Token{}) {
		t.Fatalf("got %+v, %v, want a reservation", taken, err)
	}
	if got := s.Calls(t, "evalsha") + s.Calls(t, "eval") - before; got != 2 { // the first is answered with NOSCRIPT
		t.Errorf("%d scripts were run, want 2", got)
	}
	if _, err := r.Alive(within(t, time.Second), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := r.Probe(within(t, time.Second), "github-ci"); err != nil {
		t.Fatal(err)
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Address()}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	const wanted = 8 // record, alias, bucket, stream, token, two probes, replicas
	if len(keys) != wanted {
		t.Errorf("%d keys, want %d: %q", len(keys), wanted, keys)
	}
	for _, k := range keys {
		ttl, err := c.Do(t.Context(), c.B().Pttl().Key(k).Build()).AsInt64()
		if err != nil || ttl <= 0 || ttl > time.Hour.Milliseconds() {
			t.Errorf("the key %q lives for %d ms, %v, want up to an hour", k, ttl, err)
		}
		connecting := strings.HasPrefix(k, "hookauthz:{#") && strings.HasSuffix(k, "}:probe")
		if !strings.HasPrefix(k, "hookauthz:{github-ci}:") && k != "hookauthz:replicas" && !connecting || len(k) > 64 {
			t.Errorf("the key %q is not in its place", k)
		}
	}
	// From then on, one command a delivery.
	before, all := s.Calls(t, "evalsha"), s.Calls(t, "eval")
	for n := range 100 {
		next := *take
		next.Messages = []signature.MessageID{message(100 + n)}
		next.Stream = fmt.Sprint(n)
		if _, err := r.Take(within(t, time.Second), &next); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Calls(t, "evalsha") - before; got != 100 || s.Calls(t, "eval") != all {
		t.Errorf("100 deliveries took %d calls by SHA and %d by text, want 100 and 0", got, s.Calls(t, "eval")-all)
	}
}

// A proxy in between sees one command for each delivery, however many are under way at once.
func TestRedisOnTheWire(t *testing.T) {
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Address())
	r := open(t, proxy.URL(), nil)
	if _, err := r.Take(within(t, time.Second), delivery(0)); err != nil { // the server knows the script from then on
		t.Fatal(err)
	}
	before, sent := proxy.Asked("EVALSHA"), proxy.Asked("EVAL")
	const deliveries = 200
	var all sync.WaitGroup
	for n := range deliveries {
		all.Go(func() {
			take := delivery(n + 1)
			take.Stream, take.Window, take.Reservation = fmt.Sprint(n), time.Hour, time.Minute
			take.Buckets = []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1e6, Period: time.Second, Burst: 1e6}}}
			if got, err := r.Take(within(t, 10*time.Second), take); err != nil || got.Duplicate {
				t.Errorf("got %+v, %v, want a new delivery", got, err)
			}
		})
	}
	all.Wait()
	if got := proxy.Asked("EVALSHA") - before; got != deliveries {
		t.Errorf("%d commands for %d deliveries", got, deliveries)
	}
	if got := proxy.Asked("EVAL") - sent; got != 0 {
		t.Errorf("the script was sent %d times more", got)
	}
}

func TestRedisSendsItsScriptAgain(t *testing.T) {
	s := redistest.Start(t)
	r := open(t, s.URL(), nil)
	for n := range 3 {
		if got, err := r.Take(within(t, time.Second), delivery(n)); err != nil || got.Duplicate {
			t.Fatalf("delivery %d: got %+v, %v", n, got, err)
		}
		s.Do(t, "SCRIPT", "FLUSH")
	}
	if got, err := r.Take(within(t, time.Second), delivery(0)); err != nil || !got.Duplicate {
		t.Errorf("got %+v, %v, want a duplicate", got, err)
	}
}

// A call that its caller has given up does nothing when the server gets to it.
func TestRedisTooLate(t *testing.T) {
	s := redistest.Start(t)
	r := open(t, s.URL(), nil)
	for n := range 4 { // the server's clock and its scripts are known now, on each connection
		if _, err := r.Take(within(t, time.Second), delivery(n)); err != nil {
			t.Fatal(err)
		}
	}
	s.Signal(syscall.SIGSTOP)
	_, err := r.Take(within(t, 50*time.Millisecond), delivery(77))
	s.Signal(syscall.SIGCONT)
	if err == nil {
		t.Fatal("a stopped server has answered")
	}
	// The server reads what it was sent before it answers to this.
	s.Do(t, "PING")
	if got, err := r.Take(within(t, time.Second), delivery(77)); err != nil || got.Duplicate {
		t.Errorf("got %+v, %v, want a new delivery: the first was given up", got, err)
	}
}

// The first call of a process is no exception: others have told the server the script.
func TestRedisFirstCallTooLate(t *testing.T) {
	s := redistest.Start(t)
	if _, err := open(t, s.URL(), nil).Take(within(t, time.Second), delivery(1)); err != nil {
		t.Fatal(err)
	}
	r := open(t, s.URL(), nil)
	s.Signal(syscall.SIGSTOP)
	_, err := r.Take(within(t, 50*time.Millisecond), delivery(77))
	s.Signal(syscall.SIGCONT)
	if err == nil {
		t.Fatal("a stopped server has answered")
	}
	s.Do(t, "PING")
	if got, err := r.Take(within(t, time.Second), delivery(77)); err != nil || got.Duplicate {
		t.Errorf("got %+v, %v, want a new delivery: the first was given up", got, err)
	}
}

// Where a clock is set, a call that comes too late by the old reckoning is made again by the new one.
func TestRedisClockIsSet(t *testing.T) {
	r := open(t, redistest.Start(t).URL(), nil)
	if _, err := r.Take(within(t, time.Second), delivery(1)); err != nil {
		t.Fatal(err)
	}
	r.SetBack(time.Hour)
	if got, err := r.Take(within(t, time.Second), delivery(2)); err != nil || got.Duplicate {
		t.Errorf("got %+v, %v, want a new delivery", got, err)
	}
	if got, err := r.Take(within(t, time.Second), delivery(2)); err != nil || !got.Duplicate {
		t.Errorf("got %+v, %v, want a duplicate", got, err)
	}
}

// A server whose rights are taken away is away until they are back: the probe does what a decision does.
func TestRedisProbes(t *testing.T) {
	s := redistest.Start(t)
	s.Do(t, "ACL", "SETUSER", "hookauthz", "on", "nopass", "~hookauthz:*", "+@all")
	r := open(t, "redis://hookauthz:any@"+s.Address(), nil)
	for _, right := range []string{"evalsha", "set"} {
		s.Do(t, "ACL", "SETUSER", "hookauthz", "-"+right)
		if err := r.Probe(within(t, time.Second), "e"); err == nil {
			t.Errorf("the store is back for a user who may not run %s", right)
		}
		s.Do(t, "ACL", "SETUSER", "hookauthz", "+"+right)
		if err := r.Probe(within(t, time.Second), "e"); err != nil {
			t.Error(err)
		}
	}
}

// A server without room is one to start with: it refuses what it knows, and says of the rest that it has none.
func TestRedisStartsWithoutRoom(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "1")
	if _, err := open(t, s.URL(), nil).Take(within(t, time.Second), delivery(1)); !errors.Is(err, policy.ErrStoreFull) {
		t.Errorf("got %v, want that it is full", err)
	}
}

func TestRedisWithoutRoom(t *testing.T) {
	s := redistest.Start(t)
	r := open(t, s.URL(), nil)
	if _, err := r.Take(within(t, time.Second), delivery(1)); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "CONFIG", "SET", "maxmemory", "1")
	limited := delivery(2)
	limited.Stream, limited.Buckets = "s", []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 1}}}
	if _, err := r.Take(within(t, time.Second), limited); !errors.Is(err, policy.ErrStoreFull) {
		t.Errorf("got %v, want %v", err, policy.ErrStoreFull)
	}
	if got, err := r.Take(within(t, time.Second), delivery(1)); err != nil || !got.Duplicate {
		t.Errorf("got %+v, %v, want a duplicate: what is known is known", got, err)
	}
	s.Do(t, "CONFIG", "SET", "maxmemory", "0")
	if got, err := r.Take(within(t, time.Second), limited); err != nil || got != (policy.Taken{}) {
		t.Errorf("got %+v, %v, want nothing spent by the refusal", got, err)
	}
}

func TestRedisCountsReplicas(t *testing.T) {
	s := redistest.Start(t)
	one, two := open(t, s.URL(), nil), open(t, s.URL(), nil)
	for i, want := range []int{1, 2, 2} {
		r := []*store.Redis{one, two, one}[i]
		if got, err := r.Alive(within(t, time.Second), time.Minute); err != nil || got != want {
			t.Errorf("call %d: got %d, %v, want %d", i+1, got, err, want)
		}
	}
	// The server's clock is set back by a day, and replicas that have ended since leave no sign of life from the day to come.
	s.Do(t, "ZADD", "hookauthz:replicas", fmt.Sprint(time.Now().Add(24*time.Hour).UnixMilli()), "a", fmt.Sprint(time.Now().Add(25*time.Hour).UnixMilli()), "b")
	if got, err := one.Alive(within(t, time.Second), time.Minute); err != nil || got != 4 {
		t.Errorf("got %d, %v, want 4", got, err)
	}
	if got := s.Do(t, "ZCOUNT", "hookauthz:replicas", fmt.Sprint(time.Now().Add(time.Hour).UnixMilli()), "+inf"); got != ":0" {
		t.Errorf("%s of them count until tomorrow", got)
	}
	for { // the other ones fall silent
		got, err := one.Alive(within(t, time.Second), time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if got == 1 {
			break
		}
	}
}

// What one replica has recorded holds at another, and after a restart.
func TestRedisAcrossReplicas(t *testing.T) {
	s := redistest.Start(t)
	one, two := open(t, s.URL(), nil), open(t, s.URL(), nil)
	now := time.Now()
	reserved := func(n int, stream string) *policy.Take {
		return &policy.Take{Time: now, Endpoint: "e", Stream: stream, Messages: []signature.MessageID{message(n)}, Window: time.Hour, Reservation: time.Minute}
	}
	ask := func(r *store.Redis, take *policy.Take, want policy.Taken) policy.Taken {
		t.Helper()
		got, err := r.Take(within(t, time.Second), take)
		if err != nil {
			t.Fatal(err)
		}
		token := got.Token
		got.Token, got.RetryAfter = policy.Token{}, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return policy.Taken{Token: token}
	}
	settle := func(r *store.Redis, endpoint string, token policy.Token, confirmed, want bool) {
		t.Helper()
		if got, err := r.Settle(within(t, time.Second), now, endpoint, token, confirmed); err != nil || got != want {
			t.Errorf("settling at %q: got %v, %v, want %v", endpoint, got, err, want)
		}
	}
	inFlight, duplicate := policy.Taken{Duplicate: true, InFlight: true}, policy.Taken{Duplicate: true}

	first := ask(one, reserved(1, "stream"), policy.Taken{})
	ask(two, reserved(1, "another"), inFlight)
	// Envoy has given one up and asks two, whose clock is behind by just that.
	if again := ask(two, reserved(1, "stream"), policy.Taken{Retry: true}); again.Token != first.Token {
		t.Errorf("the retry got another token")
	}
	if err := one.Release(within(t, time.Second), reserved(1, "stream")); err != nil { // it has learned that it was given up
		t.Fatal(err)
	}
	ask(two, reserved(1, "another"), inFlight)

	for _, endpoint := range []string{"f", "", "e}:m:{e", strings.Repeat("{e}", 1<<18)} { // of another endpoint
		settle(one, endpoint, first.Token, false, false)
	}
	settle(one, "e", policy.Token{}, false, false)
	settle(one, "e", first.Token, false, true) // the log comes to the replica that did not decide
	settle(two, "e", first.Token, true, false)
	second := ask(two, reserved(1, "resent"), policy.Taken{})
	settle(two, "e", first.Token, true, false)
	settle(two, "e", second.Token, true, true)
	settle(one, "e", second.Token, false, false)
	ask(one, reserved(1, "replayed"), duplicate)
	one.Close()
	ask(open(t, s.URL(), nil), reserved(1, "replayed later"), duplicate)
}

// Two replicas at once never let one more through than the limit.
func TestRedisLimitIsShared(t *testing.T) {
	s := redistest.Start(t)
	replicas := []*store.Redis{open(t, s.URL(), nil), open(t, s.URL(), nil)}
	const burst, workers, each = 100, 64, 10
	var passed atomic.Int64
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for range each {
				got, err := replicas[worker%2].Take(t.Context(), &policy.Take{Time: time.Now(), Endpoint: "e",
					Buckets: []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1, Period: 24 * time.Hour, Burst: burst}}}})
				if err != nil {
					t.Error(err)
				} else if got.Limited == 0 {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != burst {
		t.Errorf("%d passed, want %d", passed.Load(), burst)
	}
}

// The rights that docs/state.md names are enough for everything.
func TestRedisUser(t *testing.T) {
	page, err := os.ReadFile("../../docs/state.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rule, found := strings.Cut(string(page), "`ACL SETUSER hookauthz on >PASSWORD ")
	rule, _, _ = strings.Cut(rule, "`")
	if !found {
		t.Fatal("the page names no rights")
	}
	s := redistest.Start(t)
	s.Do(t, append([]string{"ACL", "SETUSER", "hookauthz", "on", ">pw"}, strings.Fields(rule)...)...)
	r := open(t, "redis://hookauthz:pw@"+s.Address(), nil)
	take := delivery(1)
	take.Stream, take.Reservation = "s", time.Minute
	take.Buckets = []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 9}}}
	for range 2 {
		taken, err := r.Take(within(t, time.Second), take)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := r.Settle(within(t, time.Second), time.Now(), take.Endpoint, taken.Token, false); err != nil || !ok {
			t.Errorf("settle: %v, %v", ok, err)
		}
		if err := r.Release(within(t, time.Second), take); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Take(within(t, time.Second), take); err != nil {
		t.Error(err)
	}
	if got, err := r.Take(within(t, time.Second), take); err != nil || !got.Retry {
		t.Errorf("got %+v, %v, want a retry", got, err)
	}
	if _, err := r.Alive(within(t, time.Second), time.Minute); err != nil {
		t.Error(err)
	}
	if err := r.Probe(within(t, time.Second), "e"); err != nil {
		t.Error(err)
	}
	keepsIncidents(t, r)
	if err := r.NoteUses(within(t, time.Second), []policy.SecretUse{used("e", "1", time.Now())}); err != nil {
		t.Error(err)
	}
	if _, err := r.LastUses(within(t, time.Second)); err != nil {
		t.Error(err)
	}
}

func used(endpoint, version string, at time.Time) policy.SecretUse {
	return policy.SecretUse{VersionID: policy.VersionID{Endpoint: endpoint, Version: version}, LastUsed: at}
}

// The latest moment that any process has noted stands, and none lies ahead of the store's clock.
func TestRedisUses(t *testing.T) {
	s := redistest.Start(t)
	one, two := open(t, s.URL(), nil), open(t, s.URL(), nil)
	now := time.Now().Truncate(time.Millisecond)
	note := func(r *store.Redis, uses ...policy.SecretUse) {
		t.Helper()
		if err := r.NoteUses(within(t, 10*time.Second), uses); err != nil {
			t.Fatal(err)
		}
	}
	before := s.Calls(t, "evalsha") + s.Calls(t, "eval")
	note(one)
	if got := s.Calls(t, "evalsha") + s.Calls(t, "eval"); got != before {
		t.Errorf("nothing to say took %d calls", got-before)
	}
	note(one, used("a", "2026-04", now.Add(-time.Hour)), used("a", "2026-10", now.Add(-time.Minute)), used("b.c", "v/1", now.Add(-time.Second)))
	note(two, used("a", "2026-04", now.Add(-2*time.Hour)), used("a", "2026-10", now.Add(-time.Second)))
	note(two, used("ahead", "1", now.Add(time.Hour)), used("forgotten", "1", now.Add(-91*24*time.Hour)))
	got, err := one.LastUses(within(t, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if ahead := got[policy.VersionID{Endpoint: "ahead", Version: "1"}]; ahead.Before(now) || ahead.After(time.Now()) {
		t.Errorf("a clock that goes ahead: got %s, want the store's %s", ahead, now)
	}
	delete(got, policy.VersionID{Endpoint: "ahead", Version: "1"})
	note(two) // prunes nothing: there is nothing to say
	note(two, used("a", "2026-04", now.Add(-3*time.Hour)))
	again, err := one.LastUses(within(t, time.Second))
	if err != nil || len(again) != 4 {
		t.Errorf("got %v, %v: want what is older than 90 days gone with the next word", again, err)
	}
	want := map[policy.VersionID]time.Time{
		{Endpoint: "a", Version: "2026-04"}:   now.Add(-time.Hour),
		{Endpoint: "a", Version: "2026-10"}:   now.Add(-time.Second),
		{Endpoint: "b.c", Version: "v/1"}:     now.Add(-time.Second),
		{Endpoint: "forgotten", Version: "1"}: now.Add(-91 * 24 * time.Hour),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Many are few commands, and one lives no longer than the others.
	many := make([]policy.SecretUse, 70_000)
	for i := range many {
		many[i] = used("many", strconv.Itoa(i), now)
	}
	note(one, many...)
	note(one, used("a", "2026-10", now), used("new", "1", now))
	if got, err = one.LastUses(within(t, 10*time.Second)); err != nil || len(got) != 1<<16 {
		t.Errorf("%d versions are kept, %v; want %d", len(got), err, 1<<16)
	}
	if at := got[policy.VersionID{Endpoint: "a", Version: "2026-10"}]; !at.Equal(now) {
		t.Errorf("without room a known version is at %s, want %s", at, now)
	}
	if ttl := s.Do(t, "PTTL", "hookauthz:secrets"); ttl == "-1" {
		t.Error("the key has no time to live")
	}
}

func TestParseRedisURL(t *testing.T) {
	type parsed struct {
		Addresses                    []string
		Username, Password, Sentinel string
		Database                     int
		Cluster, TLS                 bool
		ServerName                   string
	}
	tests := []struct {
		url    string
		want   parsed
		prints string
	}{
		{"redis://localhost", parsed{Addresses: []string{"localhost:6379"}}, "redis://localhost:6379/0"},
		{"redis://localhost:7000/3", parsed{Addresses: []string{"localhost:7000"}, Database: 3}, "redis://localhost:7000/3"},
		{"redis://u:p%23w@h/", parsed{Addresses: []string{"h:6379"}, Username: "u", Password: "p#w"}, "redis://h:6379/0"},
		{"redis://:pw@h", parsed{Addresses: []string{"h:6379"}, Password: "pw"}, "redis://h:6379/0"},
		{"rediss://h", parsed{Addresses: []string{"h:6379"}, TLS: true, ServerName: "h"}, "rediss://h:6379/0"},
		{"rediss://h:1?cluster=true&addr=i:2", parsed{Addresses: []string{"h:1", "i:2"}, TLS: true, Cluster: true}, "rediss://h:1,i:2/0?cluster=true"},
		{"redis://h?sentinel=main&addr=i&addr=j:1", parsed{Addresses: []string{"h:26379", "i:26379", "j:1"}, Sentinel: "main"}, "redis://h:26379,i:26379,j:1/0?sentinel=main"},
		{"redis://[::1]:7000", parsed{Addresses: []string{"[::1]:7000"}}, "redis://[::1]:7000/0"},
	}
	for _, tt := range tests {
		c, err := store.ParseRedisURL(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		got := parsed{c.Addresses, c.Username, c.Password, c.Sentinel, c.Database, c.Cluster, c.TLS != nil, ""}
		if c.TLS != nil {
			got.ServerName = c.TLS.ServerName
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.url, diff)
		}
		if c.String() != tt.prints {
			t.Errorf("%s prints as %s, want %s", tt.url, c, tt.prints)
		}
	}
}

func TestParseRedisURLFaults(t *testing.T) {
	tests := []struct{ url, want string }{
		{"http://u:hunter2@h", `the URL of the store has the scheme "http", not redis or rediss`},
		{"redis://u:hunter2@h:port", "the URL of the store cannot be read"},
		{"redis://u:hunter2@h:99999", `the URL of the store has the address "h:99999", which is not host:port`},
		{"redis://u:hunter2@", "the URL of the store names no host"},
		{"redis:hunter2", "the URL of the store names no host"},
		{"redis://u:p#hunter2@h", "the URL of the store cannot be read"},
		{"redis://h#hunter2", "the URL of the store has a '#': in a password it is written %23"},
		{"redis://h/one", `the URL of the store names the database "one", which is not a number`},
		{"redis://h/-1", `the URL of the store names the database "-1", which is not a number`},
		{"redis://h?cluster=maybe", "the URL of the store says cluster=maybe, not true or false"},
		{"redis://h/2?cluster=true", "the URL of the store names the database 2: a cluster has none but 0"},
		{"redis://h?cluster=true&cluster=false", `the URL of the store has the parameter "cluster" more than once`},
		{"redis://h?cluster=true&sentinel=a", "the URL of the store names a cluster and a sentinel: it can be one of them"},
		{"redis://h?sentinel=", "the URL of the store names no primary in the parameter sentinel"},
		{"redis://h?skip_verify=true", `the URL of the store has an unknown parameter "skip_verify"`},
		{"redis://h?addr=i", "the URL of the store has several addresses, and neither cluster nor sentinel"},
		{"redis://h?addr=:1&cluster=true", `the URL of the store has the address ":1", which is not host:port`},
	}
	for _, tt := range tests {
		_, err := store.ParseRedisURL(tt.url)
		var refused *store.Refused
		if !errors.As(err, &refused) || err.Error() != tt.want || refused.Fix == "" {
			t.Errorf("%s: got %v, want %s", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error()+refused.Fix, "hunter2") {
			t.Errorf("%s: the password is in %v", tt.url, err)
		}
	}
}

func TestRedisRefuses(t *testing.T) {
	s := redistest.Start(t, "--requirepass", "hunter2", "--databases", "2")
	free := redistest.Start(t)
	replica := redistest.Start(t)
	replica.Do(t, "REPLICAOF", "127.0.0.1", "1")
	cluster := redistest.Start(t, "--cluster-enabled", "yes")
	alone := redistest.Start(t, "--min-replicas-to-write", "1")
	free.Do(t, "ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", "-eval", "-evalsha")
	with := func(userinfo, more string) string { return "redis://" + userinfo + s.Address() + more }
	tests := []struct{ name, url, want, fix string }{
		{"no password", with("", ""), "NOAUTH", "the server wants a password"},
		{"wrong password", with(":wrong-secret@", ""), "WRONGPASS", "check the user and the password"},
		{"wrong user", with("nobody:hunter2@", ""), "WRONGPASS", "check the user and the password"},
		{"wrong database", with(":hunter2@", "/7"), "DB index is out of range", "give a database that the server has"},
		{"nobody there", "redis://127.0.0.1:1", "connection refused", "start the server, or correct the host and port"},
		{"TLS to a plain port", "rediss://" + free.Address(), "deadline exceeded", "the server may speak no TLS at this port"},
		{"a cluster without the flag", cluster.URL(), "it is a node of a cluster", "add ?cluster=true to the URL"},
		{"the flag without a cluster", free.URL() + "?cluster=true", "it is no node of a cluster", "leave cluster=true out"},
		{"a sentinel's name without sentinels", "redis://" + free.Address() + "?sentinel=main", "unknown command", "it is no sentinel: leave sentinel=NAME out of the URL"},
		{"an old Redis", "redis://" + redistest.Claiming(t, "redis", "6.2.14"), "it is redis 6.2.14, which is too old", "upgrade it to 7 or later"},
		{"an old Valkey", "redis://" + redistest.Claiming(t, "valkey", "7.2.8"), "it is valkey 7.2.8, which is too old", "upgrade it to 8 or later"},
		{"another server", "redis://" + redistest.Claiming(t, "dragonfly", "1.2.3"), `it is a server "dragonfly" of version "1.2.3"`, "give the URL of a Redis 7 or Valkey 8 server, or later"},
		{"a user who may run no scripts", "redis://reader:any@" + free.Address(), "NOPERM", "let the user run EVALSHA, EVAL"},
		{"a primary that wants replicas", alone.URL(), "NOREPLICAS", "let the replicas of the primary connect"},
		{"a replica", replica.URL(), "takes no writes", "give the URL of the primary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := store.ParseRedisURL(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			r := store.NewRedis(c)
			defer r.Close()
			err = r.Connect(within(t, 5*time.Second))
			var refused *store.Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(refused.Fix, tt.fix) {
				t.Fatalf("got %v (%+v), want %q and %q", err, refused, tt.want, tt.fix)
			}
			for _, secret := range []string{"hunter2", "wrong-secret"} {
				if strings.Contains(err.Error()+refused.Fix, secret) {
					t.Errorf("the password is in %v", err)
				}
			}
		})
	}
}
