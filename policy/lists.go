package policy

import (
	"bytes"
	_ "embed" // for lists.yaml
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/policy/source"
)

//go:embed lists.yaml
var listFile []byte

// AddressList is a published list of addresses that policies name under source.lists.
type AddressList struct {
	Name       string   `yaml:"name"`
	Provider   string   `yaml:"provider"`
	Addresses  []string `yaml:"addresses"` // a snapshot
	URL        string   `yaml:"url"`       // where the sender publishes it
	Format     string   `yaml:"format"`    // json or lines
	Pointer    string   `yaml:"pointer"`   // into JSON
	Confidence string   `yaml:"confidence"`
	Source     string   `yaml:"source"`
	Date       string   `yaml:"date"`

	// File and Interval are set for a list that a WebhookAddressList refreshes.
	File     string        `yaml:"-"`
	Interval time.Duration `yaml:"-"`
}

// defaultInterval is how often a list is fetched where its document does not say.
const defaultInterval = 24 * time.Hour

// shippedLists is the embedded catalogue with its snapshots. One that cannot be read is empty, which a test forbids: every list denies then.
var shippedLists = sync.OnceValue(func() map[string]shippedList {
	lists, err := readLists(listFile)
	if err != nil {
		return nil
	}
	return lists
})

type shippedList struct {
	AddressList
	prefixes []netip.Prefix
}

func readLists(data []byte) (map[string]shippedList, error) {
	var f struct {
		Format string        `yaml:"format"`
		Lists  []AddressList `yaml:"lists"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("reading address lists: %w", err)
	}
	lists := make(map[string]shippedList, len(f.Lists))
	for _, l := range f.Lists {
		entry := shippedList{AddressList: l}
		if len(l.Addresses) > 0 {
			var err error
			if entry.prefixes, err = source.ParseList([]byte(strings.Join(l.Addresses, "\n")), "lines", ""); err != nil {
				return nil, fmt.Errorf("reading address lists: %s: %w", l.Name, err)
			}
		}
		if _, twice := lists[l.Name]; twice {
			return nil, fmt.Errorf("reading address lists: two are named %q", l.Name)
		}
		lists[l.Name] = entry
	}
	return lists, nil
}

// ShippedLists is the catalogue of published lists, by name.
func ShippedLists() []AddressList {
	var out []AddressList
	for _, name := range slices.Sorted(maps.Keys(shippedLists())) {
		out = append(out, shippedLists()[name].AddressList)
	}
	return out
}

// listSpec is the spec of a WebhookAddressList.
type listSpec struct {
	URL      string        `yaml:"url" doc:"Where the list is fetched from, over HTTPS. Default: the URL of the shipped list of this name."`
	File     string        `yaml:"file" doc:"File that is read instead; a relative one is relative to the policy file."`
	Format   listFormat    `yaml:"format" doc:"json, or lines: one address or range a line. Default: that of the shipped list, else json."`
	Pointer  string        `yaml:"pointer" doc:"JSON pointer to the addresses; * stands for every element."`
	Interval *durationSpec `yaml:"interval" doc:"How often it is fetched. Default: 24h."`
}

type listFormat string

func (listFormat) choices() []string { return []string{"json", "lines"} }

// addressList compiles a WebhookAddressList.
func (l *loader) addressList(root *node) {
	var meta metadataSpec
	var spec listSpec
	d := decoder{}
	m := root.get("metadata")
	if m == nil {
		root.fault("", "the address list has no metadata", "write metadata: {name: NAME}")
		return
	}
	d.decode(m, reflect.ValueOf(&meta).Elem(), false)
	s := root.get("spec")
	if s == nil {
		s = &node{file: root.file, line: root.line, col: root.col, kind: mapNode}
	}
	d.decode(s, reflect.ValueOf(&spec).Elem(), false)
	fault := func(path, problem, fix string) {
		if n := s.at(path); !n.faulty() {
			n.fault("", problem, fix)
		}
	}
	shipped := shippedLists()[meta.Name]
	list := AddressList{Name: meta.Name, URL: spec.URL, File: spec.File, Format: string(spec.Format), Pointer: spec.Pointer, Interval: defaultInterval}
	if spec.URL == "" && spec.File == "" {
		list.URL = shipped.URL
	}
	if list.Format == "" && list.Pointer == "" && shipped.Format != "" && list.URL == shipped.URL {
		list.Format, list.Pointer = shipped.Format, shipped.Pointer
	}
	if list.Format == "" {
		list.Format = "json"
	}
	if spec.Interval != nil {
		list.Interval = time.Duration(*spec.Interval)
	}
	u, err := url.Parse(list.URL)
	switch {
	case !nameForm.MatchString(meta.Name):
		if !m.faulty() {
			m.at("name").fault("", fmt.Sprintf("%q is not a name", clip(meta.Name)), "write lower-case letters, digits, '-', '_' and '.'")
		}
	case l.lists[meta.Name] != nil:
		m.at("name").fault("", fmt.Sprintf("a second address list named %q", meta.Name), "keep one of them")
	case list.URL != "" && list.File != "":
		fault("file", "the address list has a url and a file", "keep one of them")
	case list.URL == "" && list.File == "":
		fault("", "the address list says nothing of where it comes from", "write url: https://... or file: PATH")
	case list.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != ""):
		fault("url", "it is not an https URL without user and fragment", "write https://example.com/addresses.json")
	case list.Pointer != "" && (list.Format != "json" || list.Pointer[0] != '/'):
		fault("pointer", fmt.Sprintf("%q is not a JSON pointer", clip(list.Pointer)), "write /path/to/addresses, for format: json")
	case list.Interval < time.Minute || list.Interval > maxWindow:
		fault("interval", fmt.Sprintf("an interval of %s is too short or too long", list.Interval), "write a duration from 1m to 90d")
	}
	if list.File != "" && !filepath.IsAbs(list.File) {
		list.File = filepath.Join(filepath.Dir(root.file.name), list.File)
	}
	l.lists[meta.Name] = &list
}

// namedLists checks the names under source.lists.
func (c *compiler) namedLists(names []string) {
	for i, name := range names {
		path := fmt.Sprintf("source.lists[%d]", i)
		shipped, known := shippedLists()[name]
		switch {
		case c.load.lists[name] != nil:
		case !known:
			c.fault(path, fmt.Sprintf("no address list is named %q", clip(name)), nearList(name, c.load.lists))
			continue
		case len(shipped.prefixes) == 0:
			c.warn(path, fmt.Sprintf("the list %s is published at %s and has no snapshot: every address is denied", name, shipped.URL),
				"add a document of kind WebhookAddressList with this name, which fetches it")
		}
		c.webhook.lists = append(c.webhook.lists, name)
	}
}

func nearList(name string, own map[string]*AddressList) string {
	names := slices.Sorted(maps.Keys(shippedLists()))
	names = append(names, slices.Sorted(maps.Keys(own))...)
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "write one of " + strings.Join(names, ", ") + ", or add a document of kind WebhookAddressList"
}

// AddressLists are the lists that WebhookAddressList documents refresh, by name.
func (s *Set) AddressLists() []AddressList {
	var out []AddressList
	for _, name := range slices.Sorted(maps.Keys(s.lists)) {
		out = append(out, *s.lists[name])
	}
	return out
}

// addresses are the lists in force, beside the Set: a reload of policies does not lose them.
type addresses map[string]addressSet

type addressSet struct {
	prefixes []netip.Prefix
	set      *source.Set
}

var errNoList = errors.New("no policy file refreshes this list")

// TakeList puts fetched addresses in force for a list of the Set. An error leaves those before in force: data that cannot be read, an
// empty list, one with every address in it, or one that lost more than half of its entries.
func (e *Engine) TakeList(name string, data []byte) (entries int, err error) {
	list := e.Set().lists[name]
	if list == nil {
		return 0, errNoList
	}
	next, err := source.ParseList(data, list.Format, list.Pointer)
	if err != nil {
		return 0, err
	}
	e.listMu.Lock()
	defer e.listMu.Unlock()
	old := e.addresses.Load()
	if err := source.Succeeds(e.list(name).prefixes, next); err != nil {
		return 0, err
	}
	all := addresses{}
	if old != nil {
		all = maps.Clone(*old)
	}
	all[name] = addressSet{next, source.NewSet(next)}
	e.addresses.Store(&all)
	return len(next), nil
}

// list is what is in force for a name: what was fetched, else the shipped snapshot, else nothing.
func (e *Engine) list(name string) addressSet {
	if all := e.addresses.Load(); all != nil {
		if s, ok := (*all)[name]; ok {
			return s
		}
	}
	return snapshots()[name]
}

var snapshots = sync.OnceValue(func() addresses {
	out := addresses{}
	for name, l := range shippedLists() {
		out[name] = addressSet{l.prefixes, source.NewSet(l.prefixes)}
	}
	return out
})

// listed reports whether an address is in any of the webhook's lists.
func (c *check) listed(a netip.Addr) bool {
	for _, name := range c.webhook.lists {
		if c.engine.list(name).set.Contains(a) {
			return true
		}
	}
	return false
}
