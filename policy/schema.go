package policy

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/source"
)

// Schema is the JSON Schema (draft 2020-12) of a policy document, made from the types that Load decodes into.
func Schema() ([]byte, error) {
	policy := documentSchema("WebhookPolicy", reflect.TypeFor[webhookSpec]())
	policy.Required = []string{"apiVersion", "kind", "metadata", "spec"}
	policy.Properties["metadata"].Required = []string{"name"}
	policy.Properties["spec"].Required = nil // the signature may come from the defaults in part
	defaults := documentSchema("WebhookDefaults", reflect.TypeFor[defaultsSpec]())
	list := documentSchema("WebhookAddressList", reflect.TypeFor[listSpec]())
	list.Required = []string{"apiVersion", "kind", "metadata"}
	list.Properties["metadata"].Required = []string{"name"}
	root := &jsonschema.Schema{
		Schema:      "https://json-schema.org/draft/2020-12/schema",
		Title:       "hookauthz policy",
		Description: "A document of a hookauthz policy file, " + APIVersion + ".",
		OneOf:       []*jsonschema.Schema{policy, defaults, list},
	}
	return json.MarshalIndent(root, "", "  ")
}

func documentSchema(kind string, spec reflect.Type) *jsonschema.Schema {
	return &jsonschema.Schema{
		Title: kind,
		Type:  "object",
		Properties: map[string]*jsonschema.Schema{
			"apiVersion": {Const: jsonschema.Ptr[any](APIVersion)},
			"kind":       {Const: jsonschema.Ptr[any](kind)},
			"metadata":   typeSchema(reflect.TypeFor[metadataSpec]()),
			"spec":       typeSchema(spec),
		},
		PropertyOrder:        []string{"apiVersion", "kind", "metadata", "spec"},
		Required:             []string{"apiVersion", "kind", "spec"},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
}

// Forms of the values that are written as one scalar.
const (
	durationPattern = `^(\d+d)?((\d+(\.\d+)?)(ns|us|µs|ms|s|m|h))*$`
	limitPattern    = `^[1-9][0-9]*/(second|minute|hour|day|(\d+d)?((\d+(\.\d+)?)(ms|s|m|h))*)$`
)

// text is the schema of a scalar that is read by its source text: YAML may see a number or a truth value in it.
func text(pattern, description string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string", Pattern: pattern, Description: description}
	if pattern == "" {
		s.Types, s.Type = []string{"string", "number", "boolean"}, ""
	}
	return s
}

func typeSchema(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[durationSpec]():
		return text(durationPattern, "")
	case reflect.TypeFor[sizeSpec]():
		return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: `^[1-9][0-9]*(KiB|MiB|GiB)?$`}
	case reflect.TypeFor[rate.Limit]():
		return text(limitPattern, "")
	case reflect.TypeFor[netip.Prefix]():
		return text(`^[0-9A-Fa-f:.]+(/[0-9]+)?$`, "")
	case reflect.TypeFor[source.From]():
		return &jsonschema.Schema{Enum: []any{"peer", "xForwardedFor", "header"}}
	case reflect.TypeFor[shareSpec]():
		return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: `^1(/[1-9][0-9]*)?$`}
	case reflect.TypeFor[schemeSpec]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, typeSchema(reflect.TypeFor[signature.Spec]())}}
	case reflect.TypeFor[failuresSpec]():
		limit := &jsonschema.Schema{OneOf: []*jsonschema.Schema{text(limitPattern, ""), {Const: jsonschema.Ptr[any]("unlimited")}}}
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Const: jsonschema.Ptr[any]("unlimited")},
			{Type: "object", Properties: map[string]*jsonschema.Schema{"limit": limit}, Required: []string{"limit"}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}},
		}}
	}
	if c, ok := reflect.Zero(t).Interface().(chooser); ok {
		s := &jsonschema.Schema{}
		for _, word := range c.choices() {
			s.Enum = append(s.Enum, word)
		}
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem())
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: typeSchema(t.Elem()), MinItems: jsonschema.Ptr(1)}
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: text("", "")}
	case reflect.Struct:
		return structSchema(t)
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Int:
		return &jsonschema.Schema{Type: "integer"}
	default:
		return text("", "")
	}
}

func structSchema(t reflect.Type) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	inScheme := t.PkgPath() == reflect.TypeFor[signature.Spec]().PkgPath()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		field := typeSchema(f.Type)
		if inScheme && f.Type == reflect.TypeFor[[]string]() { // one or several
			field = &jsonschema.Schema{OneOf: []*jsonschema.Schema{text("", ""), field}}
		}
		if doc := f.Tag.Get("doc"); doc != "" {
			field.Description = doc
		}
		s.Properties[name] = field
		s.PropertyOrder = append(s.PropertyOrder, name)
	}
	return s
}
