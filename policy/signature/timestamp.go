package signature

import (
	"strconv"
	"strings"
	"time"
)

// unit is how a timestamp is written.
type unit uint8

const (
	noUnit unit = iota
	secondsUnit
	millisecondsUnit
	rfc3339Unit
	httpDateUnit
	layoutUnit
)

var units = map[string]unit{"s": secondsUnit, "ms": millisecondsUnit, "rfc3339": rfc3339Unit, "httpdate": httpDateUnit}

// httpDate is the layout of RFC 9110, section 5.6.7.
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// maxDigits bounds a counted timestamp: year 9999 in milliseconds has 15 digits.
const maxDigits = 15

// maxTimestamp bounds a written date.
const maxTimestamp = 64

// stamp is a time of sending: a count of its unit, or a moment.
type stamp struct {
	unit  unit
	count int64     // of seconds or milliseconds since 1970
	at    time.Time // of the other units
}

// parse reads a timestamp as strictly as can be: a count has digits only, without leading zeros.
func (t *timestamps) parse(text string) (stamp, bool) {
	switch t.unit {
	case secondsUnit, millisecondsUnit:
		n, ok := digits(text)
		return stamp{unit: t.unit, count: n}, ok
	}
	if len(text) > maxTimestamp {
		return stamp{}, false
	}
	var at time.Time
	var err error
	switch t.unit {
	case rfc3339Unit:
		return parseRFC3339(text)
	case httpDateUnit:
		at, err = time.Parse(httpDate, text)
	default:
		at, err = time.Parse(t.layout, text)
	}
	return stamp{unit: t.unit, at: at}, err == nil && at.Format(t.written()) == text
}

// written is the layout of a unit that has exactly one spelling.
func (t *timestamps) written() string {
	if t.unit == httpDateUnit {
		return httpDate
	}
	return t.layout
}

func digits(text string) (n int64, ok bool) {
	if text == "" || len(text) > maxDigits || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseRFC3339 takes a fraction of up to nine digits, and reads a time without a zone as UTC. The package time alone is too generous: it
// takes a comma for the point and an hour of one digit.
func parseRFC3339(text string) (stamp, bool) {
	const form = "0000-00-00T00:00:00"
	if len(text) < len(form) {
		return stamp{}, false
	}
	for i := range len(form) {
		if c := text[i]; form[i] == '0' && (c < '0' || c > '9') || form[i] != '0' && c != form[i] {
			return stamp{}, false
		}
	}
	layout := "2006-01-02T15:04:05"
	rest := text[len(form):]
	if strings.HasPrefix(rest, ".") {
		n := 1
		for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
			n++
		}
		if n == 1 || n > 10 {
			return stamp{}, false
		}
		rest = rest[n:]
	}
	switch {
	case rest == "":
	case rest == "Z", len(rest) == len("+00:00") && (rest[0] == '+' || rest[0] == '-'):
		layout = time.RFC3339
	default:
		return stamp{}, false
	}
	at, err := time.Parse(layout, text)
	return stamp{unit: rfc3339Unit, at: at}, err == nil
}

// zoned says whether an RFC 3339 text ends in its zone, so that nothing can be cut off its end.
func zoned(text string) bool {
	return strings.HasSuffix(text, "Z") || len(text) > 6 && (text[len(text)-6] == '+' || text[len(text)-6] == '-') && text[len(text)-3] == ':'
}

// fresh says whether now is within tolerance of the stamp, inclusive and either way, in the stamp's own unit.
func (s stamp) fresh(now time.Time, tolerance time.Duration) bool {
	switch s.unit {
	case secondsUnit:
		return apart(now.Unix(), s.count) <= int64(tolerance/time.Second)
	case millisecondsUnit:
		return apart(now.UnixMilli(), s.count) <= int64(tolerance/time.Millisecond)
	case httpDateUnit, layoutUnit:
		return now.Truncate(time.Second).Sub(s.at).Abs() <= tolerance
	default:
		return now.Sub(s.at).Abs() <= tolerance
	}
}

func apart(a, b int64) int64 {
	if a > b {
		return a - b
	}
	return b - a
}

func (s stamp) time() time.Time {
	switch s.unit {
	case secondsUnit:
		return time.Unix(s.count, 0)
	case millisecondsUnit:
		return time.UnixMilli(s.count)
	default:
		return s.at
	}
}

// format writes a moment as the sender does.
func (t *timestamps) format(at time.Time) string {
	at = at.UTC()
	switch t.unit {
	case secondsUnit:
		return strconv.FormatInt(at.Unix(), 10)
	case millisecondsUnit:
		return strconv.FormatInt(at.UnixMilli(), 10)
	case rfc3339Unit:
		return at.Format(time.RFC3339Nano)
	case httpDateUnit:
		return at.Format(httpDate)
	default:
		return at.Format(t.layout)
	}
}

// strptimeVerbs are the fields that a custom unit may have, in the words of strptime.
var strptimeVerbs = map[byte]string{'a': "Mon", 'b': "Jan", 'd': "02", 'm': "01", 'Y': "2006", 'H': "15", 'M': "04", 'S': "05"}

// strptimeLayout translates "%a %d %b %Y" to a layout of the package time.
func strptimeLayout(format string) (layout string, ok bool) {
	var b strings.Builder
	for format != "" {
		literal, rest, verb := strings.Cut(format, "%")
		if !verbatim(literal) {
			return "", false
		}
		b.WriteString(literal)
		if !verb {
			break
		}
		if rest == "" || strptimeVerbs[rest[0]] == "" {
			return "", false
		}
		b.WriteString(strptimeVerbs[rest[0]])
		format = rest[1:]
	}
	return b.String(), strings.Contains(b.String(), "2006")
}

// verbatim says whether the package time takes a text for nothing but itself.
func verbatim(text string) bool {
	for _, at := range []time.Time{time.Date(2033, 12, 23, 11, 44, 55, 987654321, time.UTC), time.Date(2021, 3, 9, 18, 27, 38, 0, time.FixedZone("X", 3600))} {
		if at.Format(text) != text {
			return false
		}
	}
	return true
}
