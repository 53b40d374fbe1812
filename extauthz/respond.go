package extauthz

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hookauthz/hookauthz/policy"
)

// Our headers, as the application reads them.
const (
	headerEndpoint      = "x-hookauthz-endpoint"
	headerScheme        = "x-hookauthz-scheme"
	headerSecretVersion = "x-hookauthz-secret-version"
	headerDeliveryID    = "x-hookauthz-delivery-id"
	headerEvent         = "x-hookauthz-event"
	headerDuplicate     = "x-hookauthz-duplicate"
	headerDegraded      = "x-hookauthz-degraded"
	headerShadowReason  = "x-hookauthz-shadow-reason"
)

var ourHeaders = [...]string{headerEndpoint, headerScheme, headerSecretVersion, headerDeliveryID, headerEvent, headerDuplicate, headerDegraded, headerShadowReason}

// Numbers of the fields that are written, from envoy/service/auth/v3, google/rpc and google/protobuf/struct.proto.
const (
	responseStatus   = 1
	responseDenied   = 2
	responseOK       = 3
	responseMetadata = 4

	statusCode = 1

	okHeaders         = 2
	okHeadersToRemove = 5

	deniedStatus  = 1
	deniedHeaders = 2
	deniedBody    = 3

	optionHeader = 1
	optionAppend = 2
	optionAction = 3

	structFields = 1
	valueString  = 3
)

// overwrite is the append_action OVERWRITE_IF_EXISTS_OR_ADD.
const overwrite = 2

// respond is the one place that makes a CheckResponse. Envoy allows whatever has no status or status 0, so only a decision that is
// wholly an allow goes without one; everything else, the impossible too, is denied with its HTTP status. The reply is appended to dst.
func respond(dst []byte, d *policy.Decision, r *policy.Request) []byte {
	safe := checked(*d)
	switch safe.Outcome {
	case policy.Allow:
		dst = message(dst, responseStatus, func(dst []byte) []byte { return dst }) // code 0
		dst = message(dst, responseOK, func(dst []byte) []byte { return forward(dst, &safe, r) })
	case policy.Answer:
		dst = refuse(dst)
		dst = message(dst, responseDenied, func(dst []byte) []byte { return answer(dst, &safe) })
	default:
		dst = refuse(dst)
		dst = message(dst, responseDenied, func(dst []byte) []byte { return deny(dst, &safe, r.RequestID) })
	}
	return message(dst, responseMetadata, func(dst []byte) []byte { return metadata(dst, &safe) })
}

// refuse writes a status that is not 0.
func refuse(dst []byte) []byte {
	return message(dst, responseStatus, func(dst []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(dst, statusCode, protowire.VarintType), uint64(codes.PermissionDenied))
	})
}

// message appends a message field. Its length goes before it, so what it holds moves by the few bytes that the length takes.
func message(dst []byte, number protowire.Number, write func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	start := len(dst)
	dst = write(dst)
	n := len(dst) - start
	var length [10]byte
	return slices.Insert(dst, start, protowire.AppendVarint(length[:0], uint64(n))...)
}

// appendText appends a text field, which must be UTF-8.
func appendText(dst []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), s)
}

// checked is the decision itself where it can be: an allow for a reason of allows, an answer with its status and a text that can be
// sent, a denial with its status. Anything else is our own fault, and denied.
func checked(d policy.Decision) policy.Decision {
	switch {
	case d.Outcome == policy.Allow && d.Reason == policy.Shadow:
		// What would have happened otherwise is a denial or an answer, and never our own fault, which shadow mode does not soften.
		if d.Shadow.Answers() || (d.Shadow != policy.InternalError && !d.Shadow.Allows()) {
			return d
		}
	case d.Outcome == policy.Allow && d.Reason.Allows():
		return d
	case d.Outcome == policy.Answer && d.Reason.Answers() && answerable(d.Reason, d.Status) && utf8.Valid(d.Reply.Body) && printable(d.Reply.ContentType):
		return d
	case d.Outcome == policy.Deny && !d.Reason.Allows() && !d.Reason.Answers() && d.Status == d.Reason.Status():
		return d
	}
	return instead(&d, policy.InternalError)
}

// answerable reports whether an answer for this reason may have this status: a good one or, of a handshake, the 404 that Fitbit wants to
// hear of a wrong code.
func answerable(r policy.Reason, status int) bool {
	return (status >= 200 && status <= 208) || (r == policy.Handshake && status == 404)
}

// instead is a denial that takes the place of a decision.
func instead(d *policy.Decision, r policy.Reason) policy.Decision {
	denial := policy.Denied(r)
	denial.Endpoint, denial.Revision, denial.Audit = d.Endpoint, d.Revision, d.Audit
	return denial
}

// forward sets our headers on the request and removes what a client sent under their names.
func forward(dst []byte, d *policy.Decision, r *policy.Request) []byte {
	var set [len(ourHeaders)]bool
	add := func(name, value string) {
		if value == "" || len(value) > maxValue || !printable(value) {
			return
		}
		set[slices.Index(ourHeaders[:], name)] = true
		dst = header(dst, okHeaders, name, value)
	}
	if d.Reason == policy.Shadow {
		add(headerShadowReason, d.Shadow.String())
	} else {
		add(headerEndpoint, d.Endpoint)
		add(headerScheme, d.Scheme)
		add(headerSecretVersion, d.SecretVersion)
		if d.DeliveryIDSigned {
			add(headerDeliveryID, d.DeliveryID)
		}
		if d.EventSigned {
			add(headerEvent, d.Event)
		}
		if d.Duplicate {
			add(headerDuplicate, "true")
		}
		if d.Reason == policy.Degraded {
			add(headerDegraded, "true")
		}
	}
	return remove(dst, &set, r.Headers)
}

// removals are the fields that remove our names, each in both of its usual spellings, prepared.
var removals = func() (out [len(ourHeaders)]struct{ dashes, underscores []byte }) {
	for i, name := range ourHeaders {
		out[i].dashes = appendText(nil, okHeadersToRemove, name)
		out[i].underscores = appendText(nil, okHeadersToRemove, strings.ReplaceAll(name, "-", "_"))
	}
	return out
}()

// remove takes away our names that are not set, in both of their usual spellings, and every other spelling that the request carries: to
// the variables of CGI and its heirs X.Hookauthz_Endpoint is one name with ours. Envoy removes after it sets: a name that is set is never
// among them.
func remove(dst []byte, set *[len(ourHeaders)]bool, request []policy.Header) []byte {
	for i := range removals {
		if !set[i] {
			dst = append(dst, removals[i].dashes...)
		}
		dst = append(dst, removals[i].underscores...)
	}
	var odd []string
	for _, h := range request {
		if oddSpelling(h.Name) && !slices.Contains(odd, h.Name) {
			odd = append(odd, h.Name)
			dst = appendText(dst, okHeadersToRemove, h.Name)
		}
	}
	return dst
}

// oddSpelling says that a name is one of ours but for the characters between its words, and neither of its usual spellings.
func oddSpelling(name string) bool {
	if len(name) < len("x-hookauthz-") || name[0] != 'x' || name[2:11] != "hookauthz" {
		return false
	}
	plain, dashes, underscores := []byte(name), true, true
	for i, c := range plain {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			continue
		}
		dashes, underscores = dashes && c == '-', underscores && c == '_'
		plain[i] = '-'
	}
	return !dashes && !underscores && slices.Contains(ourHeaders[:], string(plain))
}

// header sets one header. A raw_value would arrive empty. Both fields say "overwrite": Envoy's reading of either alone has changed.
func header(dst []byte, number protowire.Number, name, value string) []byte {
	size := sizeText(name) + sizeText(value)
	dst = prefix(dst, number, sizeMessage(size)+sizeEmpty+sizeAction)
	dst = prefix(dst, optionHeader, size)
	dst = appendText(appendText(dst, headerKey, name), headerValue, value)
	dst = prefix(dst, optionAppend, 0) // a BoolValue that is there, and false
	return protowire.AppendVarint(protowire.AppendTag(dst, optionAction, protowire.VarintType), overwrite)
}

// Sizes of fields with numbers below 16, whose tag is one byte.
const (
	sizeEmpty  = 1 + 1 // a message with nothing in it
	sizeAction = 1 + 1 // a small number
)

func sizeText(s string) int { return 1 + protowire.SizeBytes(len(s)) }

func sizeMessage(n int) int { return 1 + protowire.SizeBytes(n) }

// prefix begins a message field of n bytes.
func prefix(dst []byte, number protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.BytesType), uint64(n))
}

func deny(dst []byte, d *policy.Decision, requestID string) []byte {
	dst = httpStatus(dst, d.Status)
	dst = header(dst, deniedHeaders, "content-type", "application/json")
	if after := retryAfter(d.Status, d.RetryAfter); after != "" {
		dst = header(dst, deniedHeaders, "retry-after", after)
	}
	return message(dst, deniedBody, func(dst []byte) []byte { return errorBody(dst, d.Reason, requestID) })
}

// errorBody is all that a sender learns of a denial.
func errorBody(dst []byte, r policy.Reason, requestID string) []byte {
	dst = append(dst, `{"error":"`...)
	dst = append(dst, r.Code()...)
	dst = append(dst, `","message":"`...)
	dst = append(dst, r.Message()...)
	dst = append(dst, `","request_id":`...)
	if strings.ContainsAny(requestID, `"\<>&`) || !printable(requestID) {
		quoted, _ := json.Marshal(requestID) // a text always encodes
		dst = append(dst, quoted...)
	} else {
		dst = append(dst, '"')
		dst = append(dst, requestID...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func httpStatus(dst []byte, code int) []byte {
	return message(dst, deniedStatus, func(dst []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(dst, statusCode, protowire.VarintType), uint64(code))
	})
}

// retryAfter is a Retry-After header in whole seconds, rounded up. Every 429 and 503 has one.
func retryAfter(code int, d time.Duration) string {
	if code != 429 && code != 503 && d <= 0 {
		return ""
	}
	seconds := int64(d / time.Second)
	if d%time.Second > 0 {
		seconds++
	}
	return strconv.FormatInt(max(1, seconds), 10)
}

func answer(dst []byte, d *policy.Decision) []byte {
	contentType := d.Reply.ContentType
	if contentType == "" {
		contentType = "text/plain"
	}
	dst = httpStatus(dst, d.Status)
	dst = header(dst, deniedHeaders, "content-type", contentType)
	dst = header(dst, deniedHeaders, "x-content-type-options", "nosniff")
	return protowire.AppendBytes(protowire.AppendTag(dst, deniedBody, protowire.BytesType), d.Reply.Body)
}

// metadata goes to Envoy's dynamic metadata on every decision: access logs read it, and the outcome log brings the reservation back.
func metadata(dst []byte, d *policy.Decision) []byte {
	add := func(name, value string) {
		if value == "" {
			return
		}
		size := sizeText(value)
		dst = prefix(dst, structFields, sizeText(name)+sizeMessage(size))
		dst = appendText(dst, entryKey, name)
		dst = prefix(dst, entryValue, size)
		dst = appendText(dst, valueString, value)
	}
	add("endpoint", quotable(d.Endpoint))
	add("decision", d.Outcome.String())
	add("reason", d.Reason.String())
	add("secret_version", quotable(d.SecretVersion))
	add("delivery_id", quotable(d.DeliveryID))
	add("event_type", quotable(d.Event))
	add("policy_revision", quotable(d.Revision))
	add("reservation", quotable(d.Reservation))
	if d.Reason == policy.Shadow {
		add("shadow", d.Shadow.String())
	}
	if d.Degraded {
		add("degraded", "true")
	}
	return dst
}

// quotable is text of a sender as it may stand in a log or in metadata: at most maxValue bytes of valid UTF-8 without control characters,
// those that turn the direction of what follows among them.
func quotable(s string) string {
	if len(s) <= maxValue && printable(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // an invalid byte comes as U+FFFD
		if r < ' ' || (0x7f <= r && r < 0xa0) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxValue {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
