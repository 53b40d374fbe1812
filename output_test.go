package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestColumns(t *testing.T) {
	got := columns([][]string{
		{"endpoint", "github"},
		{"délivery", "a\x1b[31mb", "last "},
		{"x", "", "\xff"},
		{},
	})
	want := "  endpoint  github\n" +
		"  délivery  \"a\\x1b[31mb\"  last\n" +
		"  x                       \"\\xff\"\n" +
		"\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

// What a sender wrote must not move the cursor, colour the terminal or start a new line.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"plain text":        "plain text",
		"Grüße, 世界":         "Grüße, 世界",
		"two\nlines":        `"two\nlines"`,
		"\x1b]0;title\a":    `"\x1b]0;title\a"`,
		"tab\there":         `"tab\there"`,
		"\x00":              `"\x00"`,
		"\u202eright":       `"\u202eright"`,
		"not \xc3 utf-8":    `"not \xc3 utf-8"`,
		"replaced \ufffd":   "\"replaced \ufffd\"",
		"c1 control \u009b": `"c1 control \u009b"`,
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %s, want %s", text, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 faults", 1: "1 fault", 2: "2 faults"} {
		if got := count(n, "fault"); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
