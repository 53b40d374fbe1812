package extauthz

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hookauthz/hookauthz/policy"
)

// metadataNamespace is where Envoy keeps the dynamic metadata of our replies.
const metadataNamespace = "envoy.filters.http.ext_authz"

// settleTimeout is how long the store may take for one entry.
const settleTimeout = time.Second

// outcomes receives Envoy's access log: each entry brings the reservation of a Check back with the application's answer. Entries are not
// confirmed to Envoy one by one; a reservation whose entry is lost ends by itself.
type outcomes struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	settler  Settler
	now      func() time.Time
	panics   *panicLog
	metrics  *Metrics
	places   chan struct{}   // one for each stream that may be open
	draining <-chan struct{} // closed when the server drains
	streams  sync.WaitGroup  // what reads from streams
}

// StreamAccessLogs takes entries until the stream ends or the server drains: a log stream has no end of its own.
func (o *outcomes) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	select {
	case o.places <- struct{}{}:
		defer func() { <-o.places }()
	default:
		return status.Error(codes.ResourceExhausted, "too many access log streams")
	}
	ended := make(chan error, 1)
	// Reading ends with the stream, which ends when this call returns. The server waits for it.
	o.streams.Go(func() { ended <- o.receive(stream) })
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
	case <-o.draining:
	}
	return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
}

func (o *outcomes) receive(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, entry := range m.GetHttpLogs().GetLogEntry() {
			o.metrics.outcome(o.settle(stream.Context(), entry))
		}
	}
}

// settle ends the reservation of one entry and says what came of it:
//
//	none        the entry brings no reservation
//	unanswered  the application did not answer; the reservation ends by itself
//	malformed   its token is none of ours
//	unknown     no reservation with this token stands, or the store could not say
//	confirmed   the delivery is remembered
//	released    the same delivery may come again
func (o *outcomes) settle(ctx context.Context, entry *datav3.HTTPAccessLogEntry) (result string) {
	defer func() {
		if p := recover(); p != nil {
			o.panics.tell(p)
			result = "unknown"
		}
	}()
	fields := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()[metadataNamespace].GetFields()
	reservation, endpoint := fields["reservation"].GetStringValue(), fields["endpoint"].GetStringValue()
	if reservation == "" || endpoint == "" {
		return "none"
	}
	token, ok := parseToken(reservation)
	if !ok {
		return "malformed"
	}
	code := entry.GetResponse().GetResponseCode().GetValue()
	if code == 0 {
		return "unanswered"
	}
	confirmed := code != 429 && code < 500
	// What has arrived counts, even where the stream has ended since.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	settled, err := o.settler.Settle(ctx, o.now(), endpoint, token, confirmed)
	switch {
	case err != nil || !settled:
		return "unknown"
	case confirmed:
		return "confirmed"
	}
	return "released"
}

// parseToken reads a token as Decision.Reservation writes it: 32 hex digits.
func parseToken(s string) (token policy.Token, ok bool) {
	if len(s) != hex.EncodedLen(len(token)) {
		return policy.Token{}, false
	}
	_, err := hex.Decode(token[:], []byte(s))
	return token, err == nil
}
