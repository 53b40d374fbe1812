package main

import "testing"

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text  string
		bytes int64
		print string
	}{
		{"1", 1, "1"},
		{"1000", 1000, "1000"},
		{"1024", 1024, "1KiB"},
		{"512KiB", 512 << 10, "512KiB"},
		{"4MiB", 4 << 20, "4MiB"},
		{"1536KiB", 1536 << 10, "1536KiB"},
		{"1GiB", 1 << 30, "1GiB"},
		{"8589934591GiB", 8589934591 << 30, "8589934591GiB"},
	} {
		var s size
		if err := s.Set(c.text); err != nil {
			t.Errorf("Set(%q): %v", c.text, err)
			continue
		}
		if int64(s) != c.bytes || s.String() != c.print {
			t.Errorf("Set(%q) = %d, printed %q; want %d, %q", c.text, int64(s), s.String(), c.bytes, c.print)
		}
	}
	for _, text := range []string{"", "0", "0MiB", "-1", "+1", "1.5MiB", "4MB", "4mib", "4 MiB", "MiB", "MiBMiB", "1KiBKiB", "8589934592GiB", "9223372036854775808", "0x10"} {
		s := size(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("Set(%q) = %d, %v; want an error and no change", text, s, err)
		}
	}
}

func TestVariable(t *testing.T) {
	for flag, want := range map[string]string{"policies": "HOOKAUTHZ_POLICIES", "max-inflight-bytes": "HOOKAUTHZ_MAX_INFLIGHT_BYTES"} {
		if got := variable(flag); got != want {
			t.Errorf("variable(%q) = %q, want %q", flag, got, want)
		}
	}
}
