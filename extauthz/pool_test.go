package extauthz

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/hookauthz/hookauthz/policy"
)

func TestFramePool(t *testing.T) {
	var p framePool
	for _, n := range []int{0, 1, smallFrame - 1, smallFrame, smallFrame + 1, largeFrame, largeFrame + 1, 1 << 20} {
		b := p.Get(n)
		if len(*b) != n {
			t.Errorf("%d bytes: got %d", n, len(*b))
		}
		*b = (*b)[:n/2] // grpc-go gives back a part
		p.Put(b)
	}
	grown := make([]byte, 0, smallFrame+1)
	p.Put(&grown) // is not kept: it would be too small for its pool, or too large
	for range 100 {
		if b := p.Get(largeFrame); len(*b) != largeFrame {
			t.Fatalf("a frame of %d bytes", len(*b))
		}
	}
}

// Deliveries at once, large and small, are each decided by their own bytes and texts, and each gets its own reply: nothing that is used
// again holds anything of another.
func TestDeliveriesDoNotMix(t *testing.T) {
	decider := deciderFunc(func(_ context.Context, r *policy.Request) policy.Decision {
		mark, _ := only(r.Headers, "x-mark")
		want := bytes.Repeat([]byte(mark), r.BodyLen()/max(1, len(mark)))
		if mark == "" || r.Path != "/"+mark || r.RequestID != mark || !bytes.Equal(slices.Concat(r.Body...), want) {
			return policy.Denied(policy.InternalError)
		}
		return policy.Decision{Outcome: policy.Allow, Reason: policy.OK, Endpoint: "hook", DeliveryID: strings.Clone(mark), DeliveryIDSigned: true}
	})
	var j journal
	r := startRig(t, Config{Decider: decider, Logger: j.logger(), Metrics: NewMetrics("test")})
	var senders sync.WaitGroup
	for sender := range 8 {
		client := authv3.NewAuthorizationClient(r.dial(t))
		senders.Go(func() {
			for i := range 40 {
				mark := fmt.Sprintf("%02d%03d.", sender, i)
				d := &delivery{peer: "192.0.2.1", id: mark, method: "POST", path: "/" + mark, body: bytes.Repeat([]byte(mark), 1+(i*i*i)%20_000)}
				for n := range i { // lists of all lengths
					d.add(fmt.Sprint("x-other-", n), mark)
				}
				d.add("x-mark", mark).add("x-request-id", mark)
				m, err := client.Check(soon(t), d.request(i%3 == 0))
				if err != nil {
					t.Error(err)
					return
				}
				if got := headerOf(m.GetOkResponse().GetHeaders(), headerDeliveryID); got != mark {
					t.Errorf("the reply to %s is about %q", mark, got)
				}
				if got := m.GetDynamicMetadata().GetFields()["delivery_id"].GetStringValue(); got != mark {
					t.Errorf("the metadata of %s is about %q", mark, got)
				}
			}
		})
	}
	senders.Wait()
	r.stop()
	<-r.ended
	for _, line := range j.lines(t) {
		if line["request_id"] != line["delivery_id"] || line["path"] != fmt.Sprint("/", line["delivery_id"]) {
			t.Errorf("a line of two deliveries: %v", line)
		}
	}
}
