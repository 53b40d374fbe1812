package extauthz

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hookauthz/hookauthz/policy"
)

// logEntry is one line of Envoy's access log: the application's answer, beside the metadata of our reply.
func logEntry(code uint32, metadata map[string]string) *datav3.HTTPAccessLogEntry {
	fields := make(map[string]*structpb.Value)
	for name, value := range metadata {
		fields[name] = structpb.NewStringValue(value)
	}
	e := &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.ext_authz": {Fields: fields}}}},
		Response:         &datav3.HTTPResponseProperties{},
	}
	if code != 0 {
		e.Response.ResponseCode = wrapperspb.UInt32(code)
	}
	return e
}

func httpLogs(entries ...*datav3.HTTPAccessLogEntry) *accesslogv3.StreamAccessLogsMessage {
	return &accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries}}}
}

// send streams messages as Envoy does and waits until the server has taken all of them.
func send(t *testing.T, conn *grpc.ClientConn, messages ...*accesslogv3.StreamAccessLogsMessage) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(ctx)
	if err != nil {
		t.Fatalf("opening the stream: %v", err)
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // CloseAndRecv says why
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// reserving is a server whose deliveries are reserved until their outcome is known.
func reserving(t *testing.T) (e *policy.Engine, m *Metrics, conn *grpc.ClientConn) {
	t.Helper()
	e = newEngine(t, webhook(githubScheme, "replay: {confirm: outcome, window: 1h}"))
	m = NewMetrics("test")
	return e, m, dial(t, Config{Decider: e, Settler: e, Metrics: m})
}

// The application's answer, as Envoy's access log brings it, decides what becomes of a resend.
func TestOutcomes(t *testing.T) {
	const (
		released  = "allow ok"
		confirmed = "allow duplicate"
		pending   = "deny in_flight"
	)
	change := func(name, value string) func(map[string]string) {
		return func(m map[string]string) { m[name] = value }
	}
	tests := []struct {
		name   string
		code   uint32
		change func(metadata map[string]string)
		want   string // of a resend
		result string // in metrics
	}{
		{"200", 200, nil, confirmed, "confirmed"},
		{"100", 100, nil, confirmed, "confirmed"},
		{"302", 302, nil, confirmed, "confirmed"},
		{"400", 400, nil, confirmed, "confirmed"},
		{"404", 404, nil, confirmed, "confirmed"},
		{"409", 409, nil, confirmed, "confirmed"},
		{"428", 428, nil, confirmed, "confirmed"},
		{"429", 429, nil, released, "released"},
		{"430", 430, nil, confirmed, "confirmed"},
		{"499", 499, nil, confirmed, "confirmed"},
		{"500", 500, nil, released, "released"},
		{"503", 503, nil, released, "released"},
		{"599", 599, nil, released, "released"},
		{"no answer", 0, nil, pending, "unanswered"},
		{"foreign endpoint", 500, change("endpoint", "shop"), pending, "unknown"},
		{"no endpoint", 500, change("endpoint", ""), pending, "none"},
		{"foreign token", 500, change("reservation", strings.Repeat("ab", 16)), pending, "unknown"},
		{"no token", 500, change("reservation", ""), pending, "none"},
		{"token cut short", 500, func(m map[string]string) { m["reservation"] = m["reservation"][:31] }, pending, "malformed"},
		{"token with a tail", 500, func(m map[string]string) { m["reservation"] += "0" }, pending, "malformed"},
		{"token with a whole byte more", 500, func(m map[string]string) { m["reservation"] += "00" }, pending, "malformed"},
		{"token of other letters", 500, change("reservation", strings.Repeat("g", 32)), pending, "malformed"},
		{"token of zeros", 500, change("reservation", strings.Repeat("0", 32)), pending, "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, m, conn := reserving(t)
			d := signed(t, e.Set(), noon, pullRequest)
			metadata := notes(t, ask(t, conn, d.request(false)))
			if len(metadata["reservation"]) != 32 {
				t.Fatalf("no reservation in %v", metadata)
			}
			if tt.change != nil {
				tt.change(metadata)
			}
			if err := send(t, conn, httpLogs(logEntry(tt.code, metadata))); err != nil {
				t.Fatalf("sending: %v", err)
			}
			d.id = "stream-2"
			got := notes(t, ask(t, conn, d.request(false)))
			if verdict := got["decision"] + " " + got["reason"]; verdict != tt.want {
				t.Errorf("a resend gets %q, want %q", verdict, tt.want)
			}
			if diff := cmp.Diff(map[string]float64{`hookauthz_outcomes_total{result="` + tt.result + `"}`: 1}, matching(series(t, m), "hookauthz_outcomes_total")); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}

// A token is good once.
func TestOutcomeOnce(t *testing.T) {
	e, m, conn := reserving(t)
	d := signed(t, e.Set(), noon, pullRequest)
	metadata := notes(t, ask(t, conn, d.request(false)))
	if err := send(t, conn, httpLogs(logEntry(200, metadata), logEntry(500, metadata)), httpLogs(logEntry(503, metadata))); err != nil {
		t.Fatalf("sending: %v", err)
	}
	d.id = "stream-2"
	if got := notes(t, ask(t, conn, d.request(false))); got["reason"] != "duplicate" {
		t.Errorf("a resend gets %v: the confirmed delivery was released", got)
	}
	want := map[string]float64{`hookauthz_outcomes_total{result="confirmed"}`: 1, `hookauthz_outcomes_total{result="unknown"}`: 2}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_outcomes_total")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// What else an access log may hold does nothing, and what follows it counts.
func TestOutcomesOddEntries(t *testing.T) {
	e, m, conn := reserving(t)
	metadata := notes(t, ask(t, conn, signed(t, e.Set(), noon, pullRequest).request(false)))
	foreign := logEntry(500, metadata)
	filters := foreign.CommonProperties.Metadata.FilterMetadata
	foreign.CommonProperties.Metadata.FilterMetadata = map[string]*structpb.Struct{"envoy.lb": filters[metadataNamespace]}
	number := logEntry(500, metadata)
	number.CommonProperties.Metadata.FilterMetadata[metadataNamespace].Fields["reservation"] = structpb.NewNumberValue(7)
	err := send(t, conn,
		&accesslogv3.StreamAccessLogsMessage{},
		&accesslogv3.StreamAccessLogsMessage{Identifier: &accesslogv3.StreamAccessLogsMessage_Identifier{LogName: "hookauthz", Node: &corev3.Node{Id: strings.Repeat("n", 64<<10)}}},
		&accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_TcpLogs{TcpLogs: &accesslogv3.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: []*datav3.TCPAccessLogEntry{{}}}}},
		httpLogs(&datav3.HTTPAccessLogEntry{}, &datav3.HTTPAccessLogEntry{CommonProperties: &datav3.AccessLogCommon{}}, logEntry(500, nil), foreign, number),
		httpLogs(logEntry(200, metadata)),
	)
	if err != nil {
		t.Fatalf("sending: %v", err)
	}
	want := map[string]float64{`hookauthz_outcomes_total{result="none"}`: 5, `hookauthz_outcomes_total{result="confirmed"}`: 1}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_outcomes_total")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// settles is a Settler of one function.
type settles func(ctx context.Context, endpoint string, token policy.Token, confirmed bool) (bool, error)

func (f settles) Settle(ctx context.Context, _ time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	return f(ctx, endpoint, token, confirmed)
}

// A settler that fails costs its own entry only, and what fails is not told.
func TestOutcomesFail(t *testing.T) {
	var j journal
	m := NewMetrics("test")
	calls := 0
	conn := dial(t, Config{Decider: newEngine(t, webhook(githubScheme)), Metrics: m, Logger: j.logger(), Settler: settles(func(_ context.Context, _ string, token policy.Token, _ bool) (bool, error) {
		calls++
		switch calls {
		case 1:
			panic(token)
		case 2:
			return false, errors.New("the store is broken")
		}
		return true, nil
	})})
	e := logEntry(200, map[string]string{"endpoint": "hook", "reservation": strings.Repeat("5c", 16)})
	if err := send(t, conn, httpLogs(e, e, e)); err != nil {
		t.Fatalf("sending: %v", err)
	}
	want := map[string]float64{`hookauthz_outcomes_total{result="unknown"}`: 2, `hookauthz_outcomes_total{result="confirmed"}`: 1, `hookauthz_panics_total`: 1}
	if diff := cmp.Diff(want, matching(series(t, m), "hookauthz_outcomes_total", "hookauthz_panics_total")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if text := j.String(); !strings.Contains(text, "panic") || strings.Contains(text, strings.Repeat("5c", 8)) || strings.Contains(text, "92 92") {
		t.Errorf("the log: %s", text)
	}
}

// An entry that has arrived is settled although its stream has gone, but a store that hangs does not hold the stream up for ever.
func TestOutcomeOfAnEndedStream(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	o := &outcomes{now: time.Now, settler: settles(func(ctx context.Context, _ string, _ policy.Token, _ bool) (bool, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the store has no deadline")
		}
		return ctx.Err() == nil, ctx.Err()
	})}
	if got := o.settle(ended, logEntry(200, map[string]string{"endpoint": "hook", "reservation": strings.Repeat("5c", 16)})); got != "confirmed" {
		t.Errorf("the outcome is %q", got)
	}
}

// Streams have a number, messages a size.
func TestOutcomesAreBounded(t *testing.T) {
	const most = 3
	hold := make(chan struct{})
	o := &outcomes{places: make(chan struct{}, most), draining: hold, now: time.Now}
	var group sync.WaitGroup
	opened := make(chan struct{}, most)
	for range most {
		group.Go(func() {
			if err := o.StreamAccessLogs(&silentStream{opened: opened, end: hold}); err != nil {
				t.Errorf("a stream ended: %v", err)
			}
		})
	}
	for range most {
		<-opened
	}
	if err := o.StreamAccessLogs(&silentStream{opened: opened, end: hold}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream too many: %v", err)
	}
	close(hold)
	group.Wait()
	o.streams.Wait()

	e, m, conn := reserving(t)
	metadata := notes(t, ask(t, conn, signed(t, e.Set(), noon, pullRequest).request(false)))
	large := logEntry(200, metadata)
	large.CommonProperties.UpstreamTransportFailureReason = strings.Repeat("x", 2<<20)
	if err := send(t, conn, httpLogs(large)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 2 MiB: %v", err)
	}
	if got := matching(series(t, m), "hookauthz_outcomes_total"); len(got) != 0 {
		t.Errorf("outcomes of a message of 2 MiB: %v", got)
	}
}

// silentStream brings nothing until its end.
type silentStream struct {
	grpc.ServerStream
	opened chan<- struct{}
	end    <-chan struct{}
}

func (s *silentStream) Recv() (*accesslogv3.StreamAccessLogsMessage, error) {
	s.opened <- struct{}{}
	<-s.end
	return nil, context.Canceled
}

func (s *silentStream) SendAndClose(*accesslogv3.StreamAccessLogsResponse) error { return nil }
func (s *silentStream) Context() context.Context                                 { return context.Background() }

// Without somebody who takes outcomes, the service is not there.
func TestNoOutcomes(t *testing.T) {
	conn := dial(t, Config{Decider: newEngine(t, webhook(githubScheme))})
	if err := send(t, conn, httpLogs(logEntry(200, nil))); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}
