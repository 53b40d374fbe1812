package signature

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
)

// bodyDigests are the unkeyed digests of the body, each made when first wanted.
type bodyDigests struct {
	sha256, sha512   hash.Hash
	sum256           [sha256.Size]byte
	sum512           [sha512.Size]byte
	have256, have512 bool
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
	case pathNoSlashPart:
		path, _, _ := strings.Cut(v.delivery.Path, "?")
		dst = append(dst, strings.TrimRight(path, "/")...)
	case jwsHeadersPart:
		dst = v.appendListed(dst)
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
	case snsPart:
		ok = v.readSNS()
		dst = v.sns.appendSigned(dst)
	case webhookIDPart:
		dst = append(dst, v.scheme.parameters.WebhookID...)
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
	case crc32Decimal:
		return strconv.AppendUint(dst[:start], uint64(crc32.ChecksumIEEE(dst[start:])), 10)
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
