package main

import (
	"slices"
	"strings"
)

// table writes rows as a Markdown table; the first one is its head.
func table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
	return b.String()
}

// text is plain text in a cell.
func text(s string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "_", `\_`, "\n", " ").Replace(strings.TrimSpace(s))
}

// code is text as it is written elsewhere, in a cell.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("|", `\|`, "\n", `\n`).Replace(s) + "`"
}

// codes are several such texts.
func codes(texts []string, between string) string {
	written := make([]string, len(texts))
	for i, t := range texts {
		written[i] = code(t)
	}
	return strings.Join(written, between)
}

// link is text that leads to a URL, where there is one.
func link(s, url string) string {
	if url == "" {
		return text(s)
	}
	return "[" + text(s) + "](" + url + ")"
}

// lines joins what a cell holds, without what is empty.
func lines(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "<br>")
}

// yes is a fact in a cell.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
