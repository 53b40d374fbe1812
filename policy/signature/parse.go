package signature

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// maxSignature bounds a signature as written whose length varies: 4096 bits of RSA in hex.
const maxSignature = 2048

// Parse finds in d all that is needed to verify it: signatures, timestamp, signed fields. It does everything that needs no key, and
// refuses what is missing or ill-formed. v holds views of d until Reset.
func (s *Scheme) Parse(v *Verification, d *Delivery) Failure {
	v.Reset()
	v.scheme, v.delivery = s, d
	if f := v.parse(); f != None {
		v.candidates, v.decoded, v.ends = v.candidates[:0], v.decoded[:0], v.ends[:0] // nothing can match
		return f
	}
	return None
}

func (v *Verification) parse() Failure {
	v.readHeaders()
	for _, g := range v.scheme.required {
		if h := v.headers[g.header]; h.count != 1 || h.value != g.equals {
			return Malformed
		}
	}
	switch v.scheme.alg.format {
	case jwtFormat:
		return v.parseToken()
	case jwsFormat:
		return v.parseDetached()
	case httpFormat:
		return v.parseMessageSignature()
	}
	if f := v.findSignatures(); f != None {
		return f
	}
	if f := v.readTimestamp(); f != None {
		return f
	}
	if f := v.readSigned(); f != None {
		return f
	}
	return v.decode()
}

// readHeaders takes the headers that the scheme reads.
func (v *Verification) readHeaders() {
	names := v.scheme.headers
	v.headers = slices.Grow(v.headers, len(names))[:len(names)]
	v.fields = slices.Grow(v.fields, len(v.scheme.fields))[:len(v.scheme.fields)]
	for i := range v.delivery.Headers {
		h := &v.delivery.Headers[i]
		for slot, name := range names {
			if h.Name == name {
				v.headers[slot].value = h.Value
				v.headers[slot].count++
				break
			}
		}
	}
}

// findSignatures collects the signatures as written, and the parts of their text that the scheme reads.
func (v *Verification) findSignatures() Failure {
	if f := v.findTexts(); f != None {
		return f
	}
	empty := true
	for _, text := range v.texts {
		if v.delivery.Merged && strings.IndexByte(text, '!') >= 0 { // stands for a byte that we cannot see
			return Malformed
		}
		empty = empty && strings.Trim(text, " \t"+v.scheme.sig.split) == ""
		if !v.splitText(text) {
			return Malformed
		}
	}
	switch {
	case empty:
		return Missing
	case len(v.candidates) == 0:
		return Malformed
	default:
		return None
	}
}

// findTexts collects the texts that hold signatures.
func (v *Verification) findTexts() Failure {
	sig := &v.scheme.sig
	if sig.numbered != "" && !v.findNumbered() {
		return Malformed
	}
	if len(v.texts) > 0 {
		return None
	}
	for _, slot := range sig.in {
		f := &v.scheme.fields[slot]
		if f.header >= 0 && v.headers[f.header].count > 1 {
			if sig.split != "," {
				return Malformed
			}
			for _, h := range v.delivery.Headers { // repeats of a list are one list
				if h.Name == f.source.name {
					v.texts = append(v.texts, h.Value)
				}
			}
			return None
		}
		if f.header >= 0 && v.headers[f.header].count == 1 {
			v.texts = append(v.texts, v.headers[f.header].value)
			return None
		}
		switch text, state := v.field(slot); state {
		case present:
			v.texts = append(v.texts, text)
			return None
		case unfit:
			return Malformed
		}
	}
	return Missing
}

// findNumbered collects X-Signature-1, X-Signature-2 and so on. None of them may occur twice.
func (v *Verification) findNumbered() bool {
	var seen [maxCandidates + 1]bool
	for _, h := range v.delivery.Headers {
		suffix, ok := strings.CutPrefix(h.Name, v.scheme.sig.numbered)
		if !ok {
			continue
		}
		n, ok := digits(suffix)
		if !ok || n == 0 {
			continue
		}
		if n > maxCandidates || seen[n] {
			return false
		}
		seen[n] = true
		v.texts = append(v.texts, h.Value)
	}
	return true
}

// splitText takes the candidates out of a text, and the parts of it that the scheme reads.
func (v *Verification) splitText(text string) bool {
	sig := &v.scheme.sig
	if sig.split == "" {
		return v.candidate(text)
	}
	for i, more := 0, true; more; i++ {
		var element, key string
		element, text, more = strings.Cut(text, sig.split)
		element = strings.Trim(element, " \t")
		if element == "" {
			if sig.split == " " {
				i-- // several spaces are one
			}
			continue
		}
		if v.delivery.Merged && sig.split != "," && v.joinedPair(element) {
			return false
		}
		picked := !sig.dropFirst || i > 0
		if sig.kv != "" {
			var ok bool
			if key, element, ok = strings.Cut(element, sig.kv); !ok {
				continue
			}
			picked = sig.pick == "*" || key == sig.pick
		}
		if !v.signatureField(key, i, element) || picked && !v.candidate(element) {
			return false
		}
	}
	return true
}

// joinedPair says whether an element of a list is in truth two headers that were merged with a comma.
func (v *Verification) joinedPair(element string) bool {
	for _, prefix := range v.scheme.sig.prefixes {
		if rest, ok := strings.CutPrefix(element, prefix); ok {
			element = rest
			break
		}
	}
	return strings.IndexByte(element, ',') >= 0
}

// signatureField notes a part of the signature's text where the scheme reads it. It may be there once.
func (v *Verification) signatureField(key string, position int, text string) bool {
	for slot := range v.scheme.fields {
		f := &v.scheme.fields[slot]
		if f.source.kind != sigField {
			continue
		}
		if v.scheme.sig.kv == "" {
			if n, ok := digits(f.source.name); !ok || n != int64(position) {
				continue
			}
		} else if f.source.name != key {
			continue
		}
		if v.fields[slot].state != unread {
			return false
		}
		v.fields[slot] = fieldValue{text, stateOf(text)}
	}
	return true
}

// candidate takes one signature as written, if it has a prefix of the scheme. It fails if there are too many.
func (v *Verification) candidate(text string) bool {
	sig := &v.scheme.sig
	fits := len(sig.prefixes) == 0 || sig.prefixOptional
	for _, prefix := range sig.prefixes {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			text, fits = rest, true
			break
		}
	}
	if !fits {
		return true
	}
	if len(v.candidates) == maxCandidates {
		return false
	}
	v.candidates = append(v.candidates, text)
	return true
}

// readTimestamp reads the time of sending.
func (v *Verification) readTimestamp() Failure {
	ts := &v.scheme.ts
	if len(ts.in) == 0 || !v.scheme.facts.timestampSigned {
		return None
	}
	for _, slot := range ts.in {
		text, state := v.field(slot)
		switch {
		case state == unfit:
			return TimestampMalformed
		case state == absent:
			continue
		}
		f := &v.scheme.fields[slot]
		at, ok := ts.parse(text)
		if !ok || ts.unit == rfc3339Unit && f.cuttable() && !zoned(text) {
			return TimestampMalformed
		}
		v.stamp, v.stamped = at, slot
		return None
	}
	if ts.optional {
		return None
	}
	return TimestampMissing
}

// cuttable says whether the end of an RFC 3339 text without a zone could be taken for the beginning of what follows it.
func (f *field) cuttable() bool {
	return f.adjoins || slices.ContainsFunc(f.bounds, func(literal string) bool { return literal[0] == '.' || '0' <= literal[0] && literal[0] <= '9' })
}

// readSigned reads the fields that are signed, and the id, and refuses what could be read in two ways.
func (v *Verification) readSigned() Failure {
	s := v.scheme
	for slot := range s.fields {
		f := &s.fields[slot]
		if !f.signed && !(f.id && f.header >= 0) {
			continue
		}
		fault := Malformed
		if f.timestamp {
			fault = TimestampMalformed
		}
		text, state := v.field(slot)
		switch {
		case state == unfit:
			return fault
		case state == absent && f.required && f.timestamp:
			return TimestampMissing
		case state == absent && f.required:
			return Malformed
		case state == absent:
			continue
		case v.delivery.Merged && f.source.kind == headerField && (strings.IndexByte(text, '!') >= 0 || f.id && strings.IndexByte(text, ',') >= 0):
			return fault
		}
		for _, literal := range f.bounds {
			if strings.Contains(text, literal) && slot != v.stamped { // a date is of one form
				return fault
			}
		}
	}
	if s.facts.needsURL && v.delivery.PublicURL == "" {
		return Malformed
	}
	if s.certificates != nil && !v.namesCertificate() {
		return Malformed
	}
	if s.needsForm && !v.readForm() || s.needsQuery && !v.readQuery() || !v.only() {
		return Malformed
	}
	return None
}

// only says whether nothing rides along in a body that is signed in part.
func (v *Verification) only() bool {
	fields := 0
	for _, src := range v.scheme.only {
		switch src.kind {
		case jsonField:
			slot := slices.IndexFunc(v.scheme.fields, func(f field) bool { return f.source == src })
			if !v.readJSON() {
				return false
			}
			if list := v.json[v.scheme.fields[slot].path]; list.state != jsonList || list.items != 1 || list.duplicate {
				return false
			}
		case formField:
			_, count := one(v.form, src.name)
			if count > 1 {
				return false
			}
			fields += count
		}
	}
	return len(v.scheme.only) == 0 || v.formBody != done || fields == len(v.form)
}

// decode turns the candidates into bytes. Those of a list that cannot be signatures are left out.
func (v *Verification) decode() Failure {
	s := v.scheme
	longest := 2 * s.alg.size // hex is the longest way to write one
	if s.alg.size == 0 {
		longest = maxSignature
	}
	for _, text := range v.candidates {
		start := len(v.decoded)
		if s.alg.family == tokenFamily {
			if !v.decodeToken(text) {
				return Malformed
			}
			continue
		}
		if len(text) > longest {
			continue
		}
		var ok bool
		v.decoded, ok = s.sig.enc.appendDecoded(v.decoded, text, &v.scratch)
		if size := len(v.decoded) - start; !ok || size == 0 || s.alg.size > 0 && size != s.alg.size {
			v.decoded = v.decoded[:start]
			continue
		}
		v.ends = append(v.ends, len(v.decoded))
	}
	if len(v.ends) == 0 {
		return Malformed
	}
	return None
}

// decodeToken hashes a token, so that a comparison tells nothing of its length.
func (v *Verification) decodeToken(text string) bool {
	if v.delivery.Merged && strings.IndexByte(text, ',') >= 0 {
		return false
	}
	start := len(v.decoded)
	var ok bool
	v.decoded, ok = v.scheme.sig.enc.appendDecoded(v.decoded, text, &v.scratch)
	if !ok || len(v.decoded) == start {
		return false
	}
	sum := sha256.Sum256(v.decoded[start:])
	v.decoded = append(v.decoded[:start], sum[:]...)
	v.ends = append(v.ends, len(v.decoded))
	return true
}
