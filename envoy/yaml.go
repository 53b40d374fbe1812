package envoy

import (
	"regexp"
	"strconv"
	"strings"
)

// width is how long a line of flow style may become, its indentation included.
const width = 118

// node is a YAML value: a scalar, a list or a mapping, with comments. It exists so that the output is the same to the byte whatever
// a library's next version does, and so that short things stand on one line.
type node struct {
	kind    kind
	scalar  string  // as it is written
	items   []*node // of a list
	fields  []field // of a mapping, in order
	comment string  // stands above an item of a list
}

type kind uint8

const (
	scalarNode kind = iota
	listNode
	mapNode
)

type field struct {
	key     string
	value   *node
	comment string // stands above the key
	apart   bool   // an empty line stands above it
}

func (n *node) add(key string, value *node) {
	n.fields = append(n.fields, field{key: key, value: value})
}

// plain is a string that needs no quotes in any place: it can be no number, boolean, null or date, and holds nothing that YAML reads.
var plain = regexp.MustCompile(`^[A-Za-z_/.][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*$`)

// number is a string that reads as one, or as something near one.
var number = regexp.MustCompile(`^[0-9.][0-9a-zA-Z_.+-]*$`)

// dotted is an IPv4 address, which is no number for its three dots.
var dotted = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)

// duration is none either, for its unit.
var duration = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?m?s$`)

func quoted(s string) string {
	if dotted.MatchString(s) || duration.MatchString(s) || (plain.MatchString(s) && !number.MatchString(s)) {
		switch strings.ToLower(s) {
		case "y", "n", "yes", "no", "on", "off", "true", "false", "null", ".inf", ".nan", "_", ".", "":
		default:
			return s
		}
	}
	return strconv.Quote(s) // its escapes are among YAML's, for valid UTF-8
}

func text(s string) *node { return &node{scalar: quoted(s)} }

// word is a scalar that is written as it is: a number, true, false.
func word(s string) *node { return &node{scalar: s} }

// print is the document as YAML.
func (n *node) print() string {
	var b strings.Builder
	n.block(&b, 0)
	return b.String()
}

// flow is the node on one line. It reports false where there is a comment within.
func (n *node) flow() (string, bool) {
	var parts []string
	switch n.kind {
	case scalarNode:
		return n.scalar, n.comment == ""
	case listNode:
		for _, item := range n.items {
			s, ok := item.flow()
			if !ok || item.comment != "" {
				return "", false
			}
			parts = append(parts, s)
		}
		return "[" + strings.Join(parts, ", ") + "]", true
	}
	for _, f := range n.fields {
		s, ok := f.value.flow()
		if !ok || f.comment != "" || f.apart || f.value.comment != "" {
			return "", false
		}
		parts = append(parts, quoted(f.key)+": "+s)
	}
	return "{" + strings.Join(parts, ", ") + "}", true
}

// inline is the node on one line behind so many characters, where it is short enough.
func (n *node) inline(column int) (string, bool) {
	s, ok := n.flow()
	if !ok || (n.kind != scalarNode && column+len(s) > width) {
		return "", false
	}
	return s, true
}

func (n *node) block(b *strings.Builder, indent int) {
	if n.kind == listNode {
		for _, item := range n.items {
			comment(b, item.comment, indent)
			b.WriteString(strings.Repeat(" ", indent) + "- ")
			if s, ok := (&node{kind: item.kind, scalar: item.scalar, items: item.items, fields: item.fields}).inline(indent + 2); ok && !item.tall() {
				b.WriteString(s + "\n")
				continue
			}
			var inner strings.Builder
			item.block(&inner, indent+2)
			// The first line stands behind the dash, unless it is a comment.
			first := inner.String()
			if trimmed := strings.TrimLeft(first, " "); !strings.HasPrefix(trimmed, "#") {
				b.WriteString(trimmed)
				continue
			}
			b.WriteString("\n" + first)
		}
		return
	}
	for _, f := range n.fields {
		if f.apart {
			b.WriteString("\n")
		}
		comment(b, f.comment, indent)
		key := strings.Repeat(" ", indent) + quoted(f.key) + ":"
		if s, ok := f.value.inline(len(key) + 1); ok && !f.value.tall() {
			b.WriteString(key + " " + s + "\n")
			continue
		}
		b.WriteString(key + "\n")
		inner := indent + 2
		if f.value.kind == listNode {
			inner = indent // a list stands at its key
		}
		f.value.block(b, inner)
	}
}

// tall says that a node is better read over several lines: it has a type of its own.
func (n *node) tall() bool {
	switch n.kind {
	case mapNode:
		for _, f := range n.fields {
			if f.key == typeKey || f.value.tall() {
				return true
			}
		}
	case listNode:
		for _, item := range n.items {
			if item.tall() {
				return true
			}
		}
	}
	return false
}

func comment(b *strings.Builder, text string, indent int) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(wrap(text, width-indent-2), "\n") {
		b.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+"# "+line, " ") + "\n")
	}
}

// wrap breaks a text at spaces. Its own line breaks stay, and so do lines that are indented.
func wrap(text string, width int) string {
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(paragraph, " ") {
			lines = append(lines, paragraph)
			continue
		}
		line := ""
		for w := range strings.SplitSeq(paragraph, " ") {
			switch {
			case line == "":
				line = w
			case len(line)+1+len(w) > width:
				lines, line = append(lines, line), w
			default:
				line += " " + w
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
