// Package mutation holds weakenings of a right Envoy configuration: each proves that one rule of the linter finds what it is for, at its
// place. They are data, for the tests of the linter and for its page in docs/.
package mutation

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed mutations.yaml
var text []byte

// Mutation is one weakening.
type Mutation struct {
	Name  string `yaml:"name"` // what is done, in a few words
	Rule  string `yaml:"rule"` // which finds it
	Edits []Edit `yaml:"edits"`
	// Place is where it is found; the first edit's place where it is left out.
	Place string `yaml:"place"`
	// Also lists what the same change brings about elsewhere.
	Also []Finding `yaml:"also"`
	// Policies says that the rule needs the policies; Policy is one more policy file among them.
	Policies bool   `yaml:"policies"`
	Policy   string `yaml:"policy"`
	// Refused says why Envoy 1.40 does not load it: a newer or an older one would, or the linter is to say it first.
	Refused string `yaml:"refused"`
}

// Finding is a rule at a place.
type Finding struct {
	Rule  string `yaml:"rule"`
	Place string `yaml:"place"`
}

// Edit is one change of a configuration. At is a path such as static_resources.listeners[0], where a step may select an element of a
// list by a field ([name=app]), and the first step may be a name for a longer path ($hcm).
type Edit struct {
	At     string    `yaml:"at"`
	Set    yaml.Node `yaml:"set"`    // takes the place of what is there, or is added to a map
	Add    yaml.Node `yaml:"add"`    // is put at the end of a list
	First  yaml.Node `yaml:"first"`  // is put at the beginning of a list
	Remove bool      `yaml:"remove"` // takes away what is there
	Copy   string    `yaml:"copy"`   // is a path whose copy is put at the end of the list
	Last   bool      `yaml:"last"`   // moves an element of a list to its end but one: before the router
}

// Set is all mutations, with names for paths.
type Set struct {
	Paths     map[string]string `yaml:"paths"`
	Mutations []Mutation        `yaml:"mutations"`
}

// All are the mutations that there are.
func All() (*Set, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	s := new(Set)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("reading the mutations: %w", err)
	}
	return s, nil
}

// Where is the place of a mutation's finding.
func (m Mutation) Where() string {
	if m.Place != "" {
		return m.Place
	}
	return m.Edits[0].At
}

// Apply is a configuration with the edits of m.
func (s *Set) Apply(config []byte, m Mutation) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(config, &root); err != nil {
		return nil, err
	}
	for _, e := range m.Edits {
		if err := s.edit(root.Content[0], e); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", m.Name, e.At, err)
		}
	}
	var b bytes.Buffer
	w := yaml.NewEncoder(&b)
	w.SetIndent(2)
	if err := w.Encode(&root); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}

var errAbsent = errors.New("it is not there")

func (s *Set) edit(root *yaml.Node, e Edit) error {
	steps, err := s.steps(e.At)
	if err != nil {
		return err
	}
	parent, last := root, steps[len(steps)-1]
	for _, step := range steps[:len(steps)-1] {
		next := child(parent, step)
		if next < 0 && parent.Kind == yaml.MappingNode {
			// A map on the way is made.
			parent.Content = append(parent.Content, scalar(step), &yaml.Node{Kind: yaml.MappingNode})
			next = len(parent.Content) - 1
		}
		if next < 0 {
			return fmt.Errorf("%s: %w", step, errAbsent)
		}
		parent = parent.Content[next]
	}
	i := child(parent, last)
	switch {
	case !e.Set.IsZero():
		if i >= 0 {
			parent.Content[i] = clone(&e.Set)
		} else if parent.Kind == yaml.MappingNode {
			parent.Content = append(parent.Content, scalar(last), clone(&e.Set))
		} else {
			return errAbsent
		}
		return nil
	case i < 0 && (!e.Add.IsZero() || !e.First.IsZero()) && parent.Kind == yaml.MappingNode:
		parent.Content = append(parent.Content, scalar(last), &yaml.Node{Kind: yaml.SequenceNode})
		i = len(parent.Content) - 1
	case i < 0:
		return errAbsent
	}
	list := parent.Content[i]
	switch {
	case e.Remove:
		from := i
		if parent.Kind == yaml.MappingNode {
			from = i - 1
		}
		parent.Content = append(parent.Content[:from:from], parent.Content[i+1:]...)
	case !e.Add.IsZero():
		list.Content = append(list.Content, clone(&e.Add))
	case !e.First.IsZero():
		list.Content = append([]*yaml.Node{clone(&e.First)}, list.Content...)
	case e.Copy != "":
		original, err := s.Find(root, e.Copy)
		if err != nil {
			return err
		}
		list.Content = append(list.Content, clone(original))
	case e.Last:
		moved := parent.Content[i]
		rest := append(parent.Content[:i:i], parent.Content[i+1:]...)
		end := len(rest) - 1
		parent.Content = append(append(rest[:end:end], moved), rest[end])
	default:
		return errors.New("the edit says nothing")
	}
	return nil
}

func scalar(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// clone copies a node, with a copy in the place of every alias.
func clone(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return clone(n.Alias)
	}
	c := *n
	c.Content, c.Anchor = nil, ""
	for _, inner := range n.Content {
		c.Content = append(c.Content, clone(inner))
	}
	return &c
}

// steps are the steps of a path: keys, and [N] or [key=value] for elements.
func (s *Set) steps(path string) ([]string, error) {
	for range len(s.Paths) + 1 {
		name, isName := strings.CutPrefix(path, "$")
		if !isName {
			break
		}
		end := strings.IndexAny(name, ".[")
		if end < 0 {
			end = len(name)
		}
		long, ok := s.Paths[name[:end]]
		if !ok {
			return nil, fmt.Errorf("no path is named %q", name[:end])
		}
		path = long + name[end:]
	}
	var steps []string
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case strings.HasPrefix(path, `["`):
			key, rest, ok := strings.Cut(path[2:], `"]`)
			if !ok {
				return nil, errors.New("a bracket is not closed")
			}
			steps, path = append(steps, key), rest
		case path[0] == '[':
			step, rest, ok := strings.Cut(path, "]")
			if !ok {
				return nil, errors.New("a bracket is not closed")
			}
			steps, path = append(steps, step+"]"), rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			steps, path = append(steps, path[:end]), path[end:]
		}
	}
	if len(steps) == 0 {
		return nil, errors.New("the path is empty")
	}
	return steps, nil
}

// child is the index in n.Content of what a step leads to; -1 where there is nothing.
func child(n *yaml.Node, step string) int {
	selector, isElement := strings.CutPrefix(step, "[")
	if !isElement {
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					return i + 1
				}
			}
		}
		return -1
	}
	if n.Kind != yaml.SequenceNode {
		return -1
	}
	selector = strings.TrimSuffix(selector, "]")
	key, value, named := strings.Cut(selector, "=")
	if !named {
		i, err := strconv.Atoi(selector)
		if err != nil || i >= len(n.Content) {
			return -1
		}
		if i < 0 {
			i = len(n.Content) + i
		}
		return i
	}
	for i, element := range n.Content {
		if at := child(element, key); at >= 0 && element.Content[at].Value == value {
			return i
		}
	}
	return -1
}

// Find is the node at a path.
func (s *Set) Find(root *yaml.Node, path string) (*yaml.Node, error) {
	_, value, err := s.find(root, path)
	return value, err
}

// Position is where a path's value begins: at its key, where it has one.
func (s *Set) Position(config []byte, path string) (line, column int, err error) {
	var root yaml.Node
	if err := yaml.Unmarshal(config, &root); err != nil {
		return 0, 0, err
	}
	key, value, err := s.find(root.Content[0], path)
	if err != nil {
		return 0, 0, err
	}
	if key != nil {
		value = key
	}
	return value.Line, value.Column, nil
}

func (s *Set) find(root *yaml.Node, path string) (key, value *yaml.Node, err error) {
	if path == "" {
		return nil, root, nil
	}
	steps, err := s.steps(path)
	if err != nil {
		return nil, nil, err
	}
	for _, step := range steps {
		i := child(root, step)
		if i < 0 {
			return nil, nil, fmt.Errorf("%s: %s: %w", path, step, errAbsent)
		}
		key = nil
		if root.Kind == yaml.MappingNode {
			key = root.Content[i-1]
		}
		root = root.Content[i]
	}
	return key, root, nil
}
