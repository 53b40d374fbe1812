package signature

import "slices"

// facts are what the rest of the program must know of a scheme.
type facts struct {
	timestampSigned, bodySigned, idSigned, eventSigned, needsURL bool
}

// finish derives the facts of a scheme without faults.
func (c *compiler) finish() {
	s := c.scheme
	if s.ts.carried {
		c.finishCarried()
		return
	}
	s.facts.bodySigned = s.signsBody()
	s.facts.idSigned = s.id >= 0 && s.signs(s.fields[s.id].source)
	s.facts.eventSigned = s.event >= 0 && s.signs(s.fields[s.event].source)
	s.facts.timestampSigned = len(s.ts.in) > 0 && s.signs(s.fields[s.ts.in[0]].source)
	switch {
	case len(s.ts.in) == 0:
	case !s.facts.timestampSigned && s.ts.tolerance > 0:
		c.fault("ts.in", "the timestamp is not signed and proves nothing", "delete ts.tolerance, or name the timestamp in sign")
	case s.IsToken():
		c.fault("ts", "a static token proves no time of sending", "delete ts")
	}
	for slot, f := range s.fields {
		early := f.signed || f.timestamp || slices.Contains(s.sig.in, slot)
		s.needsForm = s.needsForm || early && f.source.kind == formField
	}
	for _, t := range s.templates {
		for _, p := range t {
			s.needsQuery = s.needsQuery || p.kind == querySortedPart
			s.needsForm = s.needsForm || p.kind == formSortedPart
		}
	}
	for _, src := range s.only {
		s.needsForm = s.needsForm || src.kind == formField
	}
}

// signsBody says whether every way to sign covers the body: in a template, as a digest, as all fields of a form, or by a check that
// ties a signed text to the body's digest.
func (s *Scheme) signsBody() bool {
	every := func(kind partKind) bool {
		return len(s.templates) > 0 && !slices.ContainsFunc(s.templates, func(t template) bool { return !t.has(kind) })
	}
	if every(bodyPart) || every(formSortedPart) || every(snsPart) { // the part of SNS refuses a body that says more than it signs
		return true
	}
	return slices.ContainsFunc(s.checks, func(k check) bool {
		if k.ifPresent >= 0 {
			return false
		}
		tied := func(digest, text template) bool {
			return len(digest) == 1 && digest[0].kind == bodyPart && digest[0].filter.digest() && len(text) == 1 && text[0].kind == fieldPart && s.signsUnchecked(text[0].source)
		}
		return tied(k.a, k.b) || tied(k.b, k.a)
	})
}

// signs says whether a source is covered by every way to sign.
func (s *Scheme) signs(src source) bool {
	return s.signsUnchecked(src) || (src.kind == jsonField || src.kind == formField) && s.facts.bodySigned
}

// signsUnchecked leaves out what is signed as a part of the body.
func (s *Scheme) signsUnchecked(src source) bool {
	if src.kind == headerField && slices.Contains(s.jws.required, src.name) {
		return true
	}
	return len(s.templates) > 0 && !slices.ContainsFunc(s.templates, func(t template) bool {
		switch {
		case t.hasField(src):
			return false
		case src.kind == queryField:
			return !t.has(queryPart) && !t.has(querySortedPart) && !t.has(urlPart) && !t.has(urlPortPart) && !t.has(urlNoPortPart)
		case src.kind == jsonField && t.has(snsPart):
			return !snsSigns(src.name)
		case src.kind == jsonField, src.kind == formField:
			return !t.has(bodyPart) && !(src.kind == formField && t.has(formSortedPart))
		default:
			return true
		}
	})
}
