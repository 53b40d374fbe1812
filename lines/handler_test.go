package lines_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/lines"
)

// texts are plain ones, and all that needs care.
var texts = rapid.OneOf(
	rapid.StringMatching(`[a-z0-9_/.:-]{0,20}`),
	rapid.StringMatching(`[ -~]{0,20}`),
	rapid.SampledFrom([]string{"", " ", "=", `"`, `\`, "a=b", "\x7f", "\x00", "\n", "ü", "\xff", "\u2028", "</script>", "null", "a b"}),
	rapid.String(),
)

var floats = rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1, 1), rapid.Float64Range(0, 1e7),
	rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 0.001, 0.0009, 1e-6, 1e6, 999999.999, 1e21, math.NaN(), math.Inf(1), math.Inf(-1), 0.1 + 0.2}))

func attributes(t *rapid.T, depth int) []slog.Attr {
	var out []slog.Attr
	for range rapid.IntRange(0, 8).Draw(t, "attributes") {
		key := texts.Draw(t, "key")
		kinds := 9
		if depth == 0 {
			kinds = 8
		}
		switch rapid.IntRange(0, kinds).Draw(t, "kind") {
		case 0, 1:
			out = append(out, slog.String(key, texts.Draw(t, "text")))
		case 2:
			out = append(out, slog.Int64(key, rapid.Int64().Draw(t, "number")))
		case 3:
			out = append(out, slog.Bool(key, rapid.Bool().Draw(t, "bool")))
		case 4:
			out = append(out, slog.Float64(key, floats.Draw(t, "float")))
		case 5:
			out = append(out, slog.Duration(key, time.Duration(rapid.Int64().Draw(t, "duration"))))
		case 6:
			out = append(out, slog.Any(key, rapid.SampledFrom([]any{nil, errors.New("broken"), []byte("x"), []int{1}, slog.LevelInfo}).Draw(t, "any")))
		case 7:
			out = append(out, slog.Uint64(key, rapid.Uint64().Draw(t, "number")))
		case 8:
			out = append(out, slog.Attr{})
		case 9:
			out = append(out, slog.Attr{Key: rapid.SampledFrom([]string{"", key}).Draw(t, "group"), Value: slog.GroupValue(attributes(t, depth-1)...)})
		}
	}
	return out
}

// Every line is the one that log/slog writes, in both formats.
func TestLinesEqualThoseOfSlog(t *testing.T) {
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	zones := []*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.FixedZone("", -3600)}
	rapid.Check(t, func(t *rapid.T) {
		var at time.Time
		if rapid.Bool().Draw(t, "timed") {
			at = time.Unix(rapid.Int64Range(-1e11, 3e11).Draw(t, "seconds"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanoseconds")).In(rapid.SampledFrom(zones).Draw(t, "zone"))
		}
		r := slog.NewRecord(at, slog.Level(rapid.IntRange(-6, 10).Draw(t, "level")), texts.Draw(t, "message"), 0)
		r.AddAttrs(attributes(t, 2)...)
		for _, json := range []bool{true, false} {
			var got, want bytes.Buffer
			if err := lines.NewHandler(&got, json, slog.LevelDebug).Handle(context.Background(), r.Clone()); err != nil {
				t.Fatal(err)
			}
			var oracle slog.Handler = slog.NewTextHandler(&want, options)
			if json {
				oracle = slog.NewJSONHandler(&want, options)
			}
			if err := oracle.Handle(context.Background(), r.Clone()); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Fatalf("json: %v\n got %s\nwant %s", json, got.String(), want.String())
			}
		}
	})
}

// What is derived from the handler is as log/slog has it, and the level counts.
func TestHandlerOfALogger(t *testing.T) {
	var got bytes.Buffer
	log := slog.New(lines.NewHandler(&got, true, slog.LevelInfo))
	log.Debug("unseen")
	log.With("a", 1).WithGroup("g").Info("seen", "b", "two words")
	if !bytes.HasSuffix(got.Bytes(), []byte(`"level":"INFO","msg":"seen","a":1,"g":{"b":"two words"}}`+"\n")) || bytes.Count(got.Bytes(), []byte("\n")) != 1 {
		t.Errorf("got %s", got.String())
	}
}
