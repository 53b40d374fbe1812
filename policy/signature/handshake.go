package signature

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // for handshakes.yaml
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed handshakes.yaml
var handshakeFile []byte

// HandshakeSpec says how a provider asks whether an endpoint is ours, and what it wants to hear.
type HandshakeSpec struct {
	Name     string   `yaml:"name"`
	Provider string   `yaml:"provider"`
	Presets  []string `yaml:"presets"` // whose deliveries it comes with
	Source   string   `yaml:"source"`  // documentation
	// Signed says that the request is signed like a delivery.
	Signed bool        `yaml:"signed"`
	Method string      `yaml:"method"` // default: POST
	When   []Condition `yaml:"when"`
	// Token is the text that must be the verify token of the policy; WrongToken is the status for another one, 0: no answer.
	Token      string `yaml:"token"`
	WrongToken int    `yaml:"wrongToken"`
	// NeedsToken says that the answer holds {token}.
	NeedsToken bool `yaml:"needsToken"`
	// Echo, MAC and Require name a text that must be there and match Pattern. Echo and MAC give {echo}, MAC also {mac}.
	Echo    string `yaml:"echo"`
	MAC     string `yaml:"mac"`
	Require string `yaml:"require"`
	Pattern string `yaml:"pattern"`
	Enc     string `yaml:"enc"` // of the MAC
	// Answer with Status (default 200) and Type.
	Status int    `yaml:"status"`
	Type   string `yaml:"type"`
	Answer string `yaml:"answer"`
}

// Condition demands that a text of the request is as written; an empty one must be absent or empty.
type Condition struct {
	At string `yaml:"at"`
	Is string `yaml:"is"`
}

// echoForm is all that is ever echoed: nothing that a browser, a shell or a log could take for more than a word.
const echoForm = `[A-Za-z0-9._~=-]{1,256}`

// maxHandshakeBody bounds the body of a request that may be a handshake.
const maxHandshakeBody = 8 << 10

// Handshake is a compiled HandshakeSpec.
type Handshake struct {
	spec    HandshakeSpec
	reader  *Scheme // reads the texts
	when    []int   // slots
	token   int     // slot, -1 for none
	value   int     // slot of what is echoed, signed or required, -1 for none
	pattern *regexp.Regexp
}

// Challenge is a request that is a handshake.
type Challenge struct {
	handshake *Handshake
	value     string
	token     string
}

// Reply is what the provider wants to hear.
type Reply struct {
	Status int
	Type   string
	Body   []byte
}

type handshakes struct {
	all []*Handshake
	err error
}

// builtInHandshakes is the embedded table. One that cannot be read is empty, which a test forbids: nothing is answered then.
var builtInHandshakes = sync.OnceValue(func() handshakes { return readHandshakes(handshakeFile) })

// Handshakes lists those of a preset.
func Handshakes(preset string) []*Handshake {
	return selectHandshakes(func(h *Handshake) bool { return slices.Contains(h.spec.Presets, preset) })
}

// HandshakesNamed lists those of a name: of a provider that has no preset.
func HandshakesNamed(name string) []*Handshake {
	return selectHandshakes(func(h *Handshake) bool { return h.spec.Name == name })
}

// AllHandshakes is the whole table.
func AllHandshakes() []*Handshake { return selectHandshakes(func(*Handshake) bool { return true }) }

func selectHandshakes(wanted func(*Handshake) bool) []*Handshake {
	var out []*Handshake
	for _, h := range builtInHandshakes().all {
		if wanted(h) {
			out = append(out, h)
		}
	}
	return out
}

func readHandshakes(file []byte) handshakes {
	var f struct {
		Format     string          `yaml:"format"`
		Handshakes []HandshakeSpec `yaml:"handshakes"`
	}
	d := yaml.NewDecoder(bytes.NewReader(file))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return handshakes{err: fmt.Errorf("reading handshakes: %w", err)}
	}
	var out handshakes
	var errs []error
	for _, spec := range f.Handshakes {
		h, err := newHandshake(spec)
		if err != nil {
			errs = append(errs, fmt.Errorf("handshake %q: %w", spec.Name, err))
			continue
		}
		out.all = append(out.all, h)
	}
	if out.err = errors.Join(errs...); out.err != nil {
		out.all = nil
	}
	return out
}

func newHandshake(spec HandshakeSpec) (*Handshake, error) {
	if spec.Method == "" {
		spec.Method = http.MethodPost
	}
	if spec.Status == 0 {
		spec.Status = http.StatusOK
	}
	c := compiler{scheme: &Scheme{id: -1, event: -1}}
	h := &Handshake{spec: spec, token: -1, value: -1}
	for _, condition := range spec.When {
		slot, _ := c.field("when", condition.At)
		h.when = append(h.when, slot)
	}
	h.token = c.optionalField("token", spec.Token)
	values := 0
	for _, source := range []string{spec.Echo, spec.MAC, spec.Require} {
		if source != "" {
			h.value = c.optionalField("value", source)
			values++
		}
	}
	h.reader = c.scheme
	form := echoForm
	if spec.Pattern != "" {
		form = spec.Pattern
	}
	var err error
	if h.pattern, err = regexp.Compile(`^(?:` + form + `)$`); err != nil {
		return nil, err
	}
	_, encoded := encodings[spec.Enc]
	switch {
	case len(c.faults) > 0:
		return nil, errors.New(c.faults[0].Problem)
	case values > 1:
		return nil, errors.New("echo, mac and require exclude each other")
	case spec.MAC != "" && (spec.Pattern == "" || !encoded || spec.Enc == ""):
		return nil, errors.New("mac needs pattern and enc")
	case spec.Status/100 != 2 || (spec.WrongToken != 0 && spec.WrongToken != http.StatusNotFound):
		return nil, errors.New("an answer has a status of success, and a wrong token 404")
	case len(h.when) == 0 && h.value < 0 && h.token < 0 && spec.Method != http.MethodHead:
		return nil, errors.New("nothing tells it from a delivery")
	}
	return h, nil
}

// Spec is the handshake as written.
func (h *Handshake) Spec() HandshakeSpec { return h.spec }

// Signed says that the request is signed like a delivery and must be verified first.
func (h *Handshake) Signed() bool { return h.spec.Signed }

// NeedsToken says that it cannot be answered without the policy's verify token.
func (h *Handshake) NeedsToken() bool { return h.spec.Token != "" || h.spec.NeedsToken }

// MakesMAC says that the answer is a MAC of the caller's text.
func (h *Handshake) MakesMAC() bool { return h.spec.MAC != "" }

// Read reports whether a request is this handshake. The Challenge holds views of the request.
func (h *Handshake) Read(d *Delivery) (Challenge, bool) {
	size := bodySize(d)
	if d.Method != h.spec.Method || size > maxHandshakeBody || (d.Method != http.MethodPost && size > 0) {
		return Challenge{}, false
	}
	var v Verification
	v.scheme, v.delivery = h.reader, d
	v.readHeaders()
	for i, slot := range h.when {
		text, state := v.field(slot)
		if state == unfit || text != h.spec.When[i].Is {
			return Challenge{}, false
		}
	}
	c := Challenge{handshake: h}
	if h.token >= 0 {
		text, state := v.field(h.token)
		if state != present {
			return Challenge{}, false
		}
		c.token = text
	}
	if h.value >= 0 {
		text, state := v.field(h.value)
		if state != present || !h.pattern.MatchString(text) {
			return Challenge{}, false
		}
		c.value = text
	}
	return c, true
}

func bodySize(d *Delivery) int {
	n := 0
	for _, segment := range d.Body {
		n += len(segment)
	}
	return n
}

// Answer is the reply to a challenge. The key makes its MAC, and verifyToken is the policy's token; either may be empty where it is not
// needed. It is false where the challenge is not to be answered: the token is wrong, or what is needed is not there.
func (c Challenge) Answer(k *Key, verifyToken []byte) (Reply, bool) {
	spec := &c.handshake.spec
	if c.handshake.NeedsToken() && len(verifyToken) == 0 {
		return Reply{}, false
	}
	if c.handshake.token >= 0 {
		got, want := sha256.Sum256([]byte(c.token)), sha256.Sum256(verifyToken)
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return Reply{Status: spec.WrongToken}, spec.WrongToken != 0
		}
	}
	mac := ""
	if spec.MAC != "" {
		if k == nil || k.macs.New == nil {
			return Reply{}, false
		}
		h := k.hash()
		h.Write([]byte(c.value))
		mac = encodings[spec.Enc].encode(h.Sum(nil))
		k.release(h)
	}
	body := strings.NewReplacer("{echo}", c.value, "{mac}", mac, "{token}", string(verifyToken)).Replace(spec.Answer)
	return Reply{Status: spec.Status, Type: spec.Type, Body: []byte(body)}, true
}

// Forbids reports whether the message that a verified delivery signs could have been the text of this handshake, so that its signature
// might have been had for the asking. No genuine message of a provider looks so.
func (h *Handshake) Forbids(v *Verification) bool {
	if !h.MakesMAC() || v.scheme == nil {
		return false
	}
	size := bodySize(v.delivery)
	for _, t := range v.scheme.templates {
		if size > maxHandshakeBody && slices.ContainsFunc(t, func(p part) bool { return p.kind == bodyPart && p.filter == noFilter }) {
			continue // far longer than any text of a handshake
		}
		var ok bool
		v.scratch2, ok = v.render(v.scratch2[:0], t)
		if ok && h.pattern.Match(bytes.TrimRight(v.scratch2, "\n")) {
			return true
		}
	}
	return false
}
