package signature

import (
	"fmt"
	"slices"
	"strings"
)

// sourceKind says where in a delivery a text stands.
type sourceKind uint8

const (
	noSource    sourceKind = iota
	headerField            // header:H
	sigField               // sig:k, a part of the signature's own text
	jsonField              // json:a.b.0
	formField              // form:name
	queryField             // query:name
	claimField             // claim:name, of a JSON Web Token
)

// String writes the source as a scheme does.
func (s source) String() string {
	for prefix, kind := range sourceKinds {
		if kind == s.kind {
			return prefix + ":" + s.name
		}
	}
	return "no source"
}

var sourceKinds = map[string]sourceKind{"header": headerField, "sig": sigField, "json": jsonField, "form": formField, "query": queryField, "claim": claimField}

// source names one text of a delivery. A header's name is in lower case.
type source struct {
	kind sourceKind
	name string
}

// maxPath is the deepest JSON path that a scheme may name.
const maxPath = 16

// sourceFix is what to write for a source.
const sourceFix = "write header:NAME, json:PATH, form:NAME, query:NAME, sig:KEY or claim:NAME"

// parseSource reads "header:X-Signature". The problem is "" where it is well-formed.
func parseSource(text string) (s source, problem string) {
	prefix, name, found := strings.Cut(text, ":")
	kind := sourceKinds[prefix]
	switch {
	case !found || kind == noSource:
		return source{}, fmt.Sprintf("%q is not a source", clip(text))
	case name == "":
		return source{}, fmt.Sprintf("the source %q has no name", clip(text))
	case kind == headerField && !headerName(name):
		return source{}, fmt.Sprintf("%q is not the name of a header", clip(name))
	case kind == jsonField && (slices.Contains(strings.Split(name, "."), "") || strings.Count(name, ".") >= maxPath):
		return source{}, fmt.Sprintf("%q is not a path of up to %d steps", clip(name), maxPath)
	case kind == headerField:
		name = strings.ToLower(name)
	}
	return source{kind, name}, ""
}

// headerName says whether s is a header's name as RFC 9110 has it.
func headerName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && !('0' <= c && c <= '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// clip shortens what somebody wrote, for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
