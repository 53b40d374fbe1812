package signature

import (
	"slices"
	"strings"
)

// headerValue is a header that the scheme reads.
type headerValue struct {
	value string
	count int
}

// fieldValue is a text that the scheme reads.
type fieldValue struct {
	text  string
	state fieldState
}

type fieldState uint8

const (
	unread fieldState = iota
	absent            // or empty
	present
	unfit // occurs twice, or stands in a document that cannot be read
)

// progress says how a step that is done at most once went.
type progress uint8

const (
	notTried progress = iota
	failed
	done
)

func progressOf(ok bool) progress {
	if ok {
		return done
	}
	return failed
}

func stateOf(text string) fieldState {
	if text == "" {
		return absent
	}
	return present
}

// field reads a field, once.
func (v *Verification) field(slot int) (string, fieldState) {
	f := &v.fields[slot]
	if f.state == unread {
		*f = v.readField(&v.scheme.fields[slot])
	}
	return f.text, f.state
}

func (v *Verification) readField(f *field) fieldValue {
	switch f.source.kind {
	case headerField:
		if h := v.headers[f.header]; h.count == 1 {
			return fieldValue{h.value, stateOf(h.value)}
		} else if h.count > 1 {
			return fieldValue{state: unfit}
		}
	case jsonField:
		if !v.readJSON() {
			return fieldValue{state: unfit}
		}
		switch value := v.json[f.path]; {
		case value.duplicate || value.state == jsonList || value.state == jsonOther:
			return fieldValue{state: unfit}
		case value.state == jsonText:
			return fieldValue{value.text, stateOf(value.text)}
		}
	case claimField:
		return v.token.claim(f.source.name)
	case formField:
		if !v.readForm() {
			return fieldValue{state: unfit}
		}
		return single(v.form, f.source.name)
	case queryField:
		if !v.readQuery() {
			return fieldValue{state: unfit}
		}
		return single(v.query, f.source.name)
	}
	return fieldValue{state: absent}
}

func single(pairs []pair, name string) fieldValue {
	value, count := one(pairs, name)
	if count > 1 {
		return fieldValue{state: unfit}
	}
	return fieldValue{value, stateOf(value)}
}

// contiguous is the body in one piece.
func (v *Verification) contiguous() []byte {
	if len(v.delivery.Body) == 1 {
		return v.delivery.Body[0]
	}
	if v.body == notTried {
		v.body = done
		for _, segment := range v.delivery.Body {
			v.joined = append(v.joined, segment...)
		}
	}
	return v.joined
}

// readJSON reads all JSON fields at once. An empty body has none.
func (v *Verification) readJSON() bool {
	if v.jsonBody == notTried {
		paths := v.scheme.paths
		v.json = slices.Grow(v.json, len(paths))[:len(paths)]
		body := v.contiguous()
		v.jsonBody = progressOf(len(body) == 0 || scanJSON(body, paths, v.json))
	}
	return v.jsonBody == done
}

// readForm reads the fields of a form. An empty body has none whatever its type, and any other body must say that it is a form.
func (v *Verification) readForm() bool {
	if v.formBody == notTried {
		slot := slices.Index(v.scheme.headers, contentType)
		h := v.headers[slot]
		body := v.contiguous()
		ok := len(body) == 0
		if !ok && h.count == 1 && isForm(h.value) {
			v.form, ok = appendPairs(v.form, string(body))
			slices.SortFunc(v.form, comparePairs)
		}
		v.formBody = progressOf(ok)
	}
	return v.formBody == done
}

// readQuery reads the fields of the query.
func (v *Verification) readQuery() bool {
	if v.queryPairs == notTried {
		var ok bool
		v.query, ok = appendPairs(v.query, v.queryText())
		v.queryPairs = progressOf(ok)
	}
	return v.queryPairs == done
}

// queryText is the request's query without its question mark.
func (v *Verification) queryText() string {
	_, query, _ := strings.Cut(v.delivery.Path, "?")
	return query
}
