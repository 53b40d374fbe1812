package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"time"
)

// Verification is the state of one verification. The zero value is ready. It may be used again and again, which spares memory, by one
// goroutine at a time; between Parse and Reset it holds views of the delivery.
type Verification struct {
	scheme   *Scheme
	delivery *Delivery

	headers []headerValue // by slot of Scheme.headers
	fields  []fieldValue  // by slot of Scheme.fields
	json    []jsonValue   // by slot of Scheme.paths
	form    []pair        // sorted
	query   []pair

	body, jsonBody, formBody, queryPairs progress

	texts      []string // that hold signatures
	candidates []string // signatures as written
	decoded    []byte   // signatures as bytes
	ends       []int    // where each ends in decoded

	stamp   stamp
	stamped int // slot of the field that holds the stamp, -1 for none

	matched int // the template that matched, -1 for none
	sums    []keyedSum
	checks  progress

	joined            []byte // a body of several segments
	scratch, scratch2 []byte
	digests           bodyDigests
}

// headerValue is a header that the scheme reads.
type headerValue struct {
	value string
	count int
}

// fieldValue is a text that the scheme reads.
type fieldValue struct {
	text  string
	state fieldState
}

type fieldState uint8

const (
	unread fieldState = iota
	absent            // or empty
	present
	unfit // occurs twice, or stands in a document that cannot be read
)

// progress says how a step that is done at most once went.
type progress uint8

const (
	notTried progress = iota
	failed
	done
)

func progressOf(ok bool) progress {
	if ok {
		return done
	}
	return failed
}

// keyedSum is the sum of one template under one key.
type keyedSum struct {
	key      *Key
	template int
	size     int
	sum      [sha512.Size]byte
}

// bodyDigests are the unkeyed digests of the body, each made when first wanted.
type bodyDigests struct {
	sha256, sha512   hash.Hash
	sum256           [sha256.Size]byte
	sum512           [sha512.Size]byte
	have256, have512 bool
}

// maxSignature bounds a signature as written whose length varies: 4096 bits of RSA in hex.
const maxSignature = 2048

// maxKept bounds the buffers that outlive a delivery.
const maxKept = 1 << 20

// Reset drops every view of the delivery.
func (v *Verification) Reset() {
	v.scheme, v.delivery = nil, nil
	clear(v.headers)
	clear(v.fields)
	clear(v.json)
	clear(v.form)
	clear(v.query)
	clear(v.texts)
	clear(v.candidates)
	clear(v.sums)
	v.headers, v.fields, v.json, v.form, v.query = v.headers[:0], v.fields[:0], v.json[:0], v.form[:0], v.query[:0]
	v.texts, v.candidates, v.decoded, v.ends, v.sums = v.texts[:0], v.candidates[:0], v.decoded[:0], v.ends[:0], v.sums[:0]
	v.body, v.jsonBody, v.formBody, v.queryPairs, v.checks = notTried, notTried, notTried, notTried, notTried
	v.stamp, v.stamped, v.matched = stamp{}, -1, -1
	v.joined, v.scratch, v.scratch2 = keep(v.joined), keep(v.scratch), keep(v.scratch2)
	v.digests.have256, v.digests.have512 = false, false
}

func keep(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

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

func stateOf(text string) fieldState {
	if text == "" {
		return absent
	}
	return present
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
			if _, count := one(v.form, src.name); count > 1 {
				return false
			} else {
				fields += count
			}
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

// field reads a field, once.
func (v *Verification) field(slot int) (string, fieldState) {
	f := &v.fields[slot]
	if f.state == unread {
		*f = v.readField(&v.scheme.fields[slot])
	}
	return f.text, f.state
}

func (v *Verification) readField(f *field) fieldValue {
	switch f.source.kind {
	case headerField:
		if h := v.headers[f.header]; h.count == 1 {
			return fieldValue{h.value, stateOf(h.value)}
		} else if h.count > 1 {
			return fieldValue{state: unfit}
		}
	case jsonField:
		if !v.readJSON() {
			return fieldValue{state: unfit}
		}
		switch value := v.json[f.path]; {
		case value.duplicate || value.state == jsonList || value.state == jsonOther:
			return fieldValue{state: unfit}
		case value.state == jsonText:
			return fieldValue{value.text, stateOf(value.text)}
		}
	case formField:
		if !v.readForm() {
			return fieldValue{state: unfit}
		}
		return single(v.form, f.source.name)
	case queryField:
		if !v.readQuery() {
			return fieldValue{state: unfit}
		}
		return single(v.query, f.source.name)
	}
	return fieldValue{state: absent}
}

func single(pairs []pair, name string) fieldValue {
	value, count := one(pairs, name)
	if count > 1 {
		return fieldValue{state: unfit}
	}
	return fieldValue{value, stateOf(value)}
}

// contiguous is the body in one piece.
func (v *Verification) contiguous() []byte {
	if len(v.delivery.Body) == 1 {
		return v.delivery.Body[0]
	}
	if v.body == notTried {
		v.body = done
		for _, segment := range v.delivery.Body {
			v.joined = append(v.joined, segment...)
		}
	}
	return v.joined
}

// readJSON reads all JSON fields at once. An empty body has none.
func (v *Verification) readJSON() bool {
	if v.jsonBody == notTried {
		paths := v.scheme.paths
		v.json = slices.Grow(v.json, len(paths))[:len(paths)]
		body := v.contiguous()
		v.jsonBody = progressOf(len(body) == 0 || scanJSON(body, paths, v.json))
	}
	return v.jsonBody == done
}

// readForm reads the fields of a form. An empty body has none whatever its type, and any other body must say that it is a form.
func (v *Verification) readForm() bool {
	if v.formBody == notTried {
		slot := slices.Index(v.scheme.headers, contentType)
		h := v.headers[slot]
		body := v.contiguous()
		ok := len(body) == 0
		if !ok && h.count == 1 && isForm(h.value) {
			v.form, ok = appendPairs(v.form, string(body))
			slices.SortFunc(v.form, comparePairs)
		}
		v.formBody = progressOf(ok)
	}
	return v.formBody == done
}

// readQuery reads the fields of the query.
func (v *Verification) readQuery() bool {
	if v.queryPairs == notTried {
		var ok bool
		v.query, ok = appendPairs(v.query, v.queryText())
		v.queryPairs = progressOf(ok)
	}
	return v.queryPairs == done
}

// queryText is the request's query without its question mark.
func (v *Verification) queryText() string {
	_, query, _ := strings.Cut(v.delivery.Path, "?")
	return query
}

// Matches says whether any signature of the delivery is right under k. It compares every candidate with the sum of every template, so
// that its time does not tell which one is right.
func (v *Verification) Matches(k *Key) bool {
	if v.scheme == nil || k == nil || k.family != v.scheme.alg.family || len(v.ends) == 0 {
		return false
	}
	switch v.scheme.alg.family {
	case tokenFamily:
		return v.anyCandidate(k.token[:]) && v.checksHold()
	case publicKeyFamily:
		return v.matchesPublic(k) && v.checksHold()
	}
	matches := false
	for i := range v.scheme.templates {
		sum := v.sum(k, i)
		if v.anyCandidate(sum.sum[:sum.size]) {
			matches = true
			if v.matched < 0 {
				v.matched = i
			}
		}
	}
	return matches && v.checksHold()
}

func (v *Verification) anyCandidate(want []byte) bool {
	found := false
	start := 0
	for _, end := range v.ends {
		if hmac.Equal(v.decoded[start:end], want) {
			found = true
		}
		start = end
	}
	return found
}

// sum is the sum of a template under k, made once.
func (v *Verification) sum(k *Key, template int) *keyedSum {
	for i := range v.sums {
		if s := &v.sums[i]; s.key == k && s.template == template {
			return s
		}
	}
	v.sums = append(v.sums, keyedSum{key: k, template: template})
	s := &v.sums[len(v.sums)-1]
	h := k.hash()
	v.feed(h, v.scheme.templates[template], k)
	s.size = len(h.Sum(s.sum[:0]))
	k.release(h)
	return s
}

// feed writes a template to a hash. The body goes in as it lies, the rest in as few pieces as can be.
func (v *Verification) feed(h hash.Hash, t template, k *Key) {
	buf := v.scratch[:0]
	for i := range t {
		p := &t[i]
		switch {
		case p.kind == bodyPart && p.filter == noFilter:
			if len(buf) > 0 {
				h.Write(buf)
				buf = buf[:0]
			}
			for _, segment := range v.delivery.Body {
				h.Write(segment)
			}
		case p.kind == secretPart:
			buf = append(buf, k.material...)
		default:
			buf, _ = v.appendPart(buf, p) // Parse has seen to it that all is there
		}
	}
	if len(buf) > 0 {
		h.Write(buf)
	}
	v.scratch = buf
}

// appendPart appends the text of a part. It fails where a field that must be there is not.
func (v *Verification) appendPart(dst []byte, p *part) ([]byte, bool) {
	start := len(dst)
	ok := true
	switch p.kind {
	case literalPart:
		return append(dst, p.text...), true
	case fieldPart:
		text, state := v.field(p.slot)
		if state != present {
			return dst, p.optional && state == absent
		}
		dst = append(dst, p.text...)
		start = len(dst)
		dst = filtered(append(dst, text...), start, p.filter)
		return append(dst, p.after...), true
	case bodyPart:
		return v.appendBody(dst, p.filter), true
	case methodPart:
		dst = append(dst, v.delivery.Method...)
	case pathPart:
		path, _, _ := strings.Cut(v.delivery.Path, "?")
		dst = append(dst, path...)
	case queryPart:
		dst = append(dst, v.queryText()...)
	case querySortedPart:
		ok = v.readQuery()
		dst = appendSortedQuery(dst, slices.Clone(v.query))
	case formSortedPart:
		ok = v.readForm()
		for i, f := range v.form {
			if i == 0 || f != v.form[i-1] {
				dst = append(dst, f.name...)
				dst = append(dst, f.value...)
			}
		}
	default:
		dst = v.appendURL(dst, p.kind)
	}
	return filtered(dst, start, p.filter), ok
}

// filtered passes what dst holds from start through a filter.
func filtered(dst []byte, start int, f filter) []byte {
	switch f {
	case sha256Hex:
		sum := sha256.Sum256(dst[start:])
		return hex.AppendEncode(dst[:start], sum[:])
	case sha256Raw:
		sum := sha256.Sum256(dst[start:])
		return append(dst[:start], sum[:]...)
	case sha512Base64:
		sum := sha512.Sum512(dst[start:])
		return base64.StdEncoding.AppendEncode(dst[:start], sum[:])
	case lowerCase:
		for i := start; i < len(dst); i++ {
			if c := dst[i]; 'A' <= c && c <= 'Z' {
				dst[i] = c | 0x20
			}
		}
	}
	return dst
}

// appendBody appends the body or a digest of it.
func (v *Verification) appendBody(dst []byte, f filter) []byte {
	d := &v.digests
	switch f {
	case sha256Hex, sha256Raw:
		if !d.have256 {
			if d.sha256 == nil {
				d.sha256 = sha256.New()
			}
			v.digestBody(d.sha256, d.sum256[:0])
			d.have256 = true
		}
		if f == sha256Hex {
			return hex.AppendEncode(dst, d.sum256[:])
		}
		return append(dst, d.sum256[:]...)
	case sha512Base64:
		if !d.have512 {
			if d.sha512 == nil {
				d.sha512 = sha512.New()
			}
			v.digestBody(d.sha512, d.sum512[:0])
			d.have512 = true
		}
		return base64.StdEncoding.AppendEncode(dst, d.sum512[:])
	}
	start := len(dst)
	for _, segment := range v.delivery.Body {
		dst = append(dst, segment...)
	}
	return filtered(dst, start, f)
}

func (v *Verification) digestBody(h hash.Hash, dst []byte) {
	h.Reset()
	for _, segment := range v.delivery.Body {
		h.Write(segment)
	}
	h.Sum(dst)
}

// appendURL appends the public URL. The request's query is added to all forms but url.noquery.
func (v *Verification) appendURL(dst []byte, kind partKind) []byte {
	url := v.delivery.PublicURL
	if kind == urlPortPart || kind == urlNoPortPart {
		scheme, rest, _ := strings.Cut(url, "://")
		end := strings.IndexByte(rest, '/')
		if end < 0 {
			end = len(rest)
		}
		host, port := rest[:end], ""
		if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
			host, port = host[:colon], host[colon:]
		}
		switch {
		case kind == urlNoPortPart:
			port = ""
		case port == "" && scheme == "http":
			port = ":80"
		case port == "":
			port = ":443"
		}
		dst = append(dst, scheme...)
		dst = append(dst, "://"...)
		dst = append(dst, host...)
		dst = append(dst, port...)
		url = rest[end:]
	}
	dst = append(dst, url...)
	if at := strings.IndexByte(v.delivery.Path, '?'); at >= 0 && kind != urlNoQueryPart {
		dst = append(dst, v.delivery.Path[at:]...)
	}
	return dst
}

// checksHold says whether the texts that must be equal are. They are compared once, after a match.
func (v *Verification) checksHold() bool {
	if v.checks == notTried {
		v.checks = progressOf(!slices.ContainsFunc(v.scheme.checks, func(k check) bool { return !v.holds(&k) }))
	}
	return v.checks == done
}

func (v *Verification) holds(k *check) bool {
	if k.ifPresent >= 0 {
		if _, state := v.field(k.ifPresent); state == absent {
			return true
		}
	}
	var ok, ok2 bool
	v.scratch, ok = v.render(v.scratch[:0], k.a)
	v.scratch2, ok2 = v.render(v.scratch2[:0], k.b)
	return ok && ok2 && hmac.Equal(v.scratch, v.scratch2)
}

// render appends the text of a template.
func (v *Verification) render(dst []byte, t template) ([]byte, bool) {
	for i := range t {
		var ok bool
		if dst, ok = v.appendPart(dst, &t[i]); !ok {
			return dst, false
		}
	}
	return dst, true
}

// MessageID is the identity of the signed message under k: of the template that matched, or of the first one before a match. A static
// token has none.
func (v *Verification) MessageID(k *Key) MessageID {
	if v.scheme == nil || v.scheme.IsToken() || k == nil || k.family != v.scheme.alg.family || len(v.ends) == 0 {
		return MessageID{}
	}
	template := max(v.matched, 0)
	var sum [sha256.Size]byte
	if v.scheme.NeedsPublicKey() {
		sum = v.messageSum(template)
	} else {
		s := v.sum(k, template)
		sum = sha256.Sum256(s.sum[:s.size])
	}
	return MessageID(sum[:len(MessageID{})])
}

// Timestamp is when the delivery says it was sent. A time that is not signed is not told.
func (v *Verification) Timestamp() (t time.Time, ok bool) {
	if v.scheme == nil || v.stamped < 0 {
		return time.Time{}, false
	}
	return v.stamp.time(), true
}

// Fresh says whether the timestamp is within tolerance of now, either way and inclusive, compared in the timestamp's own unit. Where the
// scheme lets the timestamp be absent, an absent one is fresh.
func (v *Verification) Fresh(now time.Time, tolerance time.Duration) bool {
	if v.scheme == nil || v.stamped < 0 {
		return v.scheme != nil && v.scheme.ts.optional
	}
	return v.stamp.fresh(now, tolerance)
}

// DeliveryID is the sender's id of the delivery, "" where there is none.
func (v *Verification) DeliveryID() string { return v.told(func(s *Scheme) int { return s.id }) }

// Event is the event type, "" where there is none. It may stand in the body: ask after a match.
func (v *Verification) Event() string { return v.told(func(s *Scheme) int { return s.event }) }

func (v *Verification) told(slot func(*Scheme) int) string {
	if v.scheme == nil || slot(v.scheme) < 0 || len(v.fields) == 0 {
		return ""
	}
	text, state := v.field(slot(v.scheme))
	if state != present {
		return ""
	}
	return text
}
