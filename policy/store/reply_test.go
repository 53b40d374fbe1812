package store

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"testing"

	"github.com/hookauthz/hookauthz/policy"
)

// A reply that the script cannot have given is no verdict.
func TestReplies(t *testing.T) {
	reply := func(numbers ...float64) string {
		var b []byte
		for _, n := range numbers {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(n))
		}
		return string(b)
	}
	tests := []struct {
		name, reply string
		good        bool
	}{
		{"new", reply(0, 0, 0, 1.8e15), true},
		{"limited", reply(0, 1, 5, 1.8e15), true},
		{"a retry with its token", reply(1, 0, 0, 1.8e15) + "0123456789abcdef", true},
		{"nothing", "", false},
		{"zeros", reply(0, 0, 0, 0), false},
		{"cut short", reply(0, 0, 0, 1.8e15)[:31], false},
		{"half a token", reply(1, 0, 0, 1.8e15) + "01234567", false},
		{"unknown flags", reply(16, 0, 0, 1.8e15), false},
		{"negative flags", reply(-1, 0, 0, 1.8e15), false},
		{"no number", reply(0, 0, 0, math.NaN()), false},
		{"a bucket that was not asked for", reply(0, 2, 5, 1.8e15), false},
		{"too late: nothing was recorded", reply(8, 0, 0, 1.8e15), false},
		{"flags that are no number", reply(math.NaN(), 0, 0, 1.8e15), false},
		{"a bucket that is no number", reply(0, math.NaN(), 0, 1.8e15), false},
		{"a moment beyond all", reply(0, 0, 0, math.Inf(1)), false},
		{"text", "an answer of thirty-two letters!", false},
	}
	for _, tt := range tests {
		s := slot{ahead: new(atomic.Int64)}
		got, err := s.taken(&policy.Take{Buckets: make([]policy.Bucket, 1)}, tt.reply, policy.Token{})
		if (err == nil) != tt.good {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
}
