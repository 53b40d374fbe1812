package extauthz

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/policy"
)

// decisionLog writes one line a decision, remembers denials and has audited what its policy wants audited. Denials that cost an attacker
// nothing are told up to a number a second for each endpoint and reason, then counted.
type decisionLog struct {
	logger  *slog.Logger
	metrics *Metrics
	denials *Denials          // nil: they are not remembered
	audit   func(audit.Entry) // nil: nothing is audited
	lines   sync.Pool         // of *[]slog.Attr

	mu      sync.Mutex // guards what follows
	second  int64
	floods  map[floodKey]int // denials in this second
	allowed map[string]int   // allowed deliveries by endpoint, where only a share is written
}

// floodKey is what equal denials are counted by. Endpoints come from policy files and reasons from a closed list, so that there are few.
type floodKey struct {
	endpoint string
	reason   policy.Reason
	decoy    bool // the alarm, not the decision
	audited  bool
}

const (
	// linesPerSecond is how many equal denials are told each second.
	linesPerSecond = 10
	// maxShares bounds the memory of endpoints that have left the policies.
	maxShares = 1 << 14
)

func newDecisionLog(c *Config) *decisionLog {
	return &decisionLog{logger: c.Logger, metrics: c.Metrics, denials: c.Denials, audit: c.Audit, floods: make(map[floodKey]int), allowed: make(map[string]int)}
}

// decided tells of a decision where it is to be told.
func (l *decisionLog) decided(ctx context.Context, d *policy.Decision, r *policy.Request, took time.Duration, now time.Time) {
	level := levelOf(d)
	logged := l.logger.Enabled(ctx, level) && l.sampled(d)
	audited := l.audit != nil && d.Audited()
	remembered := l.denials != nil && d.Denial()
	if (logged || audited || remembered) && l.admit(ctx, d, audited, now) {
		trace := traceOf(ctx, r)
		if remembered {
			l.denials.add(d, r, trace, now)
		}
		if audited {
			l.audit(auditEntry(d, r, now))
		}
		if logged {
			l.write(ctx, level, now, d, r, trace, took)
		}
	}
	if d.Verification == policy.DecoyUsed {
		l.alarm(ctx, d, r, now)
	}
}

// alarm says that a secret is used that was never handed out, whatever became of the delivery.
func (l *decisionLog) alarm(ctx context.Context, d *policy.Decision, r *policy.Request, now time.Time) {
	if !l.logger.Enabled(ctx, slog.LevelError) || !l.few(ctx, floodKey{endpoint: d.Endpoint, reason: d.Reason, decoy: true}, now) {
		return
	}
	attributes := []slog.Attr{slog.String("endpoint", d.Endpoint), slog.String("secret_version", d.SecretVersion), slog.String("decision", d.Outcome.String())}
	if d.ClientAddress.IsValid() {
		attributes = append(attributes, slog.String("client_address", d.ClientAddress.String()))
	}
	if r.RequestID != "" {
		attributes = append(attributes, slog.String("request_id", r.RequestID))
	}
	l.logger.LogAttrs(ctx, slog.LevelError, "decoy used", attributes...)
}

// write writes the line. The attributes stand in a group without a name, which is its members, so that their slice can be used again.
func (l *decisionLog) write(ctx context.Context, level slog.Level, now time.Time, d *policy.Decision, r *policy.Request, trace string, took time.Duration) {
	list, ok := l.lines.Get().(*[]slog.Attr)
	if !ok {
		list = new([]slog.Attr)
	}
	defer func() {
		clear(*list)
		l.lines.Put(list)
	}()
	*list = appendAttributes((*list)[:0], d, r, trace, took)
	record := slog.NewRecord(now, level, "decision", 0)
	record.AddAttrs(slog.Attr{Value: slog.GroupValue(*list...)})
	// A line that cannot be written is no reason to fail.
	_ = l.logger.Handler().Handle(ctx, record)
}

// levelOf is error for our own faults, warn for denials and info for the rest. A pause and a delivery under way are nobody's fault.
func levelOf(d *policy.Decision) slog.Level {
	switch {
	case d.Outcome != policy.Deny:
		return slog.LevelInfo
	case d.Status >= 500 && d.Reason != policy.Paused && d.Reason != policy.InFlight:
		return slog.LevelError
	}
	return slog.LevelWarn
}

func appendAttributes(list []slog.Attr, d *policy.Decision, r *policy.Request, trace string, took time.Duration) []slog.Attr {
	add := func(a slog.Attr) { list = append(list, a) }
	text := func(name, value string) {
		if value != "" {
			add(slog.String(name, value))
		}
	}
	add(slog.String("endpoint", d.Endpoint))
	add(slog.String("decision", d.Outcome.String()))
	add(slog.String("reason", d.Reason.String()))
	if d.Outcome != policy.Allow {
		add(slog.Int("status", d.Status))
	}
	text("event_type", quotable(d.Event))
	text("delivery_id", quotable(d.DeliveryID))
	text("secret_version", d.SecretVersion)
	if d.ClientAddress.IsValid() {
		text("client_address", d.ClientAddress.String())
	}
	text("method", quotable(r.Method))
	path, _, _ := strings.Cut(r.Path, "?")
	text("path", quotable(path))
	add(slog.Int("body_bytes", r.BodyLen()))
	add(slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	text("request_id", r.RequestID)
	text("trace_id", trace)
	text("policy_revision", d.Revision)
	if d.Reason == policy.Shadow {
		text("shadow", d.Shadow.String())
	}
	if d.Degraded {
		add(slog.Bool("degraded", true))
	}
	return list
}

// admit reports whether a decision is told, and not only counted. A sender that is verified is known, so all of its decisions are.
func (l *decisionLog) admit(ctx context.Context, d *policy.Decision, audited bool, now time.Time) bool {
	key := floodKey{endpoint: d.Endpoint, reason: d.Reason, audited: audited}
	switch {
	case d.Verification == "valid" || d.Outcome == policy.Allow && !d.Denial():
		return true
	case d.Outcome == policy.Allow:
		key.reason = d.Shadow
	}
	return l.few(ctx, key, now)
}

// sampled reports whether the line of a decision is written: of those that are allowed only a share may be.
func (l *decisionLog) sampled(d *policy.Decision) bool {
	return d.Outcome != policy.Allow || d.Denial() || d.LogShare <= 1 || l.share(d.Endpoint, d.LogShare)
}

// share picks the first of every n.
func (l *decisionLog) share(endpoint string, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.allowed) >= maxShares {
		clear(l.allowed)
	}
	seen := l.allowed[endpoint]
	l.allowed[endpoint] = (seen + 1) % n
	return seen == 0
}

// few reports whether a denial is one of the first of its kind in this second. The first denial of a later second tells how many of each
// kind were only counted.
func (l *decisionLog) few(ctx context.Context, key floodKey, now time.Time) bool {
	second := now.Unix()
	l.mu.Lock()
	var over map[floodKey]int
	if second > l.second || second < l.second-1 { // a call may be a little late; a clock that was set back is not a call that is late
		over = l.floods
		l.second, l.floods = second, make(map[floodKey]int)
	}
	l.floods[key]++
	admitted := l.floods[key] <= linesPerSecond
	l.mu.Unlock()
	l.tell(ctx, over, now)
	return admitted
}

// tell says what was only counted.
func (l *decisionLog) tell(ctx context.Context, floods map[floodKey]int, now time.Time) {
	for key, n := range floods {
		n -= linesPerSecond
		if n <= 0 {
			continue
		}
		l.metrics.suppressed(n)
		message := "decisions suppressed"
		if key.decoy {
			message = "decoy alarms suppressed"
		}
		l.logger.LogAttrs(ctx, slog.LevelWarn, message,
			slog.String("endpoint", key.endpoint), slog.String("reason", key.reason.String()), slog.Int("count", n))
		if key.audited {
			l.audit(audit.Entry{Time: now, Kind: audit.Suppressed, Endpoint: key.endpoint, Reason: key.reason.String(), Count: n})
		}
	}
}

// run tells once a second of what was only counted, so that the end of a flood is seen although no denial follows it. It ends with ctx.
func (l *decisionLog) run(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush(now())
			return
		case <-tick.C:
			at := now()
			l.tell(ctx, l.past(at.Unix()), at)
		}
	}
}

// past gives what was counted before this second, and forgets it.
func (l *decisionLog) past(second int64) map[floodKey]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if second <= l.second || len(l.floods) == 0 {
		return nil
	}
	over := l.floods
	l.second, l.floods = second, make(map[floodKey]int)
	return over
}

// flush tells of everything that was only counted.
func (l *decisionLog) flush(now time.Time) {
	l.mu.Lock()
	floods := l.floods
	l.floods = make(map[floodKey]int)
	l.mu.Unlock()
	l.tell(context.Background(), floods, now)
}
