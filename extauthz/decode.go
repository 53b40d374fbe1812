// Package extauthz answers Envoy's external-authorization calls: CheckRequest -> policy.Request -> Decision -> CheckResponse.
package extauthz

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hookauthz/hookauthz/policy"
)

// endpointExtension is the context extension by which Envoy's route names the policy.
const endpointExtension = "hookauthz.endpoint"

// partialBodyHeader is present exactly when Envoy buffered a body; a client's own copy is dropped. It is "true" for a cut one.
const partialBodyHeader = "x-envoy-auth-partial-body"

// Numbers of the fields that are read, from envoy/service/auth/v3 and envoy/config/core/v3. Names are those of the messages.
const (
	checkAttributes = 1

	attributesSource     = 1
	attributesRequest    = 4
	attributesExtensions = 10

	peerAddress = 1

	addressSocket   = 1
	addressPipe     = 2
	addressInternal = 3

	socketAddress = 2

	requestHTTP = 2

	httpID        = 1
	httpMethod    = 2
	httpHeaders   = 3
	httpPath      = 4
	httpHost      = 5
	httpBody      = 11
	httpRawBody   = 12
	httpHeaderMap = 13

	headerMapHeaders = 1

	headerKey      = 1
	headerValue    = 2
	headerRawValue = 3

	entryKey   = 1
	entryValue = 2
)

var (
	errWire = errors.New("the message is not a CheckRequest")
	errUTF8 = errors.New("a text of the message is not UTF-8")
)

// decoder reads a CheckRequest from its bytes. It takes what the decision needs and passes over the rest. What it reads, it reads as
// proto.Unmarshal does: the last value of a field wins, repeated messages merge, text is UTF-8. It may be used again after reset.
type decoder struct {
	request *policy.Request
	cursor  cursor
	list    []policy.Header // header_map: as received, repeats apart
	merged  []policy.Header // headers: as Envoy merged them
	seen    map[string]int  // places in merged, once there are many
	address string
	text    []byte   // body
	raw     [][]byte // raw_body
}

// keptHeaders is how many headers the largest list that is used again may hold.
const keptHeaders = 256

// reset drops every view of the message, and what the request had of it.
func (d *decoder) reset() {
	clear(d.list)
	clear(d.merged)
	clear(d.raw)
	if cap(d.list)+cap(d.merged) > keptHeaders {
		d.list, d.merged = nil, nil
	}
	*d = decoder{list: d.list[:0], merged: d.merged[:0], raw: d.raw[:0]}
}

// decode reads a CheckRequest, whatever its shape, from the segments in which it was received. The body is views of them, which must not
// change while r is in use; texts are copies. The list of headers is the decoder's until reset. Time is left to the caller.
func (d *decoder) decode(segments [][]byte, r *policy.Request) error {
	d.request = r
	c := &d.cursor
	c.begin(segments)
	if err := c.fields(c.size, d.check); err != nil {
		return err
	}
	r.Headers, r.Merged = d.list, false
	if len(r.Headers) == 0 {
		r.Headers, r.Merged = d.merged, true
	}
	for i := range r.Headers {
		r.Headers[i].Name = strings.ToLower(r.Headers[i].Name) // costs nothing where it is so already
	}
	if address, err := netip.ParseAddr(d.address); err == nil && address.Zone() == "" {
		r.Peer = address.Unmap()
	}
	r.RequestID = requestID(r.Headers)
	if r.Host == "" {
		r.Host, _ = only(r.Headers, ":authority")
	}
	d.body()
	return nil
}

// fields calls read for every field of a message, with the value of those that are bytes, text or messages.
func fields(data []byte, read func(n protowire.Number, value []byte) error) error {
	for len(data) > 0 {
		if number, value, rest, ok := short(data); ok {
			data = rest
			if err := read(number, value); err != nil {
				return err
			}
			continue
		}
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errWire
		}
		data = data[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return errWire
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return errWire
		}
		data = data[n:]
		if err := read(number, value); err != nil {
			return err
		}
	}
	return nil
}

// short takes the first field where it is a text, as nearly all are, with a number below 16 and less than 128 bytes.
func short(data []byte) (number protowire.Number, value, rest []byte, ok bool) {
	if len(data) < 2 || data[0] >= 0x80 || data[0]&7 != byte(protowire.BytesType) || data[0]>>3 == 0 || data[1] >= 0x80 || int(data[1]) > len(data)-2 {
		return 0, nil, nil, false
	}
	end := 2 + int(data[1])
	return protowire.Number(data[0] >> 3), data[2:end:end], data[end:], true
}

// view is text in bytes that the cursor has copied: nobody writes to them, and the garbage collector keeps them for as long as the view lives.
func view(value []byte) string { return unsafe.String(unsafe.SliceData(value), len(value)) }

// text takes a text that must be UTF-8.
func text(into *string, value []byte) error {
	if !utf8.Valid(value) {
		return errUTF8
	}
	*into = view(value)
	return nil
}

// check, attributes and http follow the body, which may lie in many segments; everything beside it is small and taken as a whole.
func (d *decoder) check(c *cursor, n protowire.Number, end int) error {
	if n == checkAttributes {
		return c.fields(end, d.attributes)
	}
	return nil
}

func (d *decoder) attributes(c *cursor, n protowire.Number, end int) error {
	switch n {
	case attributesSource:
		return fields(c.bytes(end), d.source)
	case attributesRequest:
		return c.fields(end, func(c *cursor, n protowire.Number, end int) error {
			if n == requestHTTP {
				return c.fields(end, d.http)
			}
			return nil
		})
	case attributesExtensions:
		name, text, err := mapEntry(c.bytes(end))
		if err == nil && name == endpointExtension {
			d.request.Named, d.request.Endpoint = true, text
		}
		return err
	}
	return nil
}

func (d *decoder) source(n protowire.Number, value []byte) error {
	if n != peerAddress {
		return nil
	}
	return fields(value, func(n protowire.Number, value []byte) error {
		switch n {
		case addressSocket:
			return fields(value, func(n protowire.Number, value []byte) error {
				if n == socketAddress {
					return text(&d.address, value)
				}
				return nil
			})
		case addressPipe, addressInternal: // takes the place of a socket address
			d.address = ""
		}
		return nil
	})
}

func (d *decoder) http(c *cursor, n protowire.Number, end int) error {
	r := d.request
	switch n {
	case httpID:
		return text(&r.StreamID, c.bytes(end))
	case httpMethod:
		return text(&r.Method, c.bytes(end))
	case httpPath:
		return text(&r.Path, c.bytes(end))
	case httpHost:
		return text(&r.Host, c.bytes(end))
	case httpHeaders:
		name, text, err := mapEntry(c.bytes(end))
		if err == nil {
			d.merge(name, text)
		}
		return err
	case httpHeaderMap:
		return fields(c.bytes(end), d.headerMap)
	case httpBody:
		if d.text = c.bytes(end); !utf8.Valid(d.text) {
			return errUTF8
		}
	case httpRawBody:
		d.raw = c.views(d.raw[:0], end)
	}
	return nil
}

// headerMap takes one header of the list: its raw value, or else its text.
func (d *decoder) headerMap(n protowire.Number, value []byte) error {
	if n != headerMapHeaders {
		return nil
	}
	var name, plain string
	var raw []byte
	err := fields(value, func(n protowire.Number, value []byte) error {
		switch n {
		case headerKey:
			return text(&name, value)
		case headerValue:
			return text(&plain, value)
		case headerRawValue:
			raw = value
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(raw) > 0 {
		plain = view(raw)
	}
	if cap(d.list) == 0 {
		d.list = make([]policy.Header, 0, 32)
	}
	d.list = append(d.list, policy.Header{Name: name, Value: plain})
	return nil
}

// fewHeaders is up to where a header is looked for one by one.
const fewHeaders = 64

// merge takes one entry of the map of headers. The last one of a name wins.
func (d *decoder) merge(name, value string) {
	at, known := -1, false
	if len(d.merged) < fewHeaders {
		for i := range d.merged {
			if d.merged[i].Name == name {
				at, known = i, true
			}
		}
	} else {
		if d.seen == nil {
			d.seen = make(map[string]int, 2*fewHeaders)
			for i := range d.merged {
				d.seen[d.merged[i].Name] = i
			}
		}
		at, known = d.seen[name]
	}
	if known {
		d.merged[at].Value = value
		return
	}
	if d.seen != nil {
		d.seen[name] = len(d.merged)
	}
	if cap(d.merged) == 0 {
		d.merged = make([]policy.Header, 0, 32)
	}
	d.merged = append(d.merged, policy.Header{Name: name, Value: value})
}

// mapEntry reads an entry of a map of texts.
func mapEntry(data []byte) (key, value string, err error) {
	err = fields(data, func(n protowire.Number, v []byte) error {
		switch n {
		case entryKey:
			return text(&key, v)
		case entryValue:
			return text(&value, v)
		}
		return nil
	})
	return key, value, err
}

// only is the value of a header that occurs once; found is false for any other number.
func only(list []policy.Header, name string) (value string, found bool) {
	for _, h := range list {
		if h.Name != name {
			continue
		}
		if found {
			return "", false
		}
		value, found = h.Value, true
	}
	return value, found
}

// body takes the bytes and what is known of them. Only Envoy's own word that nothing was cut makes them whole. Bytes and a text at once
// are nothing that Envoy sends.
func (d *decoder) body() {
	r := d.request
	partial, buffered := only(r.Headers, partialBodyHeader)
	whole := buffered && partial == "false"
	present := buffered || has(r.Headers, partialBodyHeader)
	switch {
	case len(d.raw) > 0:
		r.Body = d.raw
	case len(d.text) > 0:
		r.Body = [][]byte{d.text}
	}
	switch {
	case len(r.Body) == 0 && !present:
		r.BodyState = policy.NoBody
	case !whole, len(d.raw) > 0 && len(d.text) > 0:
		r.BodyState = policy.PartialBody
	case len(d.raw) == 0 && len(d.text) > 0:
		r.BodyState = policy.TextBody
	default:
		r.BodyState = policy.WholeBody
	}
}

func has(list []policy.Header, name string) bool {
	for _, h := range list {
		if h.Name == name {
			return true
		}
	}
	return false
}

// requestID is Envoy's x-request-id, where it can be quoted safely.
func requestID(list []policy.Header) string {
	id, _ := only(list, "x-request-id")
	if len(id) > maxValue || !printable(id) {
		return ""
	}
	return id
}

// maxValue bounds what a sender can put into a header, a log line or metadata.
const maxValue = 256

// printable reports whether s is printable ASCII.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// traceID is the trace of a traceparent header. "" where there is none.
func traceID(list []policy.Header) string {
	parent, _ := only(list, "traceparent")
	return traceIDOf(parent)
}

// traceIDOf is the trace of a W3C traceparent: version, 32 hex digits, 16 hex digits, flags. "" for what is none.
func traceIDOf(parent string) string {
	version, rest, _ := strings.Cut(parent, "-")
	trace, rest, _ := strings.Cut(rest, "-")
	span, rest, _ := strings.Cut(rest, "-")
	flags, _, more := strings.Cut(rest, "-") // a version of later years may have more
	if !isHex(version, 2) || version == "ff" || !isHex(trace, 32) || isZero(trace) || !isHex(span, 16) || isZero(span) || !isHex(flags, 2) || (more && version == "00") {
		return ""
	}
	return trace
}

// isHex reports whether s is n hex digits as the W3C writes them: in lower case.
func isHex(s string, n int) bool { return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" }

func isZero(s string) bool { return strings.Trim(s, "0") == "" }
