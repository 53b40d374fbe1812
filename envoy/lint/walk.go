package lint

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// walk calls visit for a message and every one within it, those within an Any too.
func (l *linter) walk(m proto.Message, visit func(proto.Message)) {
	if m == nil {
		return
	}
	l.walkMessage(m.ProtoReflect(), visit)
}

func (l *linter) walkMessage(m protoreflect.Message, visit func(proto.Message)) {
	if !m.IsValid() {
		return
	}
	visit(m.Interface())
	if a, ok := m.Interface().(*anypb.Any); ok {
		if inner := l.inner[a]; inner != nil {
			l.walkMessage(inner.ProtoReflect(), visit)
		}
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					l.walkMessage(v.Message(), visit)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				l.walkMessage(v.List().Get(i).Message(), visit)
			}
		default:
			l.walkMessage(v.Message(), visit)
		}
		return true
	})
}
