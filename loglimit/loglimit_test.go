package loglimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLimit(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	l := &Limit{Every: 10 * time.Second, Now: func() time.Time { return now }}
	var got []string
	for _, step := range []time.Duration{0, 1, 8, 1, 9, 1, 30, -3600} { // seconds since the one before
		now = now.Add(step * time.Second)
		if held, due := l.Due(); due {
			got = append(got, fmt.Sprintf("%s +%d", now.Format("15:04:05"), held))
		}
	}
	want := []string{"12:00:00 +0", "12:00:10 +2", "12:00:20 +1", "12:00:50 +0", "11:00:50 +0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
