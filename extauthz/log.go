package extauthz

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// decisionLog writes one line a decision. Denials that cost an attacker nothing are written up to a number a second for each endpoint
// and reason, then counted.
type decisionLog struct {
	logger *slog.Logger

	mu      sync.Mutex             // guards what follows
	floods  map[floodKey]*flood    // bounded: endpoints come from policy files, reasons from a closed list
	allowed map[string]*shareCount // by endpoint
}

// floodKey is what repeats are counted by. Both parts come from us, not from the sender.
type floodKey struct {
	endpoint string
	reason   policy.Reason
}

// flood counts the lines of one second.
type flood struct {
	second     int64
	written    int
	suppressed int
}

// shareCount picks every Nth allowed delivery.
type shareCount struct{ n int }

// linesPerSecond is how many equal denials are written each second.
const linesPerSecond = 10

func newDecisionLog(l *slog.Logger) *decisionLog {
	return &decisionLog{logger: l, floods: make(map[floodKey]*flood), allowed: make(map[string]*shareCount)}
}

// verified reports whether the sender has proved itself before this denial: it can be blamed, and cannot be an unknown flood.
func verified(d *policy.Decision) bool { return d.Verification == "valid" }

// decided writes the line of a decision, unless it is sampled away.
func (l *decisionLog) decided(ctx context.Context, d *policy.Decision, r *policy.Request, begin, now time.Time) {
	level := levelOf(d)
	if !l.logger.Enabled(ctx, level) {
		return
	}
	switch {
	case d.Outcome == policy.Deny && !verified(d):
		if !l.admit(ctx, floodKey{d.Endpoint, d.Reason}, now.Unix()) {
			return
		}
	case d.Outcome == policy.Allow && d.Reason != policy.Shadow && !l.sampled(d):
		return
	}
	path, _, _ := strings.Cut(r.Path, "?")
	attributes := make([]slog.Attr, 0, 20)
	text := func(name, value string) {
		if value != "" {
			attributes = append(attributes, slog.String(name, value))
		}
	}
	attributes = append(attributes, slog.String("endpoint", d.Endpoint), slog.String("decision", d.Outcome.String()), slog.String("reason", d.Reason.String()))
	if d.Status != 0 {
		attributes = append(attributes, slog.Int("status", d.Status))
	}
	text("event_type", quotable(d.Event))
	text("delivery_id", quotable(d.DeliveryID))
	text("secret_version", d.SecretVersion)
	if d.ClientAddress.IsValid() {
		text("client_address", d.ClientAddress.String())
	}
	text("method", quotable(r.Method))
	text("path", quotable(path))
	attributes = append(attributes, slog.Int("body_bytes", r.BodyLen()), slog.Float64("duration_ms", float64(now.Sub(begin).Microseconds())/1000))
	text("request_id", r.RequestID)
	text("trace_id", traceID(r.Headers))
	text("policy_revision", d.Revision)
	if d.Reason == policy.Shadow {
		text("shadow", d.Shadow.String())
	}
	if d.Degraded {
		attributes = append(attributes, slog.Bool("degraded", true))
	}
	l.logger.LogAttrs(ctx, level, "decision", attributes...)
}

func levelOf(d *policy.Decision) slog.Level {
	switch {
	case d.Outcome != policy.Deny:
		return slog.LevelInfo
	case d.Status >= 500 && d.Reason != policy.Paused && d.Reason != policy.InFlight:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// sampled reports whether an allowed delivery is one of the share that is logged.
func (l *decisionLog) sampled(d *policy.Decision) bool {
	if d.LogShare <= 1 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.allowed[d.Endpoint]
	if c == nil {
		c = &shareCount{}
		l.allowed[d.Endpoint] = c
	}
	c.n++
	return c.n%d.LogShare == 1
}

// admit reports whether a denial is one of the first of its kind in this second. The first one of a later second tells how many were not.
func (l *decisionLog) admit(ctx context.Context, key floodKey, second int64) bool {
	l.mu.Lock()
	f := l.floods[key]
	if f == nil {
		f = &flood{second: second}
		l.floods[key] = f
	}
	suppressed := 0
	if f.second != second {
		suppressed = f.suppressed
		*f = flood{second: second}
	}
	f.written++
	admitted := f.written <= linesPerSecond
	if !admitted {
		f.suppressed++
	}
	l.mu.Unlock()
	l.tell(ctx, key, suppressed)
	return admitted
}

func (l *decisionLog) tell(ctx context.Context, key floodKey, suppressed int) {
	if suppressed > 0 {
		l.logger.LogAttrs(ctx, slog.LevelWarn, "decisions suppressed",
			slog.String("endpoint", key.endpoint), slog.String("reason", key.reason.String()), slog.Int("count", suppressed))
	}
}

// flush tells of everything that was only counted.
func (l *decisionLog) flush() {
	l.mu.Lock()
	floods := l.floods
	l.floods = make(map[floodKey]*flood)
	l.mu.Unlock()
	for key, f := range floods {
		l.tell(context.Background(), key, f.suppressed)
	}
}
