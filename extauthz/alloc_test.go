//go:build !race

package extauthz

import (
	"io"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// A decision costs no memory, with every step at work but a signed handshake, which is read anew. Under the race detector sync.Pool drops what it holds at random.
func TestDecisionsDoNotAllocate(t *testing.T) {
	for _, scheme := range []string{githubScheme, stripeScheme, `scheme: x-webhook-signature, secrets: [{version: "1", env: SECRET}]`, `scheme: shopify, secrets: [{version: "1", env: SECRET}]`} {
		set := policies(t, webhook(scheme, `source: {allow: [192.0.2.0/24]}`, `body: {contentTypes: [application/json]}`,
			`rateLimits: [{limit: 1000000/second}, {name: address, by: clientAddress, limit: 1000000/second}, {name: kind, by: header, header: x-kind, limit: 1000000/second}]`,
			`replay: {onDuplicate: tag, window: 20m}`))
		engine := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
		d := signed(t, set, noon, `{"a":"b"}`).with("content-type", "application/json")
		d.id = "" // the memory of streams grows
		request := decodeMessage(t, d.request(false))
		request.Time = noon
		if n := testing.AllocsPerRun(500, func() {
			request.Time = request.Time.Add(time.Microsecond)
			if got := engine.Decide(t.Context(), request); got.Outcome != policy.Allow {
				t.Fatalf("denied: %s", got.Reason)
			}
		}); n >= 1 { // a garbage collection may empty a pool
			t.Errorf("%s: %v allocations a decision", scheme, n)
		}
	}
}

// What a check costs beside grpc-go: two copies of texts, its context, the text of its address, and the list of the reply's buffers.
func TestChecksAllocateLittle(t *testing.T) {
	s, set := loneServer(t, NewMetrics("test"), io.Discard)
	stream := newLoneStream(t, loneDelivery(t, set, 2<<10))
	if n := testing.AllocsPerRun(1000, func() {
		stream.next()
		if err := s.check(stream); err != nil {
			t.Fatal(err)
		}
	}); n > 5 {
		t.Errorf("%v allocations a check", n)
	}
}
