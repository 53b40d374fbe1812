package extauthz

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
)

// vector is a delivery from published material with what must come of it.
type vector struct {
	ID        string         `yaml:"id"`
	Preset    string         `yaml:"preset"`
	Method    string         `yaml:"method"`
	URL       string         `yaml:"url"`
	Headers   map[string]any `yaml:"headers"` // a text or a list of them
	Body      string         `yaml:"body_b64"`
	Secret    string         `yaml:"secret"`
	Secrets   []string       `yaml:"secrets"`
	PublicKey string         `yaml:"public_key"`
	Now       *int64         `yaml:"now"`
	Tolerance *int64         `yaml:"tolerance_s"`
	AgeCheck  *bool          `yaml:"age_check"`
	Expect    string         `yaml:"expect"`
	Reject    string         `yaml:"reject_reason"`
	Case      string         `yaml:"case"`
}

// outside are the schemes whose vectors are not run here, and why.
var outside = map[string]string{
	"custom:paypal-rsa": "its certificate is named by the request and would have to be fetched",
}

// differing are vectors that have another result here than published, and why.
var differing = map[string]struct {
	reason policy.Reason
	merged bool // only in the merged form of headers
	why    string
}{
	"gitlab-001": {policy.SignatureMalformed, true, "its token holds a '!', which stands for any byte in the merged form"},
}

// reasons are what must come of a vector; several where the source's word leaves it open.
func (x *vector) reasons() []policy.Reason {
	if x.Expect == "valid" {
		return []policy.Reason{policy.OK}
	}
	switch x.Reject {
	case "timestamp_out_of_tolerance":
		return []policy.Reason{policy.TimestampOutOfTolerance}
	case "missing_timestamp":
		return []policy.Reason{policy.TimestampMissing}
	case "bad_timestamp":
		return []policy.Reason{policy.TimestampMalformed}
	case "missing_signature":
		return []policy.Reason{policy.SignatureMissing}
	case "no_candidate":
		return []policy.Reason{policy.SignatureMissing, policy.SignatureMalformed}
	case "guard":
		return []policy.Reason{policy.SignatureMalformed}
	case "check_failed":
		return []policy.Reason{policy.SignatureMismatch}
	case "nbf", "exp":
		return []policy.Reason{policy.TimestampOutOfTolerance}
	default: // a signature that cannot be decoded is told apart from a wrong one
		return []policy.Reason{policy.SignatureMismatch, policy.SignatureMalformed}
	}
}

// delivery is the vector as Envoy describes it.
func (x *vector) delivery(t *testing.T) *delivery {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(x.Body)
	if err != nil {
		t.Fatal(err)
	}
	d := &delivery{peer: "192.0.2.10", id: "stream-1", method: x.Method, host: "hooks.example.com", path: "/hook", body: body}
	if x.URL != "" {
		u, err := url.Parse(x.URL)
		if err != nil {
			t.Fatal(err)
		}
		d.host, d.path = u.Host, u.RequestURI()
	}
	for _, name := range slices.Sorted(maps.Keys(x.Headers)) {
		values, ok := x.Headers[name].([]any)
		if !ok {
			values = []any{x.Headers[name]}
		}
		for _, value := range values {
			d.add(strings.ToLower(name), value.(string))
		}
	}
	return d.with("content-length", strconv.Itoa(len(body)))
}

// moment is when the vector is decided: at its own time, where it says no other.
func (x *vector) moment(t *testing.T, s *signature.Scheme) time.Time {
	t.Helper()
	if x.Now != nil {
		return time.Unix(*x.Now, 0)
	}
	d := x.delivery(t)
	var v signature.Verification
	s.Parse(&v, &signature.Delivery{Method: d.method, Path: d.path, PublicURL: x.publicURL(), Headers: d.headers, Body: [][]byte{d.body}})
	if at, ok := v.Timestamp(); ok {
		return at
	}
	return noon
}

func (x *vector) publicURL() string {
	base, _, _ := strings.Cut(x.URL, "?")
	return base
}

// keys are the secrets or public keys as an operator has them.
func (x *vector) keys(s *signature.Scheme) []string {
	switch {
	case s.NeedsPublicKey() && x.PublicKey != "":
		return []string{x.PublicKey}
	case x.Secret != "":
		return []string{x.Secret}
	default:
		return x.Secrets
	}
}

// scheme is the preset's scheme, and what a policy says for it.
func (x *vector) scheme(t *testing.T) (s *signature.Scheme, written any) {
	t.Helper()
	name := strings.TrimPrefix(x.Preset, "custom:")
	s, ok := signature.Preset(name)
	if !ok {
		t.Fatalf("%s: there is no preset %q", x.ID, name)
	}
	if x.AgeCheck == nil || *x.AgeCheck {
		return s, name
	}
	spec := s.Spec()
	spec.TS = signature.TimestampSpec{} // a policy without a check of the time has a scheme of its own
	s, faults := signature.Compile(spec)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	text, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var inline map[string]any
	if err := yaml.Unmarshal(text, &inline); err != nil {
		t.Fatal(err)
	}
	return s, withoutEmpty(inline)
}

// withoutEmpty leaves out what a scheme does not say.
func withoutEmpty(value any) any {
	m, ok := value.(map[string]any)
	if !ok {
		return value
	}
	for name, field := range m {
		switch field := withoutEmpty(field).(type) {
		case map[string]any:
			if len(field) == 0 {
				delete(m, name)
			}
		case []any:
			if len(field) == 0 {
				delete(m, name)
			}
		case string, int, bool:
			if field == "" || field == 0 || field == false {
				delete(m, name)
			}
		}
	}
	return m
}

// policy is a policy that an operator writes for the vector, as YAML, that of JSON. Its keys go into environment.
func (x *vector) policy(t *testing.T, name string, environment map[string]string) string {
	t.Helper()
	s, written := x.scheme(t)
	section := map[string]any{"scheme": written}
	switch {
	case x.Tolerance != nil:
		section["tolerance"] = fmt.Sprintf("%ds", *x.Tolerance)
	case s.HasTimestamp() && s.TimestampSigned() && s.Tolerance() == 0:
		section["tolerance"] = "5m"
	}
	if s.NeedsURL() {
		section["publicURL"] = x.publicURL()
	}
	if !s.BodySigned() && !s.IsToken() {
		section["acceptUnsignedBody"] = true
	}
	var versions []any
	for i, key := range x.keys(s) {
		variable := fmt.Sprintf("KEY_%d_%d", len(environment), i)
		environment[variable] = key
		versions = append(versions, map[string]any{"version": strconv.Itoa(i), "env": variable})
	}
	kind := "secrets"
	if s.NeedsPublicKey() {
		kind = "publicKeys"
	}
	section[kind] = versions
	text, err := json.Marshal(map[string]any{
		"apiVersion": "hookauthz.io/v1alpha1", "kind": "WebhookPolicy", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"match": map[string]any{"methods": []string{x.Method}}, "body": map[string]any{"allowEmpty": true}, "signature": section},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every published vector has its result through the RPC, in both forms of headers, each at an endpoint of its own.
func TestVectors(t *testing.T) {
	file, err := os.ReadFile("../policy/signature/testdata/vectors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Vectors []vector `yaml:"vectors"`
	}
	if err := yaml.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	var run []vector
	var documents []string
	keys := map[string]string{}
	for _, x := range all.Vectors {
		if why, left := outside[x.Preset]; left {
			t.Logf("%s is not run: %s: %s", x.ID, x.Preset, why)
			continue
		}
		run = append(run, x)
		for _, form := range headerForms {
			documents = append(documents, x.policy(t, x.endpoint(form.merged), keys))
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policies.yaml"), []byte(strings.Join(documents, "\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: func(name string) (string, bool) { v, ok := keys[name]; return v, ok }})
	if err != nil {
		t.Fatalf("loading:\n%v", err)
	}
	var now atomic.Pointer[time.Time]
	now.Store(&noon)
	engine := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	conn := dial(t, Config{Decider: engine, Now: func() time.Time { return *now.Load() }})

	right, valid := 0, map[string]bool{}
	for _, x := range run {
		s, _ := x.scheme(t)
		at := x.moment(t, s)
		now.Store(&at)
		for _, form := range headerForms {
			t.Run(x.ID+"/"+form.name, func(t *testing.T) {
				d := x.delivery(t)
				d.extension = map[string]string{"hookauthz.endpoint": x.endpoint(form.merged)}
				response := ask(t, conn, d.request(form.merged))
				want := x.reasons()
				if other, ok := differing[x.ID]; ok && (form.merged || !other.merged) {
					want = []policy.Reason{other.reason}
				}
				got := notes(t, response)
				allowed := response.GetStatus().GetCode() == 0
				if !slices.ContainsFunc(want, func(r policy.Reason) bool { return r.String() == got["reason"] }) || allowed != (want[0] == policy.OK) {
					t.Errorf("%s (%s): %v, want %v", x.Preset, x.Case, got, want)
					return
				}
				right++
				if allowed {
					valid[x.Preset] = true
				}
			})
		}
	}
	t.Logf("%d of %d vectors have their published result in both forms of headers, %d presets have a valid one; %d vectors are not run", len(run)-len(differing), len(run), len(valid), len(all.Vectors)-len(run))
	if len(run) != 253 || right != 2*len(run) || len(valid) != 65 {
		t.Errorf("%d vectors ran, %d results are right, for %d presets; want 253, 506, 65", len(run), right, len(valid))
	}
	for _, id := range slices.Sorted(maps.Keys(differing)) {
		form := "in both forms"
		if differing[id].merged {
			form = "in the merged form"
		}
		t.Logf("%s differs %s: %s", id, form, differing[id].why)
	}
}

// endpoint is the name of the vector's policy.
func (x *vector) endpoint(merged bool) string {
	if merged {
		return x.ID + "-merged"
	}
	return x.ID
}
