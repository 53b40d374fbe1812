package signature

import (
	"strings"
	"testing"
)

// The embedded table can be read, and every handshake names its provider, its documentation and presets that exist.
func TestHandshakeTable(t *testing.T) {
	table := builtInHandshakes()
	if table.err != nil {
		t.Fatal(table.err)
	}
	if len(table.all) < 25 {
		t.Errorf("%d handshakes, want the whole table", len(table.all))
	}
	seen := map[string]bool{}
	for _, h := range table.all {
		spec := h.Spec()
		if seen[spec.Name] || spec.Provider == "" || !strings.HasPrefix(spec.Source, "https://") {
			t.Errorf("handshake %q: occurs twice, or its provider %q or source %q is none", spec.Name, spec.Provider, spec.Source)
		}
		seen[spec.Name] = true
		for _, preset := range spec.Presets {
			if _, ok := Preset(preset); !ok {
				t.Errorf("handshake %q: there is no preset %q", spec.Name, preset)
			}
		}
		if h.MakesMAC() && !h.Signed() && (strings.ContainsAny(spec.Pattern, "{.:") && !strings.Contains(spec.Pattern, "{1,64}") && !strings.Contains(spec.Pattern, "{20,32}")) {
			t.Errorf("handshake %q signs %s for the asking", spec.Name, spec.Pattern)
		}
	}
}

func TestHandshakeFaults(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"unknown key", "{name: a, ecko: json:a}", "ecko"},
		{"no condition", "{name: a}", "nothing tells it from a delivery"},
		{"two values", "{name: a, echo: json:a, mac: json:b}", "exclude each other"},
		{"mac without a pattern", "{name: a, mac: json:a, enc: hex}", "mac needs pattern and enc"},
		{"mac without an encoding", "{name: a, mac: json:a, pattern: a}", "mac needs pattern and enc"},
		{"bad source", "{name: a, echo: body}", `"body" is not a source`},
		{"failing status", "{name: a, echo: json:a, status: 500}", "status of success"},
		{"odd status for a wrong token", "{name: a, token: json:a, wrongToken: 200}", "status of success"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := readHandshakes([]byte("format: handshakes/1\nhandshakes: [" + tt.yaml + "]\n"))
			if got.err == nil || !strings.Contains(got.err.Error(), tt.want) || len(got.all) > 0 {
				t.Errorf("got %v, want an error with %q", got.err, tt.want)
			}
		})
	}
}

// FuzzHandshakes feeds arbitrary requests: whatever is echoed is a word.
func FuzzHandshakes(f *testing.F) {
	f.Add("GET", "/a?hub.mode=subscribe&hub.challenge=1&hub.verify_token=t", "content-type: application/json", "")
	f.Add("POST", "/a", "content-type: application/x-www-form-urlencoded", "mandrill_events=%5B%5D")
	f.Add("POST", "/a?validationToken=x", "aeg-event-type: SubscriptionValidation", `[{"data":{"validationCode":"x"}}]`)
	key, err := func() (*Key, error) { s, _ := Preset("github"); return s.NewKey([]byte("key")) }()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path, header, body string) {
		name, value, _ := strings.Cut(header, ": ")
		d := Delivery{Method: method, Path: path, Headers: []Header{{strings.ToLower(name), value}}, Body: [][]byte{[]byte(body)}}
		for _, h := range AllHandshakes() {
			c, ok := h.Read(&d)
			if !ok {
				continue
			}
			if strings.ContainsAny(c.value, "<>\"'\\\r\n &%") || len(c.value) > 256 {
				t.Errorf("%s: %q would be echoed", h.Spec().Name, c.value)
			}
			c.Answer(key, []byte("t"))
		}
	})
}
