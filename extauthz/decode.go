// Package extauthz answers Envoy's external-authorization calls: CheckRequest -> policy.Request -> Decision -> CheckResponse.
package extauthz

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/hookauthz/hookauthz/policy"
)

// endpointExtension is the context extension by which Envoy's route names the policy.
const endpointExtension = "hookauthz.endpoint"

// partialBodyHeader is present exactly when Envoy buffered a body; a client's own copy is dropped. It is "true" for a cut one.
const partialBodyHeader = "x-envoy-auth-partial-body"

// decode reads a CheckRequest, whatever its shape. Strings and body are views of the message. Time is left to the caller.
func decode(m *authv3.CheckRequest) *policy.Request {
	attributes := m.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	r := &policy.Request{
		StreamID: http.GetId(),
		Method:   http.GetMethod(),
		Host:     http.GetHost(),
		Path:     http.GetPath(),
		Peer:     peer(attributes.GetSource().GetAddress()),
	}
	r.Endpoint, r.Named = attributes.GetContextExtensions()[endpointExtension]
	r.Headers, r.Merged = headers(http)
	r.RequestID = requestID(r.Headers)
	if r.Host == "" {
		r.Host, _ = only(r.Headers, ":authority")
	}
	body(r, http)
	return r
}

func peer(a *corev3.Address) netip.Addr {
	address, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil || address.Zone() != "" {
		return netip.Addr{}
	}
	return address.Unmap()
}

// headers takes the list, in which repeats stay apart and values are raw, or else the map, in which Envoy merged them.
func headers(http *authv3.AttributeContext_HttpRequest) (list []policy.Header, merged bool) {
	if raw := http.GetHeaderMap().GetHeaders(); len(raw) > 0 {
		list = make([]policy.Header, 0, len(raw))
		for _, h := range raw {
			value := h.GetValue()
			if raw := h.GetRawValue(); len(raw) > 0 {
				value = string(raw)
			}
			list = append(list, policy.Header{Name: strings.ToLower(h.GetKey()), Value: value})
		}
		return list, false
	}
	list = make([]policy.Header, 0, len(http.GetHeaders()))
	for name, value := range http.GetHeaders() {
		list = append(list, policy.Header{Name: strings.ToLower(name), Value: value})
	}
	return list, true
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
func body(r *policy.Request, http *authv3.AttributeContext_HttpRequest) {
	partial, buffered := only(r.Headers, partialBodyHeader)
	whole := buffered && partial == "false"
	raw, text := http.GetRawBody(), http.GetBody()
	present := buffered || has(r.Headers, partialBodyHeader)
	switch {
	case len(raw) > 0:
		r.Body = [][]byte{raw}
	case text != "":
		r.Body = [][]byte{[]byte(text)}
	}
	switch {
	case len(r.Body) == 0 && !present:
		r.BodyState = policy.NoBody
	case !whole, len(raw) > 0 && text != "":
		r.BodyState = policy.PartialBody
	case len(raw) == 0 && text != "":
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

// traceID is the trace of a W3C traceparent header: version, 32 hex digits, 16 hex digits, flags. "" where there is none.
func traceID(list []policy.Header) string {
	parent, _ := only(list, "traceparent")
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
