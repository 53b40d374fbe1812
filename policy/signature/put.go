package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// putPair gives the text of a form or query in which name has one value, in the place of the one before or at the end.
func putPair(text, name, value string) string {
	pair := url.QueryEscape(name) + "=" + url.QueryEscape(value)
	var out []string
	put := false
	for text != "" {
		var field string
		field, text, _ = strings.Cut(text, "&")
		written, _, _ := strings.Cut(field, "=")
		if got, ok := unescapeForm(written); !ok || got != name {
			out = append(out, field)
		} else if !put {
			put = true
			out = append(out, pair)
		}
	}
	if !put {
		out = append(out, pair)
	}
	return strings.Join(out, "&")
}

// putQuery gives a request target whose query has one value for name.
func putQuery(target, name, value string) string {
	path, query, _ := strings.Cut(target, "?")
	return path + "?" + putPair(query, name, value)
}

var errNoObject = errors.New("the body is no JSON object")

// putJSON gives a document in which text stands at path, with the objects and lists on the way made where there are none. A number that
// stands there stays a number. Everything else keeps its value.
func putJSON(document []byte, path jsonPath, text string) ([]byte, error) {
	document = bytes.TrimSpace(document)
	if len(path) == 0 {
		number := len(document) > 0 && (document[0] == '-' || '0' <= document[0] && document[0] <= '9')
		if _, digits := digits(text); number && digits {
			return []byte(text), nil
		}
		return encodeJSON(text)
	}
	step, rest := path[0], path[1:]
	index, position := digits(step)
	if len(document) == 0 || string(document) == "null" {
		document = []byte("{}")
		if position && index == 0 {
			document = []byte("[]")
		}
	}
	switch document[0] {
	case '{':
		var object map[string]json.RawMessage
		if err := json.Unmarshal(document, &object); err != nil {
			return nil, errNoObject
		}
		child, err := putJSON(object[step], rest, text)
		if err != nil {
			return nil, err
		}
		object[step] = child
		return encodeJSON(object)
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(document, &list); err != nil {
			return nil, errNoObject
		}
		if !position || index > int64(len(list)) {
			return nil, fmt.Errorf("a list has no place for %s", strconv.Quote(clip(step)))
		}
		var before json.RawMessage
		if index < int64(len(list)) {
			before = list[index]
		} else {
			list = append(list, nil)
		}
		child, err := putJSON(before, rest, text)
		if err != nil {
			return nil, err
		}
		list[index] = child
		return encodeJSON(list)
	default:
		return nil, errNoObject
	}
}

// encodeJSON writes a value without the escapes that HTML needs.
func encodeJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, errNoObject
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
