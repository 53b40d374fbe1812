package extauthz

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"

	"github.com/hookauthz/hookauthz/policy"
)

// metadataNamespace is where Envoy keeps the dynamic metadata of our replies.
const metadataNamespace = "envoy.filters.http.ext_authz"

// outcomes receives Envoy's access log: each entry brings the reservation of a Check back with the application's answer.
type outcomes struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	settler  Settler
	now      func() time.Time
	metrics  *Metrics
	stopping <-chan struct{}
}

// StreamAccessLogs takes entries until the stream ends or the server drains: a log stream has no end of its own.
func (o *outcomes) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	ended := make(chan error, 1)
	go func() { ended <- o.receive(stream) }() // ends with the stream, which ends with this call
	select {
	case err := <-ended:
		return err
	case <-o.stopping:
		return nil
	}
}

func (o *outcomes) receive(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		for _, entry := range m.GetHttpLogs().GetLogEntry() {
			o.metrics.outcome(o.settle(stream.Context(), entry))
		}
	}
}

// settle ends the reservation of one entry and says what came of it: "confirmed", "released", "none" or "unknown".
func (o *outcomes) settle(ctx context.Context, entry *datav3.HTTPAccessLogEntry) string {
	fields := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()[metadataNamespace].GetFields()
	text := fields["reservation"].GetStringValue()
	if text == "" {
		return "none"
	}
	code := entry.GetResponse().GetResponseCode().GetValue()
	if code == 0 {
		return "none" // the client went away: the reservation ends by itself
	}
	var token policy.Token
	if n, err := hex.Decode(token[:], []byte(text[:min(len(text), hex.EncodedLen(len(token)))])); err != nil || n != len(token) || len(text) != hex.EncodedLen(len(token)) {
		return "unknown"
	}
	confirmed := code != 429 && code < 500
	settled, err := o.settler.Settle(ctx, o.now(), fields["endpoint"].GetStringValue(), token, confirmed)
	switch {
	case err != nil || !settled:
		return "unknown"
	case confirmed:
		return "confirmed"
	}
	return "released"
}
