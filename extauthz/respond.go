package extauthz

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

var ourHeaders = []string{headerEndpoint, headerScheme, headerSecretVersion, headerDeliveryID, headerEvent, headerDuplicate, headerDegraded, headerShadowReason}

// respond is the one place that builds a CheckResponse. Envoy allows whatever has no status or status 0, so only a decision that is
// wholly an allow gets one; everything else, the impossible too, is denied with its HTTP status.
func respond(d *policy.Decision, r *policy.Request) *authv3.CheckResponse {
	safe := checked(*d)
	response := &authv3.CheckResponse{DynamicMetadata: metadata(&safe)}
	switch safe.Outcome {
	case policy.Allow:
		response.Status = &status.Status{Code: int32(codes.OK)}
		response.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: forward(&safe, r)}
	case policy.Answer:
		response.Status = &status.Status{Code: int32(codes.PermissionDenied)}
		response.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: answer(&safe)}
	default:
		response.Status = &status.Status{Code: int32(codes.PermissionDenied)}
		response.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: deny(&safe, r.RequestID)}
	}
	return response
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
	denial.Endpoint, denial.Revision = d.Endpoint, d.Revision
	return denial
}

// forward sets our headers on the request and removes what a client sent under their names.
func forward(d *policy.Decision, r *policy.Request) *authv3.OkHttpResponse {
	out := &authv3.OkHttpResponse{}
	set := make(map[string]bool, len(ourHeaders))
	add := func(name, value string) {
		if value == "" || len(value) > maxValue || !printable(value) {
			return
		}
		set[name] = true
		out.Headers = append(out.Headers, header(name, value))
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
	out.HeadersToRemove = removals(set, r.Headers)
	return out
}

// removals are our names that are not set, in both of their usual spellings, and every other mix of '-' and '_' that the request
// carries. Envoy removes after it sets: a name that is set is never among them.
func removals(set map[string]bool, request []policy.Header) []string {
	out := make([]string, 0, 2*len(ourHeaders))
	for _, name := range ourHeaders {
		if !set[name] {
			out = append(out, name)
		}
		out = append(out, strings.ReplaceAll(name, "-", "_"))
	}
	for _, h := range request {
		if !strings.Contains(h.Name, "_") || !strings.Contains(h.Name, "-") {
			continue
		}
		if slices.Contains(ourHeaders, strings.ReplaceAll(h.Name, "_", "-")) && !slices.Contains(out, h.Name) {
			out = append(out, h.Name)
		}
	}
	return out
}

// header sets one header. A raw_value would arrive empty. Both fields say "overwrite": Envoy's reading of either alone has changed.
func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		Append:       wrapperspb.Bool(false),
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// errorBody is all that a sender learns of a denial.
type errorBody struct {
	Error     string `json:"error"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
}

func deny(d *policy.Decision, requestID string) *authv3.DeniedHttpResponse {
	reason, code := d.Reason, d.Status
	// The text is of our own making and always encodes.
	body, _ := json.Marshal(errorBody{reason.Code(), reason.Message(), requestID})
	out := &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)},
		Headers: []*corev3.HeaderValueOption{header("content-type", "application/json")},
		Body:    string(body),
	}
	if after := retryAfter(code, d.RetryAfter); after != "" {
		out.Headers = append(out.Headers, header("retry-after", after))
	}
	return out
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

func answer(d *policy.Decision) *authv3.DeniedHttpResponse {
	contentType := d.Reply.ContentType
	if contentType == "" {
		contentType = "text/plain"
	}
	return &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.Status)},
		Headers: []*corev3.HeaderValueOption{header("content-type", contentType), header("x-content-type-options", "nosniff")},
		Body:    string(d.Reply.Body),
	}
}

// metadata goes to Envoy's dynamic metadata on every decision: access logs read it, and the outcome log brings the reservation back.
func metadata(d *policy.Decision) *structpb.Struct {
	fields := make(map[string]*structpb.Value, 10)
	add := func(name, value string) {
		if value != "" {
			fields[name] = structpb.NewStringValue(value)
		}
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
	return &structpb.Struct{Fields: fields}
}

// quotable is text of a sender as it may stand in a log or in metadata: at most maxValue bytes of valid UTF-8 without control characters.
func quotable(s string) string {
	if len(s) <= maxValue && printable(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // an invalid byte comes as U+FFFD
		if r < ' ' || (0x7f <= r && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxValue {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
