package signature

import (
	"fmt"
	"strings"
)

// partKind says what a part of a template stands for.
type partKind uint8

const (
	literalPart partKind = iota
	fieldPart            // a source
	bodyPart
	secretPart
	methodPart
	urlPart         // the public URL and the request's query
	urlPortPart     // the same, its port written out
	urlNoPortPart   // the same without a port
	urlNoQueryPart  // the public URL alone
	pathPart        // the request's path without its query
	pathNoSlashPart // the same without a slash at its end
	jwsHeadersPart  // the headers that a JOSE header lists, each as "Name: value" on a line of its own
	queryPart       // the request's query as received
	querySortedPart // its pairs sorted by name
	formSortedPart  // every field of a form, sorted: name and value, equal pairs once
	snsPart         // what Amazon SNS signs of its message; all else in the body is refused
	webhookIDPart   // the sender's id of the webhook, from the policy
)

var partNames = map[string]partKind{
	"body": bodyPart, "secret": secretPart, "method": methodPart, "url": urlPart, "url.port": urlPortPart, "url.noport": urlNoPortPart,
	"url.noquery": urlNoQueryPart, "path": pathPart, "path.noslash": pathNoSlashPart, "jws.headers": jwsHeadersPart, "query": queryPart, "query.sorted": querySortedPart, "form.sorted": formSortedPart,
	"aws-sns": snsPart, "webhookID": webhookIDPart,
}

// filter changes the text of a part.
type filter uint8

const (
	noFilter filter = iota
	sha256Hex
	sha256Raw
	sha512Base64
	lowerCase
	crc32Decimal
)

var filterNames = map[string]filter{"sha256hex": sha256Hex, "sha256raw": sha256Raw, "sha512b64": sha512Base64, "lower": lowerCase, "crc32": crc32Decimal}

// digest says whether the filter's result stands for its whole input.
func (f filter) digest() bool { return f == sha256Hex || f == sha256Raw || f == sha512Base64 }

// part is one piece of a template.
type part struct {
	kind   partKind
	text   string // of a literal; of an optional segment, what comes before
	after  string // of an optional segment, what comes after
	source source // of a field
	slot   int    // of a field: its place in Scheme.fields
	filter filter
	// optional says that an absent field leaves the part out instead of failing.
	optional bool
}

// covers says whether nothing of the part's text can change without changing the template's.
func (p *part) covers() bool { return p.filter == noFilter || p.filter.digest() }

// template is a text with parts of the delivery in it, such as "{sig:t}.{body}".
type template []part

// has says whether a part of this kind is there as it is or as a digest.
func (t template) has(kind partKind) bool {
	for _, p := range t {
		if p.kind == kind && p.covers() {
			return true
		}
	}
	return false
}

// hasField says whether the text of a source is there as it is or as a digest.
func (t template) hasField(s source) bool {
	for _, p := range t {
		if p.kind == fieldPart && p.source == s && p.covers() {
			return true
		}
	}
	return false
}

// maxParts bounds a template.
const maxParts = 64

// parseTemplate reads a template. The problem is "" where it is well-formed.
func parseTemplate(text string) (t template, problem, fix string) {
	if text == "" {
		return nil, "the template is empty", "write what the sender signs, such as '{body}'"
	}
	for rest := text; rest != ""; {
		if len(t) == maxParts {
			return nil, fmt.Sprintf("the template has more than %d parts", maxParts), "write fewer"
		}
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			open = len(rest)
		}
		if open > 0 {
			t = append(t, part{kind: literalPart, text: rest[:open]})
			rest = rest[open:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if rest[0] == '}' || end < 0 {
			return nil, fmt.Sprintf("a brace has no partner at %q", clip(rest)), "write a part as {name}"
		}
		p, problem, fix := parsePart(rest[1:end])
		if problem != "" {
			return nil, problem, fix
		}
		t = append(t, p)
		rest = rest[end+1:]
	}
	return t, "", ""
}

// parsePart reads what stands between two braces.
func parsePart(text string) (p part, problem, fix string) {
	if segment, ok := strings.CutPrefix(text, "opt:"); ok {
		return parseOptional(segment)
	}
	name, filterName, filtered := strings.Cut(text, "|")
	if filtered {
		f, ok := filterNames[filterName]
		if !ok {
			return part{}, fmt.Sprintf("no filter is named %q", clip(filterName)), "write sha256hex, sha256raw, sha512b64, lower or crc32"
		}
		p.filter = f
	}
	if kind, ok := partNames[name]; ok {
		p.kind = kind
		return p, "", ""
	}
	if path, ok := strings.CutPrefix(name, "json?:"); ok {
		p.optional, name = true, "json:"+path
	}
	p.kind = fieldPart
	p.source, problem = parseSource(name)
	if problem != "" {
		return part{}, problem, "write a part such as {body}, {method}, {url} or a source: " + strings.TrimPrefix(sourceFix, "write ")
	}
	return p, "", ""
}

// parseOptional reads PREFIX|source|filter|SUFFIX, a segment that is left out as a whole where the source is absent.
func parseOptional(text string) (p part, problem, fix string) {
	const form = "write {opt:PREFIX|source|filter|SUFFIX}; the filter may be empty"
	fields := strings.Split(text, "|")
	if len(fields) != 4 {
		return part{}, fmt.Sprintf("the optional segment %q does not have four fields", clip(text)), form
	}
	p = part{kind: fieldPart, text: fields[0], after: fields[3], optional: true}
	if fields[2] != "" {
		f, ok := filterNames[fields[2]]
		if !ok {
			return part{}, fmt.Sprintf("no filter is named %q", clip(fields[2])), "write sha256hex, sha256raw, sha512b64, lower or crc32"
		}
		p.filter = f
	}
	p.source, problem = parseSource(fields[1])
	if problem != "" {
		return part{}, problem, form
	}
	return p, "", ""
}
