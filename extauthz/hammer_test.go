package extauthz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/lines"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// spoilt is the pool of frames, which spoils each buffer as soon as it is given back: who still looks at it sees nothing of use.
type spoilt struct{ framePool }

func (p *spoilt) Put(b *[]byte) {
	all := (*b)[:cap(*b)]
	for i := range all {
		all[i] = 0xdd
	}
	p.framePool.Put(b)
}

// hammered is one of the deliveries that come at the same time. Everything in it that is told again says whose it is.
type hammered struct {
	kind    string // the first part of mark
	mark    string
	address string
	want    string // decision and reason
	version string
	*delivery
}

// hammerKind is one way to send a delivery, and what must come of it; want is empty where there may be no answer.
type hammerKind struct {
	name, want, version string
	key                 string // the version that signs
	change              func(*hammered)
}

var hammerKinds = []hammerKind{
	{"first", "allow ok", "1", "1", nil},
	{"second", "allow ok", "2", "2", nil},
	{"large", "allow ok", "1", "1", nil},
	{"forged", "deny signature_mismatch", "", "1", func(h *hammered) { h.body = bytes.Replace(h.body, []byte(`"data":"f`), []byte(`"data":"g`), 1) }},
	{"revoked", "deny secret_expired", "3", "3", nil},
	{"unsigned", "deny signature_missing", "", "1", func(h *hammered) { h.without("stripe-signature") }},
	{"partial", "deny body_partial", "", "1", func(h *hammered) { h.partial = "true" }},
	{"unbuffered", "deny body_missing", "", "1", func(h *hammered) { h.body, h.partial = nil, "-"; h.with("content-length", "0") }},
	{"elsewhere", "deny no_policy", "", "1", func(h *hammered) { h.path = "/elsewhere/" + h.mark }},
	{"denied", "deny source_denied", "", "1", func(h *hammered) { h.peer = "198.51.100.1"; h.address = h.peer }},
	{"panic", "deny internal_error", "", "1", nil},
	{"oversized", "deny body_too_large", "", "1", func(h *hammered) { h.body = bytes.Repeat([]byte("x"), 3<<20) }},
	{"cut", "deny internal_error", "", "1", nil},
	{"reset", "", "", "1", nil},
	{"given-up", "", "", "1", nil},
}

const hammerPolicy = "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: hook}\nspec:\n  match: {paths: [/hook/*]}\n  source: {deny: [198.51.100.0/24]}\n" +
	"  signature: {scheme: stripe, secrets: [{version: \"1\", env: SECRET}, {version: \"2\", env: OTHER}, {version: \"3\", env: THIRD, revoked: true}]}\n" +
	"  failures: unlimited\n  replay: {confirm: outcome, reservation: 60s, onDuplicate: deny}\n"

// newHammered makes the delivery of a mark.
func newHammered(t *testing.T, set *policy.Set, n, worker, turn int) *hammered {
	kind := hammerKinds[n%len(hammerKinds)]
	mark := fmt.Sprintf("%s.%d.%d", kind.name, worker, turn)
	size := 100 + 997*(turn%7)
	if kind.name == "large" {
		size = 200 << 10
	}
	body := fmt.Sprintf(`{"id":"evt-%s","type":"type-%s","data":"%s"}`, mark, mark, strings.Repeat(mark+" ", size/(len(mark)+1)))
	d := signedBy(t, set, policy.SignOptions{Time: noon, Body: []byte(body), Version: kind.key})
	h := &hammered{kind: kind.name, mark: mark, want: kind.want, version: kind.version, delivery: d,
		address: netip.AddrFrom4([4]byte{10, byte(worker), byte(turn >> 8), byte(turn)}).String()}
	d.path, d.peer, d.id = "/hook/"+mark, h.address, "stream-"+mark
	d.with("x-request-id", "request-"+mark)
	if kind.change != nil {
		kind.change(h)
	}
	return h
}

// Many deliveries of all kinds at once, over connections that they share, through every pool: each gets its own verdict, with nothing in
// it, in the log or among the remembered denials of any other, and nothing is allowed that is not signed.
func TestHammer(t *testing.T) {
	const workers, turns, connections = 16, 45, 3
	set := policies(t, hammerPolicy)
	engine := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	var ticks atomic.Int64
	var logged bytes.Buffer
	out := lines.NewWriter(&logged, lines.WriterConfig{MaxPending: 64 << 20})
	denials, metrics := NewDenials(), NewMetrics("test")
	r := startRig(t, Config{
		Decider: decides(func(ctx context.Context, r *policy.Request) policy.Decision {
			d := engine.Decide(ctx, r)
			if strings.Contains(r.Path, "panic.") {
				panic("after an allow")
			}
			return d
		}),
		Now:     func() time.Time { return noon.Add(time.Duration(ticks.Add(1)) * 10 * time.Millisecond) }, // so that few lines are suppressed
		Logger:  slog.New(lines.NewHandler(out, true, slog.LevelInfo)),
		Metrics: metrics, Denials: denials, MaxBody: 1 << 20, pool: new(spoilt),
	})
	var clients []authv3.AuthorizationClient
	for range connections {
		clients = append(clients, authv3.NewAuthorizationClient(r.dial(t)))
	}
	var answered sync.Map // mark -> reservation
	var done sync.WaitGroup
	for worker := range workers {
		done.Go(func() {
			for turn := range turns {
				h := newHammered(t, set, worker+turn, worker, turn)
				m, err := h.send(t, r, clients[(worker+turn)%connections], worker%2 == 0)
				if h.want == "" && (err != nil || m == nil) {
					continue
				}
				if err != nil {
					t.Errorf("%s: the RPC itself failed: %v", h.mark, err)
					continue
				}
				if again, twice := answered.LoadOrStore(h.compare(t, m), h.mark); twice {
					t.Errorf("%s has the reservation of %s", h.mark, again)
				}
			}
		})
	}
	done.Wait()
	await(t, "every call to end", func() bool { return r.openCalls() == 0 })
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	if r.memory.free != r.Limits().Bytes {
		t.Errorf("%d bytes of the budget are free at the end, want all %d", r.memory.free, r.Limits().Bytes)
	}
	out.Close(time.Minute)
	checkHammeredLog(t, &logged)
	checkHammeredDenials(t, denials.Newest())
}

// send sends the delivery in the way of its kind.
func (h *hammered) send(t *testing.T, r *rig, client authv3.AuthorizationClient, merged bool) (*authv3.CheckResponse, error) {
	m := h.request(merged)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if h.kind == "given-up" {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(len(h.mark)%5)*100*time.Microsecond)
		defer cancel()
	}
	if h.kind != "cut" && h.kind != "reset" {
		return client.Check(ctx, m)
	}
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	body := framed(0, uint32(len(data)), data[:len(data)/2]...)
	if h.kind == "cut" {
		return rawCheck(t, r, bytes.NewReader(body), nil)
	}
	return nil, h.abandon(t, r, body)
}

// abandon sends a part of a message and resets the stream.
func (h *hammered) abandon(t *testing.T, r *rig, part []byte) error {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	go func() {
		writer.Write(part)
		cancel()
		writer.CloseWithError(errors.New("given up"))
	}()
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+r.address+authv3.Authorization_Check_FullMethodName, reader)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	response, err := transport.RoundTrip(request)
	if err == nil {
		response.Body.Close()
		err = errors.New("answered all the same")
	}
	return err
}

// compare compares the reply, and gives what no other delivery may have: the reservation, or else the mark.
func (h *hammered) compare(t *testing.T, m *authv3.CheckResponse) string {
	n := notes(t, m)
	verdict := n["decision"] + " " + n["reason"]
	if h.want == "" { // it was in time after all
		if h.kind == "given-up" && verdict != "allow ok" && verdict != "deny deadline_exceeded" {
			t.Errorf("%s: %s", h.mark, verdict)
		}
		h.want, h.version = verdict, n["secret_version"]
	}
	allowed := m.GetStatus() != nil && m.GetStatus().GetCode() == 0
	if verdict != h.want || n["secret_version"] != h.version || allowed != strings.HasPrefix(h.want, "allow") || allowed != (m.GetOkResponse() != nil) {
		t.Errorf("%s: %s with version %q, want %s with %q", h.mark, verdict, n["secret_version"], h.want, h.version)
	}
	unique := n["reservation"]
	if (unique != "") != allowed {
		t.Errorf("%s: %s with the reservation %q", h.mark, verdict, unique)
	}
	if allowed {
		got := set(t, m.GetOkResponse().GetHeaders())
		if got[headerDeliveryID] != "evt-"+h.mark || got[headerEvent] != "type-"+h.mark || got[headerSecretVersion] != h.version || n["delivery_id"] != "evt-"+h.mark {
			t.Errorf("%s: headers %v, metadata %v", h.mark, got, n)
		}
		return unique
	}
	unread := h.kind == "oversized" || h.kind == "cut"
	id := replyOf(t, m).RequestID
	if given := "request-" + h.mark; unread && id != "" || !unread && id != given && (id != "" || h.kind != "given-up") { // which may have been read, or not
		t.Errorf("%s: the answer is to %q", h.mark, id)
	}
	if n["delivery_id"] != "" && n["delivery_id"] != "evt-"+h.mark {
		t.Errorf("%s: metadata %v", h.mark, n)
	}
	return h.mark
}

// told is what a line of the log, or a denial, tells of a delivery.
type told struct {
	Msg           string
	Decision      string
	Reason        string
	EventType     string `json:"event_type"`
	DeliveryID    string `json:"delivery_id"`
	SecretVersion string `json:"secret_version"`
	ClientAddress string `json:"client_address"`
	Path          string
	RequestID     string `json:"request_id"`
}

// check looks whether everything is told of one delivery.
func (l *told) check(t *testing.T) {
	mark, found := strings.CutPrefix(l.RequestID, "request-")
	if !found {
		if l.Path != "" || l.DeliveryID != "" || l.SecretVersion != "" || l.ClientAddress != "" {
			t.Errorf("a delivery that was not read is told of: %+v", l)
		}
		return
	}
	kind, numbers, _ := strings.Cut(mark, ".")
	var worker, turn int
	fmt.Sscanf(numbers, "%d.%d", &worker, &turn)
	address := netip.AddrFrom4([4]byte{10, byte(worker), byte(turn >> 8), byte(turn)}).String()
	if kind == "denied" {
		address = "198.51.100.1"
	}
	place := slices.IndexFunc(hammerKinds, func(k hammerKind) bool { return k.name == kind })
	if place < 0 || !strings.HasSuffix(l.Path, "/"+mark) || (l.DeliveryID != "" && l.DeliveryID != "evt-"+mark) ||
		(l.EventType != "" && l.EventType != "type-"+mark) || (l.ClientAddress != "" && l.ClientAddress != address) {
		t.Errorf("a line of more than one delivery: %+v", l)
		return
	}
	if k := hammerKinds[place]; k.want != "" && (!strings.HasSuffix(k.want, " "+l.Reason) || l.SecretVersion != k.version) {
		t.Errorf("told of %s: %+v", mark, l)
	}
}

func checkHammeredLog(t *testing.T, log *bytes.Buffer) {
	t.Helper()
	kinds := make(map[string]bool)
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		var l told
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("the line %q: %v", line, err)
		}
		if l.Msg == "decision" {
			l.check(t)
			kinds[l.Reason] = true
		}
		if strings.Contains(line, environment["SECRET"]) || strings.Contains(line, `"data"`) || strings.ContainsRune(line, 0xfffd) {
			t.Errorf("the line %q holds what it should not", line)
		}
	}
	for _, k := range hammerKinds {
		if _, reason, _ := strings.Cut(k.want, " "); reason != "" && !kinds[reason] {
			t.Errorf("no line tells of %s", reason)
		}
	}
}

func checkHammeredDenials(t *testing.T, list []Denial) {
	t.Helper()
	for _, d := range list {
		l := told{Reason: d.Reason, EventType: d.EventType, DeliveryID: d.DeliveryID, SecretVersion: d.SecretVersion, ClientAddress: d.ClientAddress, Path: d.Path, RequestID: d.RequestID}
		l.check(t)
	}
	if len(list) == 0 {
		t.Error("no denial is remembered")
	}
}
