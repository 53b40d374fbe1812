package signature

import (
	"testing"
	"time"
)

func TestParseTimestamp(t *testing.T) {
	at := time.Date(2019, 11, 16, 10, 11, 12, 0, time.UTC)
	tests := []struct {
		unit, text string
		want       time.Time // zero where it is malformed
	}{
		{"s", "1573899072", at},
		{"s", "0", time.Unix(0, 0)},
		{"s", "", time.Time{}},
		{"s", "-1", time.Time{}},
		{"s", "00", time.Time{}},
		{"s", "0x1", time.Time{}},
		{"s", "999999999999999", time.Unix(999999999999999, 0)},
		{"s", "1000000000000000", time.Time{}},
		{"ms", "1573899072000", at},
		{"ms", "1573899072.000", time.Time{}},
		{"rfc3339", "2019-11-16T10:11:12Z", at},
		{"rfc3339", "2019-11-16T10:11:12.634234626Z", at.Add(634234626)},
		{"rfc3339", "2019-11-16T10:11:12.6342346260Z", time.Time{}},
		{"rfc3339", "2019-11-16T10:11:12.Z", time.Time{}},
		{"rfc3339", "2019-11-16T10:11:12,5Z", time.Time{}},
		{"rfc3339", "2019-11-16T03:11:12-07:00", at},
		{"rfc3339", "2019-11-16T10:11:12", at},
		{"rfc3339", "2019-11-16T10:11:12.551", at.Add(551 * time.Millisecond)},
		{"rfc3339", "2019-11-16T1:11:12Z", time.Time{}},
		{"rfc3339", "2019-11-16 10:11:12Z", time.Time{}},
		{"rfc3339", "2019-11-16T10:11:12Z ", time.Time{}},
		{"rfc3339", "2019-11-31T10:11:12Z", time.Time{}},
		{"rfc3339", "2019-11-16", time.Time{}},
		{"rfc3339", "2019-11-16T10:11:12z", time.Time{}},
		{"httpdate", "Sat, 16 Nov 2019 10:11:12 GMT", at},
		{"httpdate", "Sun, 16 Nov 2019 10:11:12 GMT", time.Time{}}, // it was a Saturday
		{"httpdate", "sat, 16 nov 2019 10:11:12 GMT", time.Time{}},
		{"httpdate", "Sat, 16 Nov 2019 10:11:12 UTC", time.Time{}},
		{"strptime:%a %d %b %Y %H:%M:%S UTC", "Sat 16 Nov 2019 10:11:12 UTC", at},
		{"strptime:%a %d %b %Y %H:%M:%S UTC", "Sat 16 Nov 2019 10:11:12 GMT", time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.unit+" "+tt.text, func(t *testing.T) {
			s := compile(t, with(func(s *Spec) {
				s.Sign, s.TS = []string{"{header:X-Ts} {body}"}, TimestampSpec{In: []string{"header:X-Ts"}, Unit: tt.unit}
			}))
			got, ok := s.ts.parse(tt.text)
			if ok == tt.want.IsZero() {
				t.Fatalf("well-formed: %v, want %v", ok, !ok)
			}
			if ok && !got.time().Equal(tt.want) {
				t.Errorf("got %v, want %v", got.time(), tt.want)
			}
		})
	}
}

// TestFormatTimestamp reads back what it writes, in every unit.
func TestFormatTimestamp(t *testing.T) {
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.FixedZone("", 3600))
	for _, unit := range []string{"s", "ms", "rfc3339", "httpdate", "strptime:%Y-%m-%d/%H.%M.%S"} {
		s := compile(t, with(func(s *Spec) {
			s.Sign, s.TS = []string{"{header:X-Ts} {body}"}, TimestampSpec{In: []string{"header:X-Ts"}, Unit: unit}
		}))
		text := s.ts.format(at)
		if got, ok := s.ts.parse(text); !ok || !got.time().Equal(at) {
			t.Errorf("%s: %q is read as %v", unit, text, got.time())
		}
	}
}

func TestFresh(t *testing.T) {
	at := time.Unix(1000000000, 0)
	const tolerance = 300 * time.Second
	tests := []struct {
		name  string
		stamp stamp
		now   time.Time
		want  bool
	}{
		{"s, exactly", stamp{unit: secondsUnit, count: 1000000000}, at.Add(tolerance), true},
		{"s, within the last second", stamp{unit: secondsUnit, count: 1000000000}, at.Add(tolerance + time.Second - 1), true},
		{"s, one second late", stamp{unit: secondsUnit, count: 1000000000}, at.Add(tolerance + time.Second), false},
		{"s, exactly ahead", stamp{unit: secondsUnit, count: 1000000000}, at.Add(-tolerance), true},
		{"s, one second ahead", stamp{unit: secondsUnit, count: 1000000000}, at.Add(-tolerance - time.Second), false},
		{"s, the largest", stamp{unit: secondsUnit, count: 999999999999999}, at, false},
		{"ms, exactly", stamp{unit: millisecondsUnit, count: 1000000000000}, at.Add(tolerance), true},
		{"ms, one millisecond late", stamp{unit: millisecondsUnit, count: 1000000000000}, at.Add(tolerance + time.Millisecond), false},
		{"ms, one millisecond ahead", stamp{unit: millisecondsUnit, count: 1000000000000}, at.Add(-tolerance - time.Millisecond), false},
		{"date, exactly", stamp{unit: rfc3339Unit, at: at}, at.Add(tolerance), true},
		{"date, late", stamp{unit: rfc3339Unit, at: at}, at.Add(tolerance + 1), false},
		{"date, ahead", stamp{unit: rfc3339Unit, at: at}, at.Add(-tolerance - 1), false},
		{"HTTP date, within the last second", stamp{unit: httpDateUnit, at: at}, at.Add(tolerance + time.Second - 1), true},
		{"HTTP date, late", stamp{unit: httpDateUnit, at: at}, at.Add(tolerance + time.Second), false},
		{"year 0", stamp{unit: rfc3339Unit, at: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)}, at, false},
		{"year 9999", stamp{unit: rfc3339Unit, at: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, at, false},
	}
	for _, tt := range tests {
		if got := tt.stamp.fresh(tt.now, tolerance); got != tt.want {
			t.Errorf("%s: fresh %v, want %v", tt.name, got, tt.want)
		}
	}
}
