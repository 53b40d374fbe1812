package lint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Caps on what is read, so that no small file can exhaust the process.
const (
	maxDepth = 100
	maxGain  = 500_000 // nodes that a file may gain by its aliases; one of ten thousand routes stays below
)

var (
	errTooDeep  = errors.New("it is nested too deeply")
	errTooLarge = errors.New("it is too large once its aliases are expanded")
)

// spot is where a message or a field stands: its key where it has one, and the way there.
type spot struct {
	source *source
	key    *yaml.Node // nil: an element of a list
	value  *yaml.Node
	path   string
}

// source is one file, or one answer of an admin interface.
type source struct {
	name string
	dump bool
}

func (s spot) place() Place {
	p := Place{Path: s.path}
	if s.source != nil {
		p.File = s.source.name
	}
	if n := s.key; n != nil {
		p.Line, p.Column = n.Line, n.Column
	} else if s.value != nil {
		p.Line, p.Column = s.value.Line, s.value.Column
	}
	return p
}

// field is the place of a value below this one; its own where that is not written.
func (s spot) field(name protoreflect.Name) (spot, bool) {
	n := resolve(s.value)
	if n == nil || n.Kind != yaml.MappingNode {
		return s, false
	}
	camel := camelCase(string(name))
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; key.Value == string(name) || key.Value == camel {
			return spot{s.source, key, n.Content[i+1], join(s.path, string(name))}, true
		}
	}
	return s, false
}

// find follows names, all of which must be written.
func (s spot) find(names ...protoreflect.Name) (spot, bool) {
	for _, name := range names {
		var ok bool
		if s, ok = s.field(name); !ok {
			return spot{}, false
		}
	}
	return s, true
}

// at follows names and indexes as far as they are written.
func (s spot) at(steps ...any) spot {
	for _, step := range steps {
		next, ok := s, false
		switch step := step.(type) {
		case string:
			next, ok = s.field(protoreflect.Name(step))
		case int:
			if n := resolve(s.value); n != nil && n.Kind == yaml.SequenceNode && step < len(n.Content) {
				next, ok = spot{s.source, nil, n.Content[step], index(s.path, step)}, true
			}
		}
		if !ok {
			return s
		}
		s = next
	}
	return s
}

func join(path, name string) string {
	if strings.ContainsAny(name, ".[]\" ") || name == "" {
		return path + "[" + strconv.Quote(name) + "]"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// resolve follows aliases. A node that is its own alias is no node.
func resolve(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// decoder turns a tree into Envoy's own types and keeps the place of every message. What it cannot read it reports; what is left is
// judged.
type decoder struct {
	source *source
	report func(rule string, at spot, what string)
	spots  map[proto.Message]spot
	// inner holds the message within each Any; those of types that are not known have none.
	inner map[*anypb.Any]proto.Message
	// nodes counts what was visited, most what may be.
	nodes, most int
	// unread counts values that Envoy would not take.
	unread int
	err    error
}

// open decodes one message.
func (d *decoder) open(n *yaml.Node, m proto.Message, path string) error {
	d.nodes, d.most = 0, 2*size(n)+maxGain
	d.message(spot{d.source, nil, n, path}, m.ProtoReflect(), 0)
	return d.err
}

// size is the number of nodes of a tree as it is written.
func size(n *yaml.Node) int {
	total := 1
	for _, inner := range n.Content {
		total += size(inner)
	}
	return total
}

// visit counts a node; false: no further.
func (d *decoder) visit(depth int) bool {
	d.nodes++
	switch {
	case d.err != nil:
	case depth > maxDepth:
		d.err = errTooDeep
	case d.nodes > d.most:
		d.err = errTooLarge
	}
	return d.err == nil
}

func (d *decoder) unreadable(at spot, want string) {
	d.unread++
	what := "this is not " + want
	if n := resolve(at.value); n != nil && n.Kind == yaml.ScalarNode {
		what = fmt.Sprintf("%s is not %s", strconv.Quote(short(n.Value)), want)
	}
	d.report(ruleUnreadable, at, what)
}

func short(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (d *decoder) message(at spot, m protoreflect.Message, depth int) {
	if !d.visit(depth) {
		return
	}
	d.spots[m.Interface()] = at
	n := resolve(at.value)
	if n == nil || isNull(n) {
		return
	}
	switch known := m.Interface().(type) {
	case *anypb.Any:
		d.any(at, known, depth)
		return
	case *durationpb.Duration:
		d.duration(at, known)
		return
	}
	name := m.Descriptor().FullName()
	if name.Parent() == "google.protobuf" {
		switch name.Name() {
		case "Struct", "Value", "ListValue":
			d.count(n, depth) // the runtime's keys are read from the tree
			return
		case "Timestamp", "FieldMask", "Empty":
			return // nothing that is judged is of these types
		}
		value := m.Descriptor().Fields().ByName("value")
		if v, ok := d.scalar(at, value); ok {
			m.Set(value, v)
		}
		return
	}
	if n.Kind != yaml.MappingNode {
		d.unreadable(at, "a "+string(name.Name()))
		return
	}
	d.fields(at, n, m, depth)
}

// count visits a tree that is not decoded.
func (d *decoder) count(n *yaml.Node, depth int) {
	if n = resolve(n); n == nil || !d.visit(depth) {
		return
	}
	for _, inner := range n.Content {
		d.count(inner, depth+1)
	}
}

// ignoredTag marks keys that Envoy skips: anchors stand there.
const ignoredTag = "!ignore"

// typeKey is the key that names the type of an Any.
const typeKey = "@type"

func (d *decoder) fields(at spot, n *yaml.Node, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	seen := make(map[protoreflect.Name]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value == typeKey || key.Tag == ignoredTag {
			continue
		}
		fd := fields.ByTextName(key.Value)
		if fd == nil {
			fd = fields.ByJSONName(key.Value)
		}
		here := spot{at.source, key, value, join(at.path, key.Value)}
		if fd == nil {
			d.report(ruleUnknownField, here, fmt.Sprintf("%s has no field %q", m.Descriptor().Name(), short(key.Value)))
			continue
		}
		here.path = join(at.path, string(fd.Name()))
		if seen[fd.Name()] {
			d.unread++
			d.report(ruleUnreadable, here, fmt.Sprintf("%s is written twice", fd.Name()))
			continue
		}
		seen[fd.Name()] = true
		if isNull(resolve(value)) {
			continue
		}
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if other := m.WhichOneof(o); other != nil {
				d.unread++
				d.report(ruleUnreadable, here, fmt.Sprintf("%s and %s exclude each other", other.Name(), fd.Name()))
				continue
			}
		}
		d.field(here, fd, m, depth)
	}
}

func (d *decoder) field(at spot, fd protoreflect.FieldDescriptor, m protoreflect.Message, depth int) {
	n := resolve(at.value)
	switch {
	case n == nil:
		d.unreadable(at, "a value")
	case fd.IsMap():
		d.mapField(at, n, fd, m.Mutable(fd).Map(), depth)
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			d.unreadable(at, "a list")
			return
		}
		list := m.Mutable(fd).List()
		for i, item := range n.Content {
			here := spot{at.source, nil, item, index(at.path, i)}
			if fd.Message() != nil {
				element := list.NewElement()
				list.Append(element)
				d.message(here, element.Message(), depth+1)
			} else if v, ok := d.scalar(here, fd); ok {
				list.Append(v)
			}
		}
	case fd.Message() != nil:
		d.message(at, m.Mutable(fd).Message(), depth+1)
	default:
		if v, ok := d.scalar(at, fd); ok {
			m.Set(fd, v)
		}
	}
}

func (d *decoder) mapField(at spot, n *yaml.Node, fd protoreflect.FieldDescriptor, m protoreflect.Map, depth int) {
	if n.Kind != yaml.MappingNode {
		d.unreadable(at, "a map")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		here := spot{at.source, key, value, join(at.path, key.Value)}
		k, ok := d.scalar(spot{at.source, key, key, here.path}, fd.MapKey())
		if !ok {
			continue
		}
		if m.Has(k.MapKey()) {
			d.unread++
			d.report(ruleUnreadable, here, fmt.Sprintf("%q is written twice", short(key.Value)))
			continue
		}
		if fd.MapValue().Message() != nil {
			d.message(here, m.Mutable(k.MapKey()).Message(), depth+1)
		} else if v, ok := d.scalar(here, fd.MapValue()); ok {
			m.Set(k.MapKey(), v)
		}
	}
}

// Wrappers of a configuration whose type Envoy looks up by name.
const (
	typedStructXDS  = "xds.type.v3.TypedStruct"
	typedStructUDPA = "udpa.type.v1.TypedStruct"
)

// any decodes the configuration of an extension, where its type is known.
func (d *decoder) any(at spot, a *anypb.Any, depth int) {
	n := resolve(at.value)
	if n.Kind != yaml.MappingNode {
		d.unreadable(at, "a configuration with its @type")
		return
	}
	kind, _ := d.text(n, typeKey)
	a.TypeUrl = kind
	if kind == "" {
		if len(n.Content) > 0 {
			d.unreadable(at, "a configuration with its @type")
		}
		return
	}
	value := at
	switch typeName(kind) {
	case typedStructXDS, typedStructUDPA:
		a.TypeUrl, _ = d.text(n, "type_url", "typeUrl")
		var ok bool
		if value, ok = at.field("value"); !ok {
			value = spot{at.source, at.key, nil, at.path}
		}
	}
	if knownExtension(typeName(a.TypeUrl)) {
		return // known to be harmless, but not by its fields
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(typeName(a.TypeUrl)))
	if err != nil {
		where := at
		if key, ok := at.field(typeKey); ok {
			where = key
		}
		d.report(ruleUnknownExtension, where, fmt.Sprintf("the extension type %q is not known here", short(a.TypeUrl)))
		return
	}
	inner := t.New()
	if inner.Descriptor().FullName().Parent() == "google.protobuf" {
		if v, ok := at.field("value"); ok {
			value = v
		}
	}
	d.inner[a] = inner.Interface()
	d.message(value, inner, depth+1)
}

// typeName is the name in a type URL.
func typeName(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

func (d *decoder) text(n *yaml.Node, names ...string) (string, bool) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		for _, name := range names {
			if n.Content[i].Value == name {
				if v := resolve(n.Content[i+1]); v != nil && v.Kind == yaml.ScalarNode {
					return v.Value, true
				}
			}
		}
	}
	return "", false
}

func (d *decoder) duration(at spot, to *durationpb.Duration) {
	n := resolve(at.value)
	text, ok := strings.CutSuffix(n.Value, "s")
	seconds, err := strconv.ParseFloat(text, 64)
	if n.Kind != yaml.ScalarNode || !ok || err != nil || math.Abs(seconds) > 315_576_000_000 || math.IsNaN(seconds) {
		d.unreadable(at, "a duration such as 2s or 0.25s")
		return
	}
	whole, fraction := math.Modf(seconds)
	to.Seconds, to.Nanos = int64(whole), int32(math.Round(fraction*float64(time.Second)))
}

// scalar reads one value as JSON for Protocol Buffers does, and YAML's plain words besides.
func (d *decoder) scalar(at spot, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	if !d.visit(0) {
		return none, false
	}
	n := resolve(at.value)
	if n == nil || n.Kind != yaml.ScalarNode {
		d.unreadable(at, "a single value")
		return none, false
	}
	s := n.Value
	want := ""
	switch fd.Kind() {
	case protoreflect.BoolKind:
		switch strings.ToLower(s) {
		case "true", "yes", "on", "y":
			return protoreflect.ValueOfBool(true), true
		case "false", "no", "off", "n":
			return protoreflect.ValueOfBool(false), true
		}
		want = "true or false"
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), true
	case protoreflect.BytesKind:
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			if b, err := e.DecodeString(s); err == nil {
				return protoreflect.ValueOfBytes(b), true
			}
		}
		want = "base64"
	case protoreflect.EnumKind:
		if v := fd.Enum().Values().ByName(protoreflect.Name(s)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
		if v, err := strconv.ParseInt(s, 10, 32); err == nil {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v)), true
		}
		want = "a known " + string(fd.Enum().Name())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			if fd.Kind() == protoreflect.FloatKind {
				return protoreflect.ValueOfFloat32(float32(v)), true
			}
			return protoreflect.ValueOfFloat64(v), true
		}
		want = "a number"
	default:
		if v, ok := integer(s, fd.Kind()); ok {
			return v, true
		}
		want = "a whole number in range"
	}
	d.unreadable(at, want)
	return none, false
}

func integer(s string, kind protoreflect.Kind) (protoreflect.Value, bool) {
	// 1e6 and 1048576.0 are whole numbers in JSON.
	if f, err := strconv.ParseFloat(s, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		s = strconv.FormatFloat(f, 'f', 0, 64)
	}
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		v, err := strconv.ParseInt(s, 10, 32)
		return protoreflect.ValueOfInt32(int32(v)), err == nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		v, err := strconv.ParseInt(s, 10, 64)
		return protoreflect.ValueOfInt64(v), err == nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		v, err := strconv.ParseUint(s, 10, 32)
		return protoreflect.ValueOfUint32(uint32(v)), err == nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(s, 10, 64)
		return protoreflect.ValueOfUint64(v), err == nil
	}
	return protoreflect.Value{}, false
}

func isNull(n *yaml.Node) bool {
	return n != nil && n.Kind == yaml.ScalarNode && (n.Tag == "!!null" || n.Style == 0 && (n.Value == "null" || n.Value == "~" || n.Value == "" && n.Tag != "!!str"))
}

// camelCase is the name of a field in JSON.
func camelCase(s string) string {
	var b strings.Builder
	up := false
	for _, c := range s {
		switch {
		case c == '_':
			up = true
		case up:
			b.WriteString(strings.ToUpper(string(c)))
			up = false
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
