package extauthz

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/hookauthz/hookauthz/policy"
)

// poison is a pool that spoils a buffer as soon as it is given back, and never hands it out again.
type poison struct{}

func (poison) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (poison) Put(b *[]byte) {
	for i := range *b {
		(*b)[i] = 0xdd
	}
}

// seen is what a decider saw of one request, kept longer than it may be.
type seen struct {
	request policy.Request
	body    []byte // a copy
	headers []policy.Header
}

// While a delivery is decided its body is what was sent; afterwards the memory belongs to grpc-go again. Texts stay what they were.
func TestViewsOfAMessage(t *testing.T) {
	var kept []seen
	decider := deciderFunc(func(_ context.Context, r *policy.Request) policy.Decision {
		kept = append(kept, seen{*r, slices.Concat(r.Body...), slices.Clone(r.Headers)})
		return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook", DeliveryID: r.StreamID}
	})
	r := startRig(t, Config{Decider: decider, pool: poison{}})
	client := authv3.NewAuthorizationClient(r.dial(t))
	var bodies [][]byte
	for i, size := range []int{1, 2 << 10, 64 << 10, 1 << 20} {
		body := bytes.Repeat([]byte{byte('a' + i)}, size)
		bodies = append(bodies, body)
		d := &delivery{peer: "192.0.2.1", method: "POST", path: "/hook", id: fmt.Sprint("mark ", i), headers: []policy.Header{
			{Name: partialBodyHeader, Value: "false"}, {Name: "x-mark", Value: fmt.Sprint("mark ", i)}}, body: body}
		m, err := client.Check(t.Context(), d.request(false))
		if err != nil || m.GetOkResponse() == nil {
			t.Fatalf("%d bytes: %v, %v", size, m, err)
		}
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	for i, s := range kept {
		if !bytes.Equal(s.body, bodies[i]) {
			t.Errorf("request %d: a body of %d bytes was seen, %d were sent", i, len(s.body), len(bodies[i]))
		}
		mark := fmt.Sprint("mark ", i)
		if !slices.ContainsFunc(s.headers, func(h policy.Header) bool { return h.Name == "x-mark" && h.Value == mark }) ||
			s.request.Path != "/hook" || s.request.Method != "POST" || s.request.StreamID != mark {
			t.Errorf("request %d: its texts have changed: %q %q %q, %q", i, s.request.Method, s.request.Path, s.request.StreamID, s.headers)
		}
		// The test would see a body that is used after its time: it is spoilt by now, but for scraps that grpc-go leaves to the garbage collector.
		after := slices.Concat(s.request.Body...)
		if spoilt := bytes.Count(after, []byte{0xdd}); len(after) > 1<<10 && spoilt < len(after)*9/10 {
			t.Errorf("request %d: %d bytes of %d were given back", i, spoilt, len(after))
		}
	}
}
