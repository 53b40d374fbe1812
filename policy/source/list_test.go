package source_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy/source"
)

func TestParseList(t *testing.T) {
	tests := []struct {
		name, data, format, pointer string
		want                        []string
		fault                       string
	}{
		{"lines", "192.0.2.1\r\n\n# comment\n2001:db8::/32 # ours\n192.0.2.1\n", "lines", "", []string{"192.0.2.1/32", "2001:db8::/32"}, ""},
		{"a JSON list", `["192.0.2.1"]`, "json", "", []string{"192.0.2.1/32"}, ""},
		{"below a key", `{"a":{"b/c":["192.0.2.0/24"]}}`, "json", "/a/b~1c", []string{"192.0.2.0/24"}, ""},
		{"every element", `{"items":[{"cidr":"192.0.2.0/24"},{"cidr":"198.51.100.0/24"},{"other":1}]}`, "json", "/items/*/cidr", []string{"192.0.2.0/24", "198.51.100.0/24"}, ""},
		{"one element", `[["192.0.2.1"],["192.0.2.2"]]`, "json", "/1", []string{"192.0.2.2/32"}, ""},
		{"empty lines", "\n#\n", "lines", "", nil, "the list is empty"},
		{"nothing there", `{}`, "json", "/a", nil, "the list is empty"},
		{"pointer without a slash", `{}`, "json", "a", nil, "does not begin with /"},
		{"numbers", `[1]`, "json", "", nil, "what is no address"},
		{"every IPv4 address", "0.0.0.0/0", "lines", "", nil, "is every address"},
		{"every IPv6 address", "::/0", "lines", "", nil, "is every address"},
		{"a name", "192.0.2.1\nexample.com", "lines", "", nil, `entry 2: "example.com"`},
		{"long line", strings.Repeat("1", 5000), "lines", "", nil, "too long"},
		{"other format", "", "csv", "", nil, "neither json nor lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := source.ParseList([]byte(tt.data), tt.format, tt.pointer)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("got %v, %v, want an error with %q", got, err, tt.fault)
				}
				return
			}
			var texts []string
			for _, p := range got {
				texts = append(texts, p.String())
			}
			if diff := cmp.Diff(tt.want, texts); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestSucceeds(t *testing.T) {
	list := func(n int) []netip.Prefix { return make([]netip.Prefix, n) }
	for _, tt := range []struct {
		old, next int
		want      bool
	}{{0, 1, true}, {4, 2, true}, {4, 1, false}, {5, 2, false}, {1, 1, true}, {2, 100, true}} {
		if got := source.Succeeds(list(tt.old), list(tt.next)) == nil; got != tt.want {
			t.Errorf("from %d to %d: %v, want %v", tt.old, tt.next, got, tt.want)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`{"a":["192.0.2.1"]}`), "json", "/a/*")
	f.Add([]byte("192.0.2.0/24 # a"), "lines", "")
	f.Fuzz(func(t *testing.T, data []byte, format, pointer string) {
		prefixes, err := source.ParseList(data, format, pointer)
		if (len(prefixes) == 0) != (err != nil) {
			t.Errorf("%d entries and %v", len(prefixes), err)
		}
		for _, p := range prefixes {
			if p.Bits() == 0 || p != p.Masked() {
				t.Errorf("%s was taken", p)
			}
		}
	})
}
