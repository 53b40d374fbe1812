package envoy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// typeKey names the type of a configuration within another.
const typeKey = "@type"

// tree is a message of Envoy's API as YAML: names as in the .proto files, wrapped types unwrapped, configurations within others
// with their type. Fields with a remark are there with what it says of them.
func (p remarks) tree(m proto.Message) (*node, error) { return p.message(m.ProtoReflect()) }

func (p remarks) message(m protoreflect.Message) (*node, error) {
	switch known := m.Interface().(type) {
	case *anypb.Any:
		inner, err := known.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("print configuration: %w", err)
		}
		n, err := p.tree(inner)
		if err != nil {
			return nil, err
		}
		n.fields = append([]field{{key: typeKey, value: text(known.TypeUrl)}}, n.fields...)
		return n, nil
	case *durationpb.Duration:
		return word(strconv.FormatFloat(known.AsDuration().Seconds(), 'f', -1, 64) + "s"), nil
	case *structpb.Struct:
		return structTree(known), nil
	}
	if strings.HasPrefix(string(m.Descriptor().FullName()), "google.protobuf.") { // a wrapper of one value
		value := m.Descriptor().Fields().ByName("value")
		return scalarTree(value, m.Get(value))
	}
	return p.fields(m)
}

// fields is an ordinary message: its name, then what is short, then what is long, each in the order of the .proto file.
func (p remarks) fields(m protoreflect.Message) (*node, error) {
	n := &node{kind: mapNode}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		about := p[string(fd.FullName())]
		if !m.Has(fd) && !about.always {
			continue
		}
		value, err := p.field(fd, m.Get(fd))
		if err != nil {
			return nil, err
		}
		n.fields = append(n.fields, field{key: string(fd.Name()), value: value, comment: about.text})
	}
	slices.SortStableFunc(n.fields, func(a, b field) int { return rank(a) - rank(b) })
	return n, nil
}

func rank(f field) int {
	if f.key == "name" || f.key == "match" {
		return 0
	}
	if f.value.tall() {
		return 3
	}
	if s, ok := f.value.flow(); ok && len(s) < 80 {
		return 1
	}
	return 2
}

func (p remarks) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*node, error) {
	switch {
	case fd.IsMap():
		return p.mapping(fd, v.Map())
	case fd.IsList():
		n := &node{kind: listNode}
		for i := range v.List().Len() {
			item, err := p.value(fd, v.List().Get(i))
			if err != nil {
				return nil, err
			}
			if fd.Kind() == protoreflect.MessageKind {
				item.comment = p.item(v.List().Get(i).Message())
			}
			n.items = append(n.items, item)
		}
		return n, nil
	}
	return p.value(fd, v)
}

func (p remarks) mapping(fd protoreflect.FieldDescriptor, m protoreflect.Map) (*node, error) {
	n := &node{kind: mapNode}
	var err error
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		var value *node
		if value, err = p.value(fd.MapValue(), v); err != nil {
			return false
		}
		n.add(k.String(), value)
		return true
	})
	slices.SortFunc(n.fields, func(a, b field) int { return strings.Compare(a.key, b.key) })
	return n, err
}

func (p remarks) value(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*node, error) {
	if fd.Kind() == protoreflect.MessageKind {
		return p.message(v.Message())
	}
	return scalarTree(fd, v)
}

func scalarTree(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*node, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return text(v.String()), nil
	case protoreflect.BytesKind:
		return text(base64.StdEncoding.EncodeToString(v.Bytes())), nil
	case protoreflect.EnumKind:
		value := fd.Enum().Values().ByNumber(v.Enum())
		if value == nil {
			return nil, fmt.Errorf("print configuration: %s has no value %d", fd.FullName(), v.Enum())
		}
		return text(string(value.Name())), nil
	}
	return word(v.String()), nil
}

// structTree is free-form JSON, such as the format of an access log. Only strings occur.
func structTree(s *structpb.Struct) *node {
	n := &node{kind: mapNode}
	for key, value := range s.GetFields() {
		n.add(key, text(value.GetStringValue()))
	}
	slices.SortFunc(n.fields, func(a, b field) int { return strings.Compare(a.key, b.key) })
	return n
}

// item is what is said of an item of a list, by its type and name.
func (p remarks) item(m protoreflect.Message) string {
	name := m.Descriptor().Fields().ByName("name")
	if name == nil || name.Kind() != protoreflect.StringKind {
		return ""
	}
	return p[string(m.Descriptor().FullName())+":"+m.Get(name).String()].text
}

// check validates a message by the rules of Envoy's API, and every configuration within it.
func check(m proto.Message) error {
	var faults []error
	walk(m.ProtoReflect(), func(inner proto.Message) {
		if v, ok := inner.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				faults = append(faults, err)
			}
		}
	}, func(err error) { faults = append(faults, err) })
	return errors.Join(faults...)
}

// walk visits a message, and each that stands in it as Any. What lies between, ValidateAll visits itself.
func walk(m protoreflect.Message, visit func(proto.Message), fault func(error)) {
	visit(m.Interface())
	within(m, visit, fault)
}

func within(m protoreflect.Message, visit func(proto.Message), fault func(error)) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			fault(err)
			return
		}
		walk(inner.ProtoReflect(), visit, fault)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Kind() == protoreflect.MessageKind {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					within(v.Message(), visit, fault)
					return true
				})
			}
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := range v.List().Len() {
				within(v.List().Get(i).Message(), visit, fault)
			}
		default:
			within(v.Message(), visit, fault)
		}
		return true
	})
}
