package signature

import (
	"net/url"
	"slices"
	"strings"
)

// contentType is the header that says whether a body is a form.
const contentType = "content-type"

// maxPairs bounds the fields of a form or a query that are read.
const maxPairs = 4096

// pair is one field of a form or a query, decoded.
type pair struct{ name, value string }

func comparePairs(a, b pair) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(a.value, b.value)
}

// isForm says whether a Content-Type is that of a URL-encoded form.
func isForm(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded")
}

// appendPairs decodes name=value pairs joined by '&'. It fails on a bad escape and on too many pairs.
func appendPairs(dst []pair, text string) ([]pair, bool) {
	for text != "" {
		var field string
		field, text, _ = strings.Cut(text, "&")
		if field == "" {
			continue
		}
		if len(dst) == maxPairs {
			return dst, false
		}
		name, value, _ := strings.Cut(field, "=")
		name, ok := unescapeForm(name)
		if !ok {
			return dst, false
		}
		if value, ok = unescapeForm(value); !ok {
			return dst, false
		}
		dst = append(dst, pair{name, value})
	}
	return dst, true
}

// unescapeForm undoes the encoding of a form's field.
func unescapeForm(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	text := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			text = append(text, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			high, ok := nibble(s[i+1])
			low, ok2 := nibble(s[i+2])
			if !ok || !ok2 {
				return "", false
			}
			text = append(text, high<<4|low)
			i += 2
		default:
			text = append(text, c)
		}
	}
	return string(text), true
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	default:
		return 0, false
	}
}

// one gives the value of a field that must not occur twice.
func one(pairs []pair, name string) (value string, count int) {
	for _, p := range pairs {
		if p.name == name {
			value = p.value
			count++
		}
	}
	return value, count
}

// appendSortedQuery appends the pairs of a query sorted by name and encoded anew, joined by '&'. It sorts pairs.
func appendSortedQuery(dst []byte, pairs []pair) []byte {
	slices.SortStableFunc(pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	for i, p := range pairs {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, url.QueryEscape(p.name)...)
		dst = append(dst, '=')
		dst = append(dst, url.QueryEscape(p.value)...)
	}
	return dst
}
