package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong in a policy file: what it is, where it is and what to write instead.
// It never holds a secret.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Webhook string `json:"webhook,omitempty"`
	Problem string `json:"problem"`
	Fix     string `json:"fix,omitempty"`
	// Shown is the line of the file, cut before anything that may be a secret.
	Shown string `json:"shown,omitempty"`
}

// String is one line: file:line:col: webhook "name": what is wrong; what to write instead.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": ")
	if f.Webhook != "" {
		fmt.Fprintf(&b, "webhook %q: ", f.Webhook)
	}
	b.WriteString(f.Problem)
	if f.Fix != "" {
		b.WriteString("; ")
		b.WriteString(f.Fix)
	}
	return b.String()
}

// Faults are all that is wrong in a load, sorted by place.
type Faults []Fault

// Error lists every fault, each with its line of the file and a mark below the place.
func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.String())
		if f.Shown != "" {
			fmt.Fprintf(&b, "\n    %s\n    %s^", f.Shown, blank(f.Shown, f.Column-1))
		}
	}
	return b.String()
}

// blank is white space as wide as the first n bytes of s: tabs stay tabs.
func blank(s string, n int) string {
	n = max(0, min(n, len(s)))
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, s[:n])
}

// sorted puts faults in the order of their places and drops repeats: a fault in the defaults would appear once for each webhook.
func sorted(fs []Fault) Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Problem, b.Problem))
	})
	return slices.CompactFunc(fs, func(a, b Fault) bool {
		return a.File == b.File && a.Line == b.Line && a.Column == b.Column && a.Problem == b.Problem
	})
}

// Nearest is the name in names that s is probably a misspelling of; empty where none is near.
func Nearest(s string, names []string) string { return nearest(s, names) }

// nearest is the name in names that s is probably a misspelling of; "" where none is near.
func nearest(s string, names []string) string {
	best, bestDistance := "", 1+max(1, min(3, len(s)/3))
	for _, name := range names {
		if strings.EqualFold(s, name) {
			return name
		}
		if d := distance(strings.ToLower(s), strings.ToLower(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := previous
			if a[i] != b[j] {
				change++
			}
			previous = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// oneOf writes names as a choice: "a, b or c".
func oneOf(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
