//go:build !race

package lines_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/lines"
)

// A line of plain values costs no memory. Under the race detector sync.Pool drops what it holds at random.
func TestPlainLinesDoNotAllocate(t *testing.T) {
	group := []slog.Attr{slog.String("endpoint", "github-ci"), slog.Int("status", 401), slog.Float64("duration_ms", 0.125), slog.Bool("degraded", true)}
	r := slog.NewRecord(time.Unix(1_800_000_000, 123456789), slog.LevelInfo, "decision", 0)
	r.AddAttrs(slog.Attr{Value: slog.GroupValue(group...)})
	for name, json := range map[string]bool{"json": true, "text": false} {
		h := lines.NewHandler(io.Discard, json, slog.LevelInfo)
		if n := testing.AllocsPerRun(1000, func() { _ = h.Handle(context.Background(), r) }); n >= 1 { // a garbage collection may empty a pool
			t.Errorf("%s: %v allocations a line", name, n)
		}
	}
}
