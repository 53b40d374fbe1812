package signature

import (
	"bytes"
	_ "embed" // for presets.yaml
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed presets.yaml
var presetFile []byte

// Info is what the catalogue knows about a preset. All texts are for people.
type Info struct {
	Name string `yaml:"name"`
	// Alias is another name of the preset.
	Alias string `yaml:"alias"`
	// Provider is the sender, and Also are others that sign in the same way.
	Provider string   `yaml:"provider"`
	Also     []string `yaml:"also"`
	// Documentation is the URL of the sender's own page, "" where none is known.
	Documentation string `yaml:"documentation"`
	// Confidence says how well the facts are founded, and Sources on what.
	Confidence string   `yaml:"confidence"`
	Sources    []string `yaml:"sources"`
	// Secret says in what form the sender hands out the secret, and SecretExample how it looks.
	Secret        string `yaml:"secret"`
	SecretExample string `yaml:"secretExample"`
	// DeliveryID and EventType say where they stand, also where the scheme does not read them.
	DeliveryID string `yaml:"deliveryID"`
	EventType  string `yaml:"eventType"`
	// Retries says when a delivery comes again and how duplicates are told.
	Retries   string `yaml:"retries"`
	Handshake string `yaml:"handshake"`
	Notes     string `yaml:"notes"`
	// BodySigned, where it is stated, overrules what follows from the scheme, for the reason BodySignedWhy.
	BodySigned    *bool  `yaml:"bodySigned"`
	BodySignedWhy string `yaml:"bodySignedWhy"`
	// Spec is the scheme itself.
	Spec Spec `yaml:"scheme"`
}

// catalogue holds all presets.
type catalogue struct {
	infos   []Info // by name
	schemes map[string]*Scheme
}

// presets is the embedded catalogue, read at first use. A file that cannot be read leaves it empty, which a test forbids.
var presets = sync.OnceValue(func() catalogue {
	c, err := readCatalogue(presetFile)
	if err != nil {
		return catalogue{}
	}
	return c
})

// Preset returns the preset of that name. It is compiled once.
func Preset(name string) (*Scheme, bool) {
	s, ok := presets().schemes[name]
	return s, ok
}

// Presets lists the catalogue by name.
func Presets() []Info { return slices.Clone(presets().infos) }

// readCatalogue reads and compiles a file of presets.
func readCatalogue(file []byte) (catalogue, error) {
	var f struct {
		Format  string `yaml:"format"`
		Presets []Info `yaml:"presets"`
	}
	d := yaml.NewDecoder(bytes.NewReader(file))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return catalogue{}, fmt.Errorf("reading presets: %w", err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return catalogue{}, errors.New("reading presets: the file holds more than one document")
	}
	if f.Format != "presets/1" {
		return catalogue{}, fmt.Errorf("reading presets: the format is %q, want %q", f.Format, "presets/1")
	}
	c := catalogue{infos: f.Presets, schemes: make(map[string]*Scheme, len(f.Presets))}
	var errs []error
	for _, info := range f.Presets {
		s, faults := Compile(info.Spec)
		for _, fault := range faults {
			errs = append(errs, fmt.Errorf("preset %q: %s: %s; %s", info.Name, fault.Field, fault.Problem, fault.Fix))
		}
		if s == nil {
			continue
		}
		s.name = info.Name
		if info.BodySigned != nil {
			s.facts.bodySigned = *info.BodySigned
		}
		for _, name := range []string{info.Name, info.Alias} {
			if c.schemes[name] != nil {
				errs = append(errs, fmt.Errorf("two presets are named %q", name))
			}
			if name != "" {
				c.schemes[name] = s
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return catalogue{}, err
	}
	slices.SortFunc(c.infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}
