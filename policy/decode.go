package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/source"
)

// decoder fills the types of spec.go from nodes. It is strict: what it does not know is a fault, and it goes on to find the next.
type decoder struct {
	webhook string
}

func (d *decoder) fault(n *node, problem, fix string) { n.fault(d.webhook, problem, fix) }

// scalar parses the text of one value. The errors say what is wrong, the hint what to write.
type scalar struct {
	hint  string
	parse func(text string) (any, error)
}

// scalars are the types that are written as one value.
var scalars = map[reflect.Type]scalar{
	reflect.TypeFor[time.Time](): {"write a moment as 2026-11-24T08:00:00Z", func(s string) (any, error) {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an RFC 3339 time", clip(s))
		}
		return t, nil
	}},
	reflect.TypeFor[durationSpec](): {"write a duration such as 90s, 5m, 24h or 7d", func(s string) (any, error) {
		t, err := ParseDuration(s)
		return durationSpec(t), err
	}},
	reflect.TypeFor[sizeSpec](): {"write a size such as 512KiB or 2MiB", func(s string) (any, error) {
		n, err := ParseSize(s)
		if err == nil && n == 0 {
			err = errors.New("a size of 0 lets nothing through")
		}
		return sizeSpec(n), err
	}},
	reflect.TypeFor[rate.Limit](): {"write a limit such as 100/minute", func(s string) (any, error) { return wrap(rate.Parse(s)) }},
	reflect.TypeFor[netip.Prefix](): {"write an address or a range such as 192.0.2.7 or 192.0.2.0/24", func(s string) (any, error) {
		return wrap(source.ParsePrefix(s))
	}},
	reflect.TypeFor[source.From](): {"write " + oneOf([]string{"peer", "xForwardedFor", "header"}), func(s string) (any, error) {
		var from source.From
		err := from.UnmarshalText([]byte(s))
		return from, err
	}},
	reflect.TypeFor[shareSpec](): {"write a share such as 1/100", func(s string) (any, error) {
		over, ok := strings.CutPrefix(s, "1/")
		n, err := strconv.Atoi(over)
		if s == "1" {
			n, ok, err = 1, true, nil
		}
		if !ok || err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a share", clip(s))
		}
		return shareSpec(n), nil
	}},
	reflect.TypeFor[bool](): {"write true or false", func(s string) (any, error) {
		switch s {
		case "true", "false":
			return s == "true", nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", clip(s))
	}},
	reflect.TypeFor[int](): {"write a whole number", func(s string) (any, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", clip(s))
		}
		return n, nil
	}},
}

func wrap[T any](v T, err error) (any, error) { return v, err }

// chooser is a word from a closed list.
type chooser interface{ choices() []string }

// decode fills v, which must be settable, from n.
func (d *decoder) decode(n *node, v reflect.Value, sensitive bool) {
	if n.bad && n.kind == scalarNode {
		return // told already
	}
	if n.null {
		d.fault(n, "the key has no value", "write a value or delete the key")
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *schemeSpec:
		d.scheme(n, target)
		return
	case *failuresSpec:
		d.failures(n, target)
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), sensitive)
		return
	}
	if s, ok := scalars[v.Type()]; ok {
		if text, ok := d.text(n, s.hint); ok {
			parsed, err := s.parse(text)
			if err != nil {
				d.fault(n, err.Error(), s.hint)
				return
			}
			v.Set(reflect.ValueOf(parsed))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.word(n, v)
	case reflect.Slice:
		d.list(n, v, sensitive)
	case reflect.Map:
		d.stringMap(n, v)
	case reflect.Struct:
		d.structure(n, v, sensitive)
	default:
		d.fault(n, "the key cannot be read", "report this as a bug")
	}
}

// text is the text of a scalar; it is a fault for anything else to stand there.
func (d *decoder) text(n *node, hint string) (string, bool) {
	if n.kind != scalarNode {
		d.fault(n, fmt.Sprintf("%s stands where a single value is wanted", n.kind), hint)
		return "", false
	}
	return n.text, true
}

func (d *decoder) word(n *node, v reflect.Value) {
	hint := "write one value"
	c, closed := v.Interface().(chooser)
	if closed {
		hint = "write " + oneOf(c.choices())
	}
	text, ok := d.text(n, hint)
	switch {
	case !ok:
		return
	case text == "":
		d.fault(n, "the value is empty", hint)
		return
	case closed && !slices.Contains(c.choices(), text):
		d.fault(n, fmt.Sprintf("%q is not known here", clip(text)), hint)
		return
	}
	v.SetString(text)
}

func (d *decoder) list(n *node, v reflect.Value, sensitive bool) {
	if n.kind != listNode {
		if sensitive {
			n.file.hide(n, n.line)
		}
		d.fault(n, fmt.Sprintf("%s stands where a list is wanted", n.kind), "write [a, b] or one '- ' line for each")
		return
	}
	if len(n.items) == 0 {
		d.fault(n, "the list is empty", "write an entry or delete the key")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.decode(item, out.Index(i), sensitive)
	}
	v.Set(out)
}

func (d *decoder) stringMap(n *node, v reflect.Value) {
	if n.kind != mapNode {
		d.fault(n, fmt.Sprintf("%s stands where a map is wanted", n.kind), "write key: value")
		return
	}
	out := make(map[string]string, len(n.keys))
	for i, key := range n.keys {
		if text, ok := d.text(n.items[i], "write one value"); ok {
			out[key.text] = text
		}
	}
	v.Set(reflect.ValueOf(out))
}

// structure reads a map whose keys are the yaml tags of v's fields. Sensitive says that what is not known in it may be a secret.
func (d *decoder) structure(n *node, v reflect.Value, sensitive bool) {
	names := fieldNames(v.Type())
	if n.kind != mapNode {
		if sensitive {
			n.file.hide(n, n.line)
		}
		d.fault(n, fmt.Sprintf("%s stands where a map is wanted", n.kind), "its keys are "+oneOf(names))
		return
	}
	inScheme := v.Type().PkgPath() == reflect.TypeFor[signature.Spec]().PkgPath()
	for i, key := range n.keys {
		at := slices.Index(names, key.text)
		if at < 0 {
			d.unknownKey(n, i, names, sensitive)
			continue
		}
		value := n.items[i]
		field := v.FieldByIndex(fieldIndex(v.Type(), key.text))
		if inScheme && field.Type() == reflect.TypeFor[[]string]() && value.kind == scalarNode && !value.null {
			field.Set(reflect.ValueOf([]string{value.text})) // the scheme language takes one or several
			continue
		}
		d.decode(value, field, sensitive || secretKeys[key.text])
	}
}

// secretKeys are the keys below which a value that is not understood may be a secret.
var secretKeys = map[string]bool{"secrets": true, "verifyToken": true}

// secretLike are parts of key names under which people put secrets by mistake.
var secretLike = []string{"secret", "token", "key", "password", "value", "hmac", "credential"}

func (d *decoder) unknownKey(n *node, i int, names []string, sensitive bool) {
	key, value := n.keys[i], n.items[i]
	near := nearest(key.text, names)
	like := func(part string) bool { return strings.Contains(strings.ToLower(key.text), part) }
	hidden := sensitive || slices.ContainsFunc(secretLike, like)
	if hidden {
		until := value.line
		if i+1 < len(n.keys) {
			until = n.keys[i+1].line
		}
		n.file.hide(value, until)
	}
	switch {
	case sensitive && key.text == "value":
		d.fault(key, "a shared secret stands in the policy file", "put it into an environment variable or a file and write env: NAME or file: PATH")
	case near != "":
		d.fault(key, fmt.Sprintf("unknown key %q", clip(key.text)), fmt.Sprintf("did you mean %q?", near))
	default:
		d.fault(key, fmt.Sprintf("unknown key %q", clip(key.text)), "the keys here are "+oneOf(names))
	}
}

func (d *decoder) scheme(n *node, s *schemeSpec) {
	switch n.kind {
	case scalarNode:
		s.Name = n.text
		if s.Name == "" {
			d.fault(n, "the scheme has no name", "write the name of a preset; hookauthz schemes lists them")
		}
	case mapNode:
		s.Inline = new(signature.Spec)
		d.decode(n, reflect.ValueOf(s.Inline).Elem(), false)
	default:
		d.fault(n, "a list stands where a scheme is wanted", "write the name of a preset or a map")
	}
}

func (d *decoder) failures(n *node, f *failuresSpec) {
	const hint = "write {limit: 20/minute} or unlimited"
	limit := n
	if n.kind == mapNode {
		for i, key := range n.keys {
			if key.text != "limit" {
				d.unknownKey(n, i, []string{"limit"}, false)
			}
		}
		if limit = n.get("limit"); limit == nil {
			d.fault(n, "failures has no limit", hint)
			return
		}
	}
	switch {
	case limit.kind == scalarNode && limit.text == "unlimited":
		f.Unlimited = true
	case limit == n:
		d.fault(n, "failures is neither a map nor unlimited", hint)
	default:
		d.decode(limit, reflect.ValueOf(&f.Limit).Elem(), false)
	}
}

// fieldNames lists the keys of a type in the order of its fields.
func fieldNames(t reflect.Type) []string {
	if names, ok := knownFields.Load(t); ok {
		return names.([]string)
	}
	var names []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	knownFields.Store(t, names)
	return names
}

// knownFields holds what fieldNames found, by type.
var knownFields sync.Map

func fieldIndex(t reflect.Type, name string) []int {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == name {
			return t.Field(i).Index
		}
	}
	return nil
}
