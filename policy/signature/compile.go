package signature

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a Spec, so that a policy file cannot make a delivery costly.
const (
	maxTemplates  = 8
	maxFields     = 64
	maxCandidates = 32
	maxTolerance  = 7 * 24 * time.Hour
)

// Compile checks a scheme and prepares it. All faults come at once, in the order of the Spec; with any of them the Scheme is nil.
func Compile(s Spec) (*Scheme, []Fault) {
	c := compiler{scheme: &Scheme{spec: s, id: -1, event: -1}}
	c.algorithm()
	c.keySteps()
	switch c.scheme.alg.format {
	case jwtFormat:
		c.webToken()
	case jwsFormat:
		c.webSignature()
	case httpFormat:
		c.messageSignature()
	default:
		c.templates()
		c.signatures()
		c.timestamps()
	}
	c.strangers()
	if c.scheme.id = c.optionalField("id", s.ID); c.scheme.id >= 0 {
		c.scheme.fields[c.scheme.id].id = true
	}
	c.scheme.event = c.optionalField("event", s.Event)
	c.guards()
	c.certificates()
	if len(c.faults) == 0 {
		c.finish()
	}
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return c.scheme, nil
}

type compiler struct {
	scheme *Scheme
	faults []Fault
	full   bool // the fault of too many fields is told once
}

func (c *compiler) fault(field, problem, fix string) {
	c.faults = append(c.faults, Fault{Field: field, Problem: problem, Fix: fix})
}

func (c *compiler) algorithm() {
	name := c.scheme.spec.Alg
	at := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name })
	if at >= 0 {
		c.scheme.alg = algorithms[at]
		return
	}
	problem := fmt.Sprintf("no algorithm is named %q", clip(name))
	if name == "" {
		problem = "the scheme names no algorithm"
	}
	c.fault("alg", problem, algorithmFix(name))
}

// algorithmFix lists the algorithms of the format that a name begins with or, where it begins with none, the plain ones.
func algorithmFix(name string) string {
	f, more := plainFormat, "; or one that begins with jwt-, jws- or http-signature-"
	for prefix, of := range map[string]format{"jwt": jwtFormat, "jws": jwsFormat, "http": httpFormat} {
		if strings.HasPrefix(name, prefix) {
			f, more = of, ""
		}
	}
	var names []string
	for _, a := range algorithms {
		if a.format == f {
			names = append(names, a.name)
		}
	}
	return "write one of " + strings.Join(names, ", ") + more
}

func (c *compiler) keySteps() {
	k := c.scheme.spec.Key
	steps := &c.scheme.keySteps
	steps.strip, steps.suffix = k.Strip, k.Append
	for i, prefix := range k.Strip {
		if prefix == "" {
			c.fault(index("key.strip", i), "an empty prefix strips nothing", "delete it")
		}
	}
	var ok bool
	if steps.normalize, ok = normalizations[k.Normalize]; !ok {
		c.fault("key.normalize", fmt.Sprintf("no normalization is named %q", clip(k.Normalize)), "write nfkd, or delete normalize")
	}
	if steps.decode, ok = keyDecodings[k.Decode]; !ok {
		c.fault("key.decode", fmt.Sprintf("no decoding is named %q", clip(k.Decode)), "write utf8, base64, base64url or hex")
	}
	if steps.hash, ok = keyHashes[k.Hash]; !ok {
		c.fault("key.hash", fmt.Sprintf("no hash of keys is named %q", clip(k.Hash)), "write sha1 or sha256, or delete hash")
	}
}

// field gives the slot of a source, a new one where it was not read before, and reports whether it is well-formed.
func (c *compiler) field(path, text string) (slot int, ok bool) {
	src, problem := parseSource(text)
	if problem != "" {
		c.fault(path, problem, sourceFix)
		return -1, false
	}
	return c.slot(path, src), true
}

func (c *compiler) slot(path string, src source) int {
	s := c.scheme
	if at := slices.IndexFunc(s.fields, func(f field) bool { return f.source == src }); at >= 0 {
		return at
	}
	if len(s.fields) == maxFields {
		if !c.full {
			c.full = true
			c.fault(path, fmt.Sprintf("the scheme reads more than %d fields", maxFields), "write fewer")
		}
		return 0
	}
	f := field{source: src, header: -1, path: -1}
	switch src.kind {
	case headerField:
		f.header = c.header(src.name)
	case jsonField:
		f.path = len(s.paths)
		s.paths = append(s.paths, newJSONPath(src.name))
	case formField:
		c.header(contentType)
	case claimField:
		if s.alg.format != jwtFormat {
			c.fault(path, fmt.Sprintf("%s is a part of a JSON Web Token, and the algorithm has none", src), sourceFix)
		}
	case sigField:
		if _, position := digits(src.name); s.spec.Sig.Split == "" {
			c.fault(path, fmt.Sprintf("%s is a part of a list, and sig has none", src), "write sig.split, and sig.kv where its parts are pairs")
		} else if s.spec.Sig.KV == "" && !position {
			c.fault(path, fmt.Sprintf("%s names a pair, and sig has none", src), "write sig.kv, or the position as in sig:0")
		}
	}
	s.fields = append(s.fields, f)
	return len(s.fields) - 1
}

// header gives the slot of a header.
func (c *compiler) header(name string) int {
	s := c.scheme
	at := slices.Index(s.headers, name)
	if at < 0 {
		at = len(s.headers)
		s.headers = append(s.headers, name)
	}
	return at
}

func (c *compiler) optionalField(path, text string) int {
	if text == "" {
		return -1
	}
	slot, _ := c.field(path, text)
	return slot
}

// template compiles one template. Its fields take part in what is signed if signed says so.
func (c *compiler) template(path, text string, signed bool) template {
	t, problem, fix := parseTemplate(text)
	if problem != "" {
		c.fault(path, problem, fix)
		return nil
	}
	s := c.scheme
	for i := range t {
		p := &t[i]
		switch p.kind {
		case fieldPart:
			p.slot = c.slot(path, p.source)
			f := &s.fields[p.slot]
			f.signed = f.signed || signed
			f.required = f.required || signed && !p.optional
		case formSortedPart:
			c.header(contentType)
		case secretPart:
			if !signed || s.alg.family != hashFamily && s.alg.family != noFamily {
				c.fault(path, "{secret} has no place here", "use it in sign with alg hash-sha1 or hash-sha256")
			}
		case snsPart:
			for _, name := range snsHeaders {
				c.header(name)
			}
		case urlPart, urlPortPart, urlNoPortPart, urlNoQueryPart:
			s.facts.needsURL = true
		}
	}
	if signed {
		c.bound(t)
	}
	return t
}

// bound notes which literals part the fields of a template: those that follow a field, and after a body also those that come before one.
func (c *compiler) bound(t template) {
	fields := c.scheme.fields
	afterBody := false
	for i, p := range t {
		if p.kind == bodyPart && p.filter == noFilter {
			afterBody = true
		}
		if p.kind != fieldPart {
			continue
		}
		f := &fields[p.slot]
		add := func(literal string) {
			if literal != "" && !slices.Contains(f.bounds, literal) {
				f.bounds = append(f.bounds, literal)
			}
		}
		switch {
		case p.after != "":
			add(p.after)
		case i+1 < len(t) && t[i+1].kind == literalPart:
			add(t[i+1].text)
		case i+1 < len(t):
			f.adjoins = true
		}
		if afterBody && i > 0 && t[i-1].kind == literalPart {
			add(t[i-1].text)
		}
	}
}

func (c *compiler) templates() {
	s := c.scheme
	texts := s.spec.Sign
	token := s.alg.family == tokenFamily
	switch {
	case token && len(texts) > 0:
		c.fault("sign", "a static token signs nothing", "delete sign, or write another alg")
		return
	case !token && len(texts) == 0:
		c.fault("sign", "the scheme does not say what is signed", "write sign: '{body}'")
		return
	case len(texts) > maxTemplates:
		c.fault("sign", fmt.Sprintf("there are more than %d templates", maxTemplates), "write fewer")
		return
	}
	for i, text := range texts {
		path := "sign"
		if len(texts) > 1 {
			path = index("sign", i)
		}
		t := c.template(path, text, true)
		if t == nil {
			continue
		}
		if s.alg.family == hashFamily && !t.has(secretPart) {
			c.fault(path, "a plain hash without {secret} can be made by anybody", "write {secret} where the sender puts it, or an hmac algorithm")
		}
		if !slices.ContainsFunc(t, func(p part) bool { return p.kind != literalPart && p.kind != secretPart }) {
			c.fault(path, "the template holds nothing of the delivery", "write what the sender signs, such as '{body}'")
		}
		s.templates = append(s.templates, t)
	}
}

func (c *compiler) signatures() {
	s, g := c.scheme, c.scheme.spec.Sig
	s.sig = signatures{numbered: strings.ToLower(g.Numbered), split: g.Split, kv: g.KV, pick: g.Pick, dropFirst: g.DropFirst, prefixes: g.Prefix, prefixOptional: g.PrefixOptional}
	if len(g.In) == 0 && g.Numbered == "" {
		c.fault("sig.in", "the scheme does not say where the signature stands", "write sig: {in: header:X-Signature, enc: hex}")
	}
	c.places(g.In)
	if g.Numbered != "" && !headerName(g.Numbered) {
		c.fault("sig.numbered", fmt.Sprintf("%q is not the beginning of a header's name", clip(g.Numbered)), "write X-Signature- for X-Signature-1, X-Signature-2 and so on")
	}
	c.lists(g)
	c.prefixes(g)
	enc, known := encodings[g.Enc]
	s.sig.enc = enc
	switch {
	case g.Enc == "" && s.alg.family == tokenFamily:
		s.sig.enc = plainEncoding
	case !known:
		c.fault("sig.enc", fmt.Sprintf("no encoding is named %q", clip(g.Enc)), "write hex, base64 or base64url")
	}
}

// places compiles the sources of which the first that is there holds the signature.
func (c *compiler) places(in []string) {
	for i, text := range in {
		path := "sig.in"
		if len(in) > 1 {
			path = index(path, i)
		}
		if strings.HasPrefix(text, "sig:") || strings.HasPrefix(text, "claim:") {
			c.fault(path, "the signature cannot be a part of itself", "write header:NAME, json:PATH, form:NAME or query:NAME")
			continue
		}
		if slot, ok := c.field(path, text); ok {
			c.scheme.sig.in = append(c.scheme.sig.in, slot)
		}
	}
}

func (c *compiler) prefixes(g SigSpec) {
	for i, prefix := range g.Prefix {
		if prefix == "" {
			c.fault(index("sig.prefix", i), "an empty prefix means nothing", "delete it")
		}
	}
	if g.PrefixOptional && len(g.Prefix) == 0 {
		c.fault("sig.prefix_optional", "there is no prefix", "delete prefix_optional, or write sig.prefix")
	}
}

// lists checks the keys that say how a text holds several signatures.
func (c *compiler) lists(g SigSpec) {
	letters := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool {
			return 'a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || r > 0x7e || r < 0x20
		})
	}
	if len(g.Split) > 1 || letters(g.Split) {
		c.fault("sig.split", fmt.Sprintf("%q is not a separator", clip(g.Split)), "write one character that is no letter and no digit")
	}
	if len(g.KV) > 1 || letters(g.KV) || g.KV != "" && g.KV == g.Split {
		c.fault("sig.kv", fmt.Sprintf("%q is not what stands between a key and its value", clip(g.KV)), "write one character, such as '='")
	}
	switch {
	case g.KV != "" && g.Split == "":
		c.fault("sig.kv", "pairs need a list", "write sig.split")
	case g.KV != "" && g.Pick == "":
		c.fault("sig.pick", "the scheme does not say which pairs are signatures", "write sig.pick: v1, or '*' for every pair")
	case g.KV == "" && g.Pick != "":
		c.fault("sig.pick", "there are no pairs to pick from", "write sig.kv: '='")
	case g.DropFirst && (g.Split == "" || g.KV != ""):
		c.fault("sig.drop_first", "there is no plain list to drop from", "write sig.split without sig.kv, or delete drop_first")
	}
}

func (c *compiler) timestamps() {
	s, ts := c.scheme, c.scheme.spec.TS
	if len(ts.In) == 0 {
		if ts.Unit != "" || ts.Tolerance != 0 || ts.Optional {
			c.fault("ts.in", "the scheme does not say where the timestamp stands", "write ts: {in: header:X-Timestamp, unit: s}")
		}
		return
	}
	c.tolerance(ts)
	const unitFix = "write s, ms, rfc3339, httpdate or strptime:FORMAT"
	if format, custom := strings.CutPrefix(ts.Unit, "strptime:"); custom {
		layout, ok := strptimeLayout(format)
		if !ok {
			c.fault("ts.unit", fmt.Sprintf("the format %q cannot be read back", clip(format)), "write one of %a %b %d %m %Y %H %M %S for each field")
		}
		s.ts.unit, s.ts.layout = layoutUnit, layout
	} else if s.ts.unit = units[ts.Unit]; s.ts.unit == noUnit {
		c.fault("ts.unit", fmt.Sprintf("no unit is named %q", clip(ts.Unit)), unitFix)
	}
	for i, text := range ts.In {
		path := "ts.in"
		if len(ts.In) > 1 {
			path = index(path, i)
		}
		slot, ok := c.field(path, text)
		if !ok {
			continue
		}
		f := &s.fields[slot]
		f.timestamp = true
		s.ts.in = append(s.ts.in, slot)
	}
}

func (c *compiler) tolerance(ts TimestampSpec) {
	c.scheme.ts.optional = ts.Optional
	c.scheme.ts.tolerance = time.Duration(ts.Tolerance) * time.Second
	if ts.Tolerance < 0 || ts.Tolerance > int(maxTolerance/time.Second) {
		c.fault("ts.tolerance", fmt.Sprintf("%d is not a number of seconds up to 7 days", ts.Tolerance), "write how old a delivery may be, in seconds, such as 300")
	}
}

func (c *compiler) guards() {
	s := c.scheme
	for i, r := range s.spec.Require {
		path := index("require", i)
		if !headerName(r.Header) {
			c.fault(path+".header", fmt.Sprintf("%q is not the name of a header", clip(r.Header)), "write the name of a header")
			continue
		}
		if r.Equals == "" {
			c.fault(path+".equals", "the header must equal nothing", "write the value that it must have")
		}
		s.required = append(s.required, guard{c.header(strings.ToLower(r.Header)), r.Equals})
	}
	for i, k := range s.spec.Check {
		path := index("check", i)
		compiled := check{a: c.template(path+".a", k.A, false), b: c.template(path+".b", k.B, false), ifPresent: -1}
		if k.IfPresent != "" {
			compiled.ifPresent, _ = c.field(path+".if_present", k.IfPresent)
		}
		s.checks = append(s.checks, compiled)
	}
	for i, text := range s.spec.Only {
		src, problem := parseSource(text)
		if problem == "" && src.kind != jsonField && src.kind != formField {
			problem = fmt.Sprintf("%q is neither of a JSON body nor of a form", clip(text))
		}
		if problem != "" {
			c.fault(index("only", i), problem, "write json:PATH of a list that must have one item, or form:NAME of every field that may be there")
			continue
		}
		c.slot(index("only", i), src)
		s.only = append(s.only, src)
	}
}

// index writes the path of an item in a list.
func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
