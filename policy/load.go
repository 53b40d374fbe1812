package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// SecretMode says what Load does about a secret that cannot be read.
type SecretMode uint8

const (
	// RequireSecrets makes it a fault.
	RequireSecrets SecretMode = iota
	// TolerateMissingSecrets makes only that version unavailable. Set.SecretFaults lists them.
	TolerateMissingSecrets
	// SkipSecrets reads no secret: no version is available.
	SkipSecrets
)

// LoadOptions say how policies are loaded. The zero value requires every secret and reads the process's environment.
type LoadOptions struct {
	// Environment is the name that the environments of a secret version are compared with.
	Environment string
	// LookupEnv reads an environment variable. Default: os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// MaxBody is the largest body in bytes that the server takes; a policy above it is a fault. Default: 4 MiB.
	MaxBody int64
	Secrets SecretMode
}

// DefaultMaxBody is the largest body that a server takes unless it is told otherwise.
const DefaultMaxBody = 4 << 20

func (o LoadOptions) withDefaults() LoadOptions {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	return o
}

// Load reads every policy file of a folder: *.yaml and *.yml, not below it, hidden names left out.
//
// The error is of type Faults where the files are wrong: all that is wrong, in the order of its places.
func Load(dir string, o LoadOptions) (*Set, error) {
	l := newLoader(o)
	contents, err := readFolder(dir)
	if err != nil {
		return nil, err
	}
	if len(contents) == 0 {
		return nil, fmt.Errorf("the folder %q holds no policy file; put a *.yaml file with a WebhookPolicy there", dir)
	}
	return l.load(contents)
}

// policyFile is one file of a folder.
type policyFile struct {
	path string
	data []byte
}

func readFolder(dir string) ([]policyFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the policy folder: %w", err)
	}
	var files []policyFile
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || (filepath.Ext(name) != ".yaml" && filepath.Ext(name) != ".yml") {
			continue
		}
		path := filepath.Join(dir, name)
		data, err := readBounded(path)
		if err != nil {
			return nil, fmt.Errorf("reading the policy folder: %w", err)
		}
		files = append(files, policyFile{path, data})
	}
	return files, nil
}

// readBounded reads a regular file, one byte past the cap at most: parseFile refuses it then.
func readBounded(path string) ([]byte, error) {
	// Opening a pipe would block for ever, so its kind is looked at first.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

// loader gathers what one load finds.
type loader struct {
	options      LoadOptions
	faults       *[]Fault
	warnings     []Fault
	secretFaults []Fault
	weak         []Fault                      // warnings about secrets
	known        map[[sha256.Size]byte]*reuse // where each secret stands
	secretFiles  []string
	unread       bool // a secret file or folder could not be read
	lists        map[string]*AddressList
	shown        map[string]*file // to show the lines of faults
}

func newLoader(o LoadOptions) *loader {
	return &loader{options: o.withDefaults(), faults: new([]Fault), shown: make(map[string]*file), lists: make(map[string]*AddressList),
		known: make(map[[sha256.Size]byte]*reuse)}
}

func (l *loader) secretFile(path string) {
	if path, err := filepath.Abs(path); err == nil {
		l.secretFiles = append(l.secretFiles, path)
	}
}

func (l *loader) load(files []policyFile) (*Set, error) {
	var roots []*node
	sum := sha256.New()
	for _, f := range files {
		fmt.Fprintf(sum, "%d %s %d ", len(filepath.Base(f.path)), filepath.Base(f.path), len(f.data))
		sum.Write(f.data)
		l.shown[f.path] = &file{name: f.path, faults: l.faults}
		roots = append(roots, l.shown[f.path].parse(f.data)...)
	}
	documents := l.documents(roots)
	set := l.compile(documents)
	set.revision = hex.EncodeToString(sum.Sum(nil)[:6])
	for _, f := range files {
		if path, err := filepath.Abs(f.path); err == nil {
			set.policyFiles = append(set.policyFiles, path)
		}
	}
	if len(*l.faults) > 0 {
		return nil, l.finish(*l.faults)
	}
	return set, nil
}

// compile makes a Set of decoded documents. Its faults are in l.
func (l *loader) compile(documents []*document) *Set {
	set := &Set{byName: make(map[string]*Webhook, len(documents)), documents: documents, lists: l.lists, options: l.options}
	for _, doc := range documents {
		c := compiler{doc: doc, load: l}
		w := c.compile()
		set.byName[w.name] = w
		set.webhooks = append(set.webhooks, w)
	}
	forgetIdleOracles(set.webhooks)
	set.index = newIndex(set.webhooks, func(w, other *Webhook, host, path string) { l.overlap(documents, w, other, host, path) })
	slices.SortFunc(set.webhooks, func(a, b *Webhook) int { return strings.Compare(a.name, b.name) })
	for _, w := range set.webhooks {
		for i := range w.versions {
			w.versions[i].place = set.versions
			set.versions++
		}
	}
	set.secretFiles, set.unread = l.secretFiles, l.unread
	set.warnings = l.finish(l.warnings)
	set.secretFaults = l.finish(l.secretFaults)
	for _, r := range l.known {
		if r.others > 0 {
			l.weak = append(l.weak, r.told())
		}
	}
	set.secretWarnings = l.finish(l.weak)
	return set
}

// overlap reports two policies that are equally specific for the same delivery.
func (l *loader) overlap(documents []*document, w, other *Webhook, host, path string) {
	for _, doc := range documents {
		if doc.name != w.name {
			continue
		}
		if host == "" {
			host = "any host"
		}
		(&compiler{doc: doc, load: l}).fault("match", fmt.Sprintf("it matches %s%s just as the webhook %q does", host, path, other.name), "make one of them more specific, or delete one")
		return
	}
}

// finish sorts faults and adds the lines that they are about.
func (l *loader) finish(fs []Fault) Faults {
	out := sorted(slices.Clone(fs))
	for i, f := range out {
		if file := l.shown[f.File]; file != nil {
			out[i].Shown = file.shown(f.Line)
		}
	}
	return out
}

// documents decodes every document and lays the policies over the defaults.
func (l *loader) documents(roots []*node) []*document {
	var defaults *node
	var policies []*node
	for _, root := range roots {
		switch kind := l.header(root); kind {
		case "WebhookDefaults":
			if defaults != nil {
				root.get("kind").fault("", fmt.Sprintf("a second WebhookDefaults; the first is %s:%d", defaults.file.name, defaults.line), "keep one")
				continue
			}
			defaults = l.defaults(root)
		case "WebhookAddressList":
			l.addressList(root)
		case "WebhookPolicy":
			policies = append(policies, root)
		}
	}
	var documents []*document
	first := make(map[string]*node, len(policies))
	for _, root := range policies {
		doc := l.policy(root, defaults)
		if doc == nil {
			continue
		}
		if other, ok := first[doc.name]; ok && doc.name != "" {
			doc.at.fault("", fmt.Sprintf("a second webhook named %q; the first is %s:%d", doc.name, other.file.name, other.line), "give each its own name")
			continue
		}
		first[doc.name] = doc.at
		documents = append(documents, doc)
	}
	return documents
}

// header checks the top of a document and returns its kind; "" where it cannot be used.
func (l *loader) header(root *node) string {
	if root.kind != mapNode {
		root.fault("", fmt.Sprintf("the document is %s", root.kind), "write apiVersion, kind, metadata and spec")
		return ""
	}
	names := []string{"apiVersion", "kind", "metadata", "spec"}
	d := decoder{}
	for i, key := range root.keys {
		if !slices.Contains(names, key.text) {
			d.unknownKey(root, i, names, false)
		}
	}
	kinds := []string{"WebhookPolicy", "WebhookDefaults", "WebhookAddressList"}
	switch v := root.get("apiVersion"); {
	case v == nil:
		root.fault("", "the document has no apiVersion", "write apiVersion: "+APIVersion)
		return ""
	case v.kind != scalarNode || v.text != APIVersion:
		v.fault("", fmt.Sprintf("the apiVersion %q is not known", clip(v.text)), "write apiVersion: "+APIVersion)
		return ""
	}
	k := root.get("kind")
	switch {
	case k == nil:
		root.fault("", "the document has no kind", "write kind: WebhookPolicy")
		return ""
	case k.kind != scalarNode || !slices.Contains(kinds, k.text):
		fix := "write " + oneOf(kinds)
		if near := nearest(k.text, kinds); near != "" {
			fix = fmt.Sprintf("did you mean %q?", near)
		}
		k.fault("", fmt.Sprintf("the kind %q is not known", clip(k.text)), fix)
		return ""
	}
	return k.text
}

// defaults checks the document of the defaults once; its spec is then laid beneath every policy.
func (l *loader) defaults(root *node) *node {
	d := decoder{}
	if meta := root.get("metadata"); meta != nil {
		d.decode(meta, reflect.ValueOf(new(metadataSpec)).Elem(), false)
	}
	spec := root.get("spec")
	if spec == nil {
		root.fault("", "the defaults have no spec", "write spec with what policies share, or delete the document")
		return nil
	}
	d.decode(spec, reflect.ValueOf(new(defaultsSpec)).Elem(), false)
	spec.share()
	return spec
}

// policy decodes one WebhookPolicy, laid over the defaults; nil where there is nothing to decode.
func (l *loader) policy(root, defaults *node) *document {
	doc := &document{at: root}
	meta := root.get("metadata")
	if meta == nil {
		root.fault("", "the policy has no metadata", "write metadata: {name: NAME}")
	} else {
		(&decoder{}).decode(meta, reflect.ValueOf(&doc.meta).Elem(), false)
		switch name := meta.get("name"); {
		case name == nil && meta.kind == mapNode:
			meta.fault("", "the policy has no name", "write metadata: {name: NAME}")
		case name != nil && doc.meta.Name != "" && !nameForm.MatchString(doc.meta.Name):
			name.fault("", fmt.Sprintf("%q is not a name", clip(doc.meta.Name)), "write lower-case letters, digits, '-', '_' and '.', 128 at most")
		case name != nil:
			doc.at = name
		}
	}
	doc.name = doc.meta.Name
	spec := root.get("spec")
	if spec == nil {
		root.fault(doc.name, "the policy has no spec", "write spec with match and signature")
		return nil
	}
	doc.root = merged(defaults, spec)
	(&decoder{webhook: doc.name}).decode(doc.root, reflect.ValueOf(&doc.spec).Elem(), false)
	return doc
}
