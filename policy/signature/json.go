package signature

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a JSON body that is read for a field.
const (
	maxJSONDepth = 128
	maxFieldText = 64 << 10
)

// jsonPath leads to a value. A step is a key or, in a list, an index.
type jsonPath []string

func newJSONPath(text string) jsonPath { return strings.Split(text, ".") }

// jsonValue is what stands at a path.
type jsonValue struct {
	text  string // of a string, a number, true or false
	state jsonState
	items int // of a list
	// duplicate says that a key on the path occurs twice, so that readers may disagree on what the path means.
	duplicate bool
}

type jsonState uint8

const (
	jsonAbsent jsonState = iota // also null
	jsonText
	jsonList
	jsonOther // an object, or a text that is too long
)

// jsonScanner reads a document once for all paths, strictly by RFC 8259. At each level a bit says which paths still lead here.
type jsonScanner struct {
	data   []byte
	at     int
	paths  []jsonPath
	values []jsonValue
}

// scanJSON fills values, one for each path (at most 64), and reports whether data is one JSON document.
func scanJSON(data []byte, paths []jsonPath, values []jsonValue) bool {
	s := jsonScanner{data: data, paths: paths, values: values}
	all := ^uint64(0) >> (64 - uint(max(len(paths), 1)))
	if !s.value(all, 0) {
		return false
	}
	s.space()
	return s.at == len(data)
}

func (s *jsonScanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// next takes the next byte if it is c.
func (s *jsonScanner) next(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// each calls f with every path of a set.
func (s *jsonScanner) each(set uint64, f func(i int, p jsonPath)) {
	for i, p := range s.paths {
		if set&(1<<i) != 0 {
			f(i, p)
		}
	}
}

// set notes the value of the paths that end here.
func (s *jsonScanner) set(active uint64, depth int, v jsonValue) {
	s.each(active, func(i int, p jsonPath) {
		if len(p) == depth {
			s.values[i].text, s.values[i].state, s.values[i].items = v.text, v.state, v.items
		}
	})
}

func (s *jsonScanner) value(active uint64, depth int) bool {
	if depth > maxJSONDepth {
		return false
	}
	s.space()
	if s.at == len(s.data) {
		return false
	}
	switch c := s.data[s.at]; c {
	case '{':
		s.at++
		return s.object(active, depth)
	case '[':
		s.at++
		return s.list(active, depth)
	case '"':
		raw, ok := s.str()
		if ok && active != 0 {
			s.set(active, depth, textValue(raw))
		}
		return ok
	default:
		start := s.at
		if !s.word("true") && !s.word("false") {
			if s.word("null") {
				s.set(active, depth, jsonValue{})
				return true
			}
			if !s.number() {
				return false
			}
		}
		if active != 0 {
			s.set(active, depth, jsonValue{text: string(s.data[start:s.at]), state: jsonText})
		}
		return true
	}
}

// textValue reads the inside of a JSON string.
func textValue(raw []byte) jsonValue {
	if len(raw) > maxFieldText {
		return jsonValue{state: jsonOther}
	}
	text, ok := unescape(raw)
	if !ok {
		return jsonValue{state: jsonOther}
	}
	return jsonValue{text: text, state: jsonText}
}

// below is the set of those paths whose next step is a key or an index.
func (s *jsonScanner) below(active uint64, depth int, step []byte) (set uint64) {
	for i, p := range s.paths {
		if active&(1<<i) != 0 && len(p) > depth && p[depth] == string(step) {
			set |= 1 << i
		}
	}
	return set
}

func (s *jsonScanner) object(active uint64, depth int) bool {
	s.set(active, depth, jsonValue{state: jsonOther})
	s.space()
	if s.next('}') {
		return true
	}
	var seen uint64
	for {
		s.space()
		raw, ok := s.str()
		if !ok {
			return false
		}
		var below uint64
		if active != 0 {
			if bytes.IndexByte(raw, '\\') >= 0 {
				key, _ := unescape(raw)
				raw = []byte(key)
			}
			below = s.below(active, depth, raw)
			s.each(below&seen, func(i int, _ jsonPath) { s.values[i].duplicate = true })
			seen |= below
		}
		s.space()
		if !s.next(':') || !s.value(below, depth+1) {
			return false
		}
		s.space()
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

func (s *jsonScanner) list(active uint64, depth int) bool {
	items := 0
	s.space()
	if !s.next(']') {
		for {
			var below uint64
			if active != 0 {
				var index [20]byte
				below = s.below(active, depth, strconv.AppendInt(index[:0], int64(items), 10))
			}
			if !s.value(below, depth+1) {
				return false
			}
			items++
			s.space()
			if s.next(']') {
				break
			}
			if !s.next(',') {
				return false
			}
		}
	}
	s.set(active, depth, jsonValue{state: jsonList, items: items})
	return true
}

// str takes a string and gives what stands between its quotes, escapes and all.
func (s *jsonScanner) str() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	start := s.at
	for s.at < len(s.data) {
		c := s.data[s.at]
		s.at++
		switch {
		case c == '"':
			return s.data[start : s.at-1], true
		case c < 0x20:
			return nil, false
		case c == '\\':
			if !s.escape() {
				return nil, false
			}
		}
	}
	return nil, false
}

// escape takes what follows a backslash.
func (s *jsonScanner) escape() bool {
	if s.at == len(s.data) {
		return false
	}
	c := s.data[s.at]
	s.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if _, ok := hex4(s.data[s.at:]); ok {
			s.at += 4
			return true
		}
	}
	return false
}

func (s *jsonScanner) word(w string) bool {
	if bytes.HasPrefix(s.data[s.at:], []byte(w)) {
		s.at += len(w)
		return true
	}
	return false
}

func (s *jsonScanner) number() bool {
	s.next('-')
	if !s.next('0') && !s.digits() {
		return false
	}
	if s.next('.') && !s.digits() {
		return false
	}
	if s.next('e') || s.next('E') {
		if !s.next('+') {
			s.next('-')
		}
		return s.digits()
	}
	return true
}

func (s *jsonScanner) digits() bool {
	start := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

// unescape gives the text of a JSON string. Half of a surrogate pair stands for no text.
func unescape(raw []byte) (string, bool) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), true
	}
	text := make([]byte, 0, len(raw))
	ok := true
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			text = append(text, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			r, _ := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if bytes.HasPrefix(raw[i+1:], []byte(`\u`)) {
					low, _ = hex4(raw[i+3:])
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					ok = false
				} else {
					i += 6
				}
			}
			text = utf8.AppendRune(text, r)
		default:
			text = append(text, c)
		}
	}
	return string(text), ok
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		n, ok := nibble(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(n)
	}
	return r, true
}
