package signature

import (
	"encoding/base64"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// vector is a delivery from published material with what must come of it.
type vector struct {
	ID        string            `yaml:"id"`
	Preset    string            `yaml:"preset"`
	Method    string            `yaml:"method"`
	URL       string            `yaml:"url"`
	Headers   map[string]any    `yaml:"headers"`
	Body      string            `yaml:"body_b64"`
	Secret    string            `yaml:"secret"`
	Secrets   []string          `yaml:"secrets"`
	PublicKey string            `yaml:"public_key"`
	Now       *int64            `yaml:"now"`
	Tolerance *int64            `yaml:"tolerance_s"`
	AgeCheck  *bool             `yaml:"age_check"`
	Expect    string            `yaml:"expect"`
	Reject    string            `yaml:"reject_reason"`
	Case      string            `yaml:"case"`
	Rest      map[string]string `yaml:",inline"`
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.ReadFile("testdata/vectors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Vectors []vector `yaml:"vectors"`
	}
	if err := yaml.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	return f.Vectors
}

// delivery is the vector as Envoy hands it over.
func (x *vector) delivery(t testing.TB, merged bool) *Delivery {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(x.Body)
	if err != nil {
		t.Fatal(err)
	}
	d := &Delivery{Method: x.Method, Path: "/", Merged: merged}
	if len(body) > 0 { // in two segments, as gRPC may have it
		d.Body = [][]byte{body[:len(body)/2], body[len(body)/2:]}
	}
	if x.URL != "" {
		u, err := url.Parse(x.URL)
		if err != nil {
			t.Fatal(err)
		}
		d.Path = u.RequestURI()
		d.PublicURL, _, _ = strings.Cut(x.URL, "?")
	}
	for name, value := range x.Headers {
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		var texts []string
		for _, v := range values {
			texts = append(texts, v.(string))
		}
		if merged {
			texts = []string{strings.Join(texts, ",")}
		}
		for _, text := range texts {
			d.Headers = append(d.Headers, Header{Name: strings.ToLower(name), Value: text})
		}
	}
	slices.SortFunc(d.Headers, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	return d
}

// keys prepares the vector's secrets for a scheme.
func (x *vector) keys(t testing.TB, s *Scheme) []*Key {
	t.Helper()
	make, texts := s.NewKey, x.Secrets
	if s.NeedsPublicKey() {
		make, texts = s.NewPublicKey, []string{x.PublicKey}
	} else if x.Secret != "" {
		texts = []string{x.Secret}
	}
	if s.NeedsPublicKey() && x.PublicKey == "" {
		texts = []string{x.Secret}
	}
	var keys []*Key
	for _, text := range texts {
		k, err := make([]byte(text))
		if err != nil {
			t.Fatalf("preparing the key: %v", err)
		}
		keys = append(keys, k)
	}
	return keys
}

// verdicts of a vector.
const (
	verdictValid    = "valid"
	verdictMismatch = "mismatch"
	verdictStale    = "stale"
)

// decide verifies a delivery as the decision engine does.
func decide(s *Scheme, d *Delivery, keys []*Key, now *time.Time, tolerance time.Duration) string {
	var v Verification
	if f := s.Parse(&v, d); f != None {
		return f.String()
	}
	matches := false
	for _, k := range keys {
		matches = v.Matches(k) || matches
	}
	if !matches {
		return verdictMismatch
	}
	if now != nil && tolerance > 0 && !v.Fresh(*now, tolerance) {
		return verdictStale
	}
	return verdictValid
}

// verdict is what must come of a vector, in our words; several where the source's word leaves it open.
func (x *vector) verdict() []string {
	if x.Expect == "valid" {
		return []string{verdictValid}
	}
	switch x.Reject {
	case "timestamp_out_of_tolerance", "nbf", "exp":
		return []string{verdictStale}
	case "missing_timestamp":
		return []string{TimestampMissing.String()}
	case "bad_timestamp":
		return []string{TimestampMalformed.String()}
	case "missing_signature":
		return []string{Missing.String()}
	case "no_candidate":
		return []string{Missing.String(), Malformed.String()}
	case "guard":
		return []string{Malformed.String()}
	case "check_failed":
		return []string{verdictMismatch}
	default:
		return []string{verdictMismatch, Malformed.String()} // a signature that cannot be decoded is told apart from a wrong one
	}
}

// outside are the schemes of vectors that this language does not express, with the reason and the number of their vectors.
var outside = map[string]struct {
	why   string
	count int
}{
	"custom:paypal-rsa": {"its certificate is named by the request and must be fetched", 1},
}

func TestVectors(t *testing.T) {
	ran, presets, left := 0, map[string]bool{}, map[string]int{}
	for _, x := range readVectors(t) {
		if o, ok := outside[x.Preset]; ok {
			t.Logf("%s is not run: %s: %s", x.ID, x.Preset, o.why)
			left[x.Preset]++
			continue
		}
		ran++
		for _, merged := range []bool{false, true} {
			name := x.ID
			if merged {
				name += "/merged"
			}
			t.Run(name, func(t *testing.T) {
				name := strings.TrimPrefix(x.Preset, "custom:")
				s, ok := Preset(name)
				if !ok {
					t.Fatalf("there is no preset %q", name)
				}
				if x.AgeCheck != nil && !*x.AgeCheck {
					spec := s.Spec()
					spec.TS = TimestampSpec{}
					var faults []Fault
					if s, faults = Compile(spec); len(faults) > 0 {
						t.Fatal(faults)
					}
				}
				tolerance := s.Tolerance()
				if x.Tolerance != nil {
					tolerance = time.Duration(*x.Tolerance) * time.Second
				}
				var now *time.Time
				if x.Now != nil {
					at := time.Unix(*x.Now, 0)
					now = &at
				}
				got := decide(s, x.delivery(t, merged), x.keys(t, s), now, tolerance)
				want := x.verdict()
				if merged && x.ID == "gitlab-001" { // its token holds a '!', which in the merged form may stand for any byte
					want = []string{Malformed.String()}
				}
				if !slices.Contains(want, got) {
					t.Errorf("%s (%s): %s, want %q", x.Preset, x.Case, got, want)
				}
			})
		}
		if x.Expect == "valid" {
			presets[x.Preset] = true
		}
	}
	t.Logf("%d vectors in both header forms, %d presets with a valid one", ran, len(presets))
	if ran != 253 || len(presets) != 65 {
		t.Errorf("%d vectors ran for %d presets, want 253 for 65", ran, len(presets))
	}
	for name, o := range outside {
		if left[name] != o.count {
			t.Errorf("%d vectors of %s are left out, want %d", left[name], name, o.count)
		}
	}
}
