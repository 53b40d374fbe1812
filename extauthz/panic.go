package extauthz

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/hookauthz/hookauthz/loglimit"
)

// panicLog counts and logs panics. Their values are left out: they may hold parts of a delivery. Whoever finds a delivery that causes one can
// send it again and again, so that few are written.
type panicLog struct {
	metrics *Metrics
	logger  *slog.Logger
	limit   loglimit.Limit
}

// panicLogEvery is how often the stack of a panic is written.
const panicLogEvery = 10 * time.Second

func newPanicLog(c *Config) *panicLog {
	return &panicLog{metrics: c.Metrics, logger: c.Logger, limit: loglimit.Limit{Every: panicLogEvery, Now: c.Now}}
}

// tell takes what recover returned.
func (l *panicLog) tell(p any) {
	l.metrics.panicked()
	if held, due := l.limit.Due(); due {
		l.logger.Error("panic", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()), "repeated", held)
	}
}
