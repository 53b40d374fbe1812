package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Caps on what a policy folder may hold, so that a file cannot exhaust the process that loads it.
const (
	maxFileBytes     = 32 << 20
	maxFileDocuments = 100_000
	maxDocumentNodes = 500_000 // after alias expansion
	maxAliasedNodes  = 10_000  // nodes that a document gains by its aliases
	maxNesting       = 32
)

type kind uint8

const (
	scalarNode kind = iota
	listNode
	mapNode
)

func (k kind) String() string {
	return [...]string{"a single value", "a list", "a map"}[k]
}

// node is a YAML node with its place in a file. Aliases are resolved; keys of a map are unique scalars.
type node struct {
	file      *file
	line, col int
	kind      kind
	null      bool
	quoted    bool
	shared    bool    // it stands in the defaults: no single webhook is to blame
	bad       bool    // it has a fault already
	text      string  // of a scalar, as written
	keys      []*node // of a map, beside items
	items     []*node
}

// get is the value under a key of a map, or nil.
func (n *node) get(key string) *node {
	if n == nil || n.kind != mapNode {
		return nil
	}
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// at follows a path such as "signature.secrets[1].env" as far as it leads.
func (n *node) at(path string) *node {
	for path != "" {
		var step string
		if path[0] == '[' {
			step, path, _ = strings.Cut(path[1:], "]")
			path = strings.TrimPrefix(path, ".")
			i, err := strconv.Atoi(step)
			if err != nil || n.kind != listNode || i < 0 || i >= len(n.items) {
				return n
			}
			n = n.items[i]
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		step, path = path[:end], strings.TrimPrefix(path[end:], ".")
		next := n.get(step)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// file is one policy file that is being read, and the faults found in it.
type file struct {
	name  string
	lines []string
	// hidden holds, by line, the column from which a line may hold a secret.
	hidden map[int]int
	// faults gathers what is wrong.
	faults *[]Fault
	// spare are nodes that are not used yet. Many at once are less work for the garbage collector, which looks at all of a folder each time.
	spare []node
}

// node makes the node for one of YAML's.
func (f *file) node(y *yaml.Node) *node {
	if len(f.spare) == 0 {
		f.spare = make([]node, 64)
	}
	n := &f.spare[0]
	f.spare = f.spare[1:]
	n.file, n.line, n.col = f, y.Line, y.Column
	return n
}

// hide keeps the value of n out of every message: from its place to the line where the next node begins.
func (f *file) hide(n *node, until int) {
	switch n.kind {
	case scalarNode:
		f.hideFrom(n.line, n.col)
		for line := n.line + 1; line < until || (line == until && n.quoted); line++ {
			f.hideFrom(line, 1)
		}
	default:
		for i, item := range n.items {
			end := until
			if i+1 < len(n.items) {
				end = n.items[i+1].line
			}
			f.hide(item, end)
		}
	}
}

func (f *file) hideFrom(line, col int) {
	if f.hidden == nil {
		f.hidden = make(map[int]int)
	}
	if old, ok := f.hidden[line]; !ok || col < old {
		f.hidden[line] = col
	}
}

// shown is a line of the file without what may be secret in it; "" where nothing is left to show.
func (f *file) shown(line int) string {
	if line < 1 || line > len(f.lines) {
		return ""
	}
	s := f.lines[line-1]
	if col, ok := f.hidden[line]; ok && col-1 < len(s) {
		if strings.TrimSpace(s[:col-1]) == "" {
			return ""
		}
		s = s[:col-1] + "..."
	}
	const widest = 160
	if len(s) > widest {
		s = s[:widest] + "..."
	}
	if !utf8.ValidString(s) {
		return ""
	}
	return strings.TrimRight(s, " \r")
}

func (f *file) fault(line, col int, webhook, problem, fix string) {
	*f.faults = append(*f.faults, Fault{File: f.name, Line: line, Column: col, Webhook: webhook, Problem: problem, Fix: fix})
}

func (n *node) fault(webhook, problem, fix string) {
	n.bad = !n.shared // the defaults are looked at again with each webhook; what is the same is told once
	n.file.fault(n.line, n.col, webhook, problem, fix)
}

// faulty reports whether n or anything in it has a fault already, so that what is missing there is no second one.
func (n *node) faulty() bool {
	if n.bad {
		return true
	}
	for i, item := range n.items {
		if item.faulty() || (i < len(n.keys) && n.keys[i].bad) {
			return true
		}
	}
	return false
}

// share marks n and all in it as part of the defaults.
func (n *node) share() {
	n.shared = true
	for i, item := range n.items {
		item.share()
		if i < len(n.keys) {
			n.keys[i].shared = true
		}
	}
}

// yamlLine finds the line that the YAML parser names in its messages.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parse reads the documents of a file. What is wrong goes to its faults; documents that cannot be understood are left out.
func (f *file) parse(data []byte) []*node {
	switch {
	case len(data) > maxFileBytes:
		f.fault(1, 1, "", fmt.Sprintf("the file has more than %d bytes", maxFileBytes), "split it into several files")
		return nil
	case !utf8.Valid(data):
		f.fault(1, 1, "", "the file is not UTF-8 text", "save it as UTF-8")
		return nil
	}
	f.lines = strings.Split(string(data), "\n")
	var documents []*node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for count := 0; ; count++ {
		var y yaml.Node
		err := decoder.Decode(&y)
		switch {
		case errors.Is(err, io.EOF):
			if count == 0 {
				f.fault(1, 1, "", "the file holds no document", "write a WebhookPolicy or delete the file")
			}
			return documents
		case err != nil:
			f.syntaxFault(err)
			return documents
		case count == maxFileDocuments:
			f.fault(y.Line, 1, "", fmt.Sprintf("the file has more than %d documents", maxFileDocuments), "split it into several files")
			return documents
		}
		t := treeBuilder{file: f}
		if root, ok := t.document(&y); ok {
			documents = append(documents, root)
		}
	}
}

func (f *file) syntaxFault(err error) {
	line, problem := 1, err.Error()
	if m := yamlLine.FindStringSubmatch(problem); m != nil {
		problem = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	// The parser may quote what it cannot read, and the line may hold a secret: neither is shown.
	problem, _, _ = strings.Cut(problem, "`")
	f.hideFrom(line, 1)
	f.fault(line, 1, "", "the YAML cannot be read: "+strings.TrimSpace(problem), "correct the syntax at or before this line")
}

// treeBuilder turns one YAML document into nodes, within the caps.
type treeBuilder struct {
	file    *file
	nodes   int
	aliased int
	failed  bool
}

func (t *treeBuilder) document(y *yaml.Node) (*node, bool) {
	if y.Kind != yaml.DocumentNode || len(y.Content) != 1 || y.Content[0].ShortTag() == "!!null" {
		line := max(y.Line, 1)
		t.file.fault(line, max(y.Column, 1), "", "the document is empty", "write a WebhookPolicy or delete the ---")
		return nil, false
	}
	root := t.node(y.Content[0], 0, 0)
	return root, !t.failed
}

func (t *treeBuilder) fail(y *yaml.Node, problem, fix string) *node {
	if !t.failed {
		t.file.fault(y.Line, y.Column, "", problem, fix)
	}
	t.failed = true
	return t.nothing(y)
}

func (t *treeBuilder) nothing(y *yaml.Node) *node {
	n := t.file.node(y)
	n.null = true
	return n
}

func (t *treeBuilder) node(y *yaml.Node, depth, aliases int) *node {
	t.nodes++
	if aliases > 0 {
		t.aliased++
	}
	switch {
	case t.failed:
		return t.nothing(y)
	case depth > maxNesting:
		return t.fail(y, fmt.Sprintf("the document is nested more than %d deep", maxNesting), "write it flatter")
	case t.nodes > maxDocumentNodes:
		return t.fail(y, fmt.Sprintf("the document has more than %d values", maxDocumentNodes), "split it")
	case t.aliased > maxAliasedNodes:
		return t.fail(y, fmt.Sprintf("the aliases of the document expand to more than %d values", maxAliasedNodes), "write the values out or use WebhookDefaults")
	}
	if y.Kind == yaml.AliasNode {
		return t.node(y.Alias, depth+1, aliases+1)
	}
	n := t.file.node(y)
	switch y.Kind {
	case yaml.ScalarNode:
		n.text = y.Value
		n.quoted = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
		n.null = y.ShortTag() == "!!null" && !n.quoted
	case yaml.SequenceNode:
		n.kind = listNode
		n.items = make([]*node, 0, len(y.Content))
		for _, item := range y.Content {
			n.items = append(n.items, t.node(item, depth+1, aliases))
		}
	case yaml.MappingNode:
		n.kind = mapNode
		t.mapping(n, y, depth, aliases)
	}
	if y.Style&yaml.TaggedStyle != 0 {
		n.fault("", fmt.Sprintf("the tag %q is not part of the policy language", clip(y.Tag)), "delete it")
	}
	return n
}

func (t *treeBuilder) mapping(n *node, y *yaml.Node, depth, aliases int) {
	seen := make(map[string]int, len(y.Content)/2)
	n.keys, n.items = make([]*node, 0, len(y.Content)/2), make([]*node, 0, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			t.fail(key, "a key is not a plain name", "write one name as the key")
			return
		case key.ShortTag() == "!!merge":
			t.file.fault(key.Line, key.Column, "", "merge keys (<<) are not part of the policy language", "put what policies share into WebhookDefaults")
			n.bad = true
			continue
		}
		k := t.node(key, depth+1, aliases)
		value := t.node(y.Content[i+1], depth+1, aliases)
		if first, ok := seen[k.text]; ok {
			t.file.fault(k.line, k.col, "", fmt.Sprintf("the key %q occurs twice; it is already on line %d", clip(k.text), first), "keep one of them")
			n.bad = true
			t.file.hide(value, value.line)
			continue
		}
		seen[k.text] = k.line
		n.keys = append(n.keys, k)
		n.items = append(n.items, value)
	}
}

// clip bounds a text that is quoted in a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// merged is the map of defaults with that of a policy laid over it: maps merge, lists and scalars replace.
func merged(defaults, over *node) *node {
	if defaults == nil || over == nil || defaults.kind != mapNode || over.kind != mapNode {
		if over == nil {
			return defaults
		}
		return over
	}
	out := *over
	out.keys = append([]*node(nil), over.keys...)
	out.items = append([]*node(nil), over.items...)
	for i, key := range defaults.keys {
		at := -1
		for j, k := range over.keys {
			if k.text == key.text {
				at = j
			}
		}
		if at < 0 {
			out.keys = append(out.keys, key)
			out.items = append(out.items, defaults.items[i])
			continue
		}
		out.items[at] = merged(defaults.items[i], over.items[at])
	}
	return &out
}
