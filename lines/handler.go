package lines

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handler is the handler of log/slog for JSON or text, which gives the same lines. Those of plain texts, numbers and truth values, as the
// lines of decisions are, it puts together itself; any other it leaves to log/slog.
type Handler struct {
	slog.Handler // of log/slog
	out          io.Writer
	json         bool
	buffers      *sync.Pool // of *[]byte
}

// NewHandler makes a Handler of lines from a level on. Each line goes to out in one Write.
func NewHandler(out io.Writer, json bool, level slog.Leveler) *Handler {
	h := &Handler{out: out, json: json, buffers: &sync.Pool{New: func() any { return new([]byte) }}}
	options := &slog.HandlerOptions{Level: level}
	if json {
		h.Handler = slog.NewJSONHandler(out, options)
	} else {
		h.Handler = slog.NewTextHandler(out, options)
	}
	return h
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	b := h.buffers.Get().(*[]byte)
	defer h.buffers.Put(b)
	l := line{bytes: (*b)[:0], json: h.json}
	l.record(&r)
	*b = l.bytes
	if l.odd {
		return h.Handler.Handle(ctx, r)
	}
	_, err := h.out.Write(l.bytes)
	return err
}

// line is a line that is put together.
type line struct {
	bytes []byte
	json  bool
	odd   bool // it holds what log/slog must write
}

func (l *line) record(r *slog.Record) {
	if l.json {
		l.bytes = append(l.bytes, '{')
	}
	if !r.Time.IsZero() {
		l.key(slog.TimeKey)
		l.time(r.Time)
	}
	l.key(slog.LevelKey)
	l.text(r.Level.String())
	l.key(slog.MessageKey)
	l.text(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		l.attribute(&a)
		return !l.odd
	})
	if l.json {
		l.bytes = append(l.bytes, '}')
	}
	l.bytes = append(l.bytes, '\n')
}

func (l *line) attribute(a *slog.Attr) {
	kind := a.Value.Kind()
	if kind == slog.KindGroup && a.Key == "" { // stands for its members
		group := a.Value.Group()
		for i := range group {
			l.attribute(&group[i])
		}
		return
	}
	l.key(a.Key)
	switch kind {
	case slog.KindString:
		l.text(a.Value.String())
	case slog.KindInt64:
		l.bytes = strconv.AppendInt(l.bytes, a.Value.Int64(), 10)
	case slog.KindBool:
		l.bytes = strconv.AppendBool(l.bytes, a.Value.Bool())
	case slog.KindFloat64:
		l.float(a.Value.Float64())
	default:
		l.odd = true
	}
}

// key begins an attribute.
func (l *line) key(name string) {
	if !l.json {
		if len(l.bytes) > 0 {
			l.bytes = append(l.bytes, ' ')
		}
		l.text(name)
		l.bytes = append(l.bytes, '=')
		return
	}
	if len(l.bytes) > 1 {
		l.bytes = append(l.bytes, ',')
	}
	l.text(name)
	l.bytes = append(l.bytes, ':')
}

// plain are the characters that JSON holds as they are. Of them text quotes the space and '='.
var plain = func() (plain [256]bool) {
	for c := ' '; c <= '~'; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// text appends a text that both formats write as it is.
func (l *line) text(s string) {
	for i := range len(s) {
		if !plain[s[i]] {
			l.odd = true
			return
		}
	}
	if l.json {
		l.bytes = append(l.bytes, '"')
		l.bytes = append(l.bytes, s...)
		l.bytes = append(l.bytes, '"')
		return
	}
	l.odd = l.odd || s == "" || strings.ContainsAny(s, " =")
	l.bytes = append(l.bytes, s...)
}

// float appends a number that both formats write without an exponent.
func (l *line) float(f float64) {
	if f < 0 || (f > 0 && f < 1e-3) || f >= 1e6 || f != f {
		l.odd = true
		return
	}
	l.bytes = strconv.AppendFloat(l.bytes, f, 'f', -1, 64)
}

// time appends a moment as log/slog does: to the nanosecond in JSON, to the millisecond in text.
func (l *line) time(t time.Time) {
	if y := t.Year(); y < 0 || y > 9999 || !l.json {
		l.odd = l.odd || y < 0 || y > 9999
		l.bytes = t.Truncate(time.Millisecond).AppendFormat(l.bytes, "2006-01-02T15:04:05.000Z07:00")
		return
	}
	l.bytes = append(l.bytes, '"')
	l.bytes = t.AppendFormat(l.bytes, time.RFC3339Nano)
	l.bytes = append(l.bytes, '"')
}
