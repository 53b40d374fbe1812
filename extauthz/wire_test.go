package extauthz

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
)

// The same by the library of protocol buffers: an oracle for the hand-written reading and writing.

// typedDecode reads a CheckRequest, whatever its shape. Strings and body are views of the message. Time is left to the caller.
func typedDecode(m *authv3.CheckRequest) *policy.Request {
	attributes := m.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	r := &policy.Request{
		StreamID: http.GetId(),
		Method:   http.GetMethod(),
		Host:     http.GetHost(),
		Path:     http.GetPath(),
		Peer:     typedPeer(attributes.GetSource().GetAddress()),
	}
	r.Endpoint, r.Named = attributes.GetContextExtensions()[endpointExtension]
	r.Headers, r.Merged = typedHeaders(http)
	r.RequestID = requestID(r.Headers)
	if r.Host == "" {
		r.Host, _ = only(r.Headers, ":authority")
	}
	typedBody(r, http)
	return r
}

func typedPeer(a *corev3.Address) netip.Addr {
	address, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil || address.Zone() != "" {
		return netip.Addr{}
	}
	return address.Unmap()
}

// typedHeaders takes the list, in which repeats stay apart and values are raw, or else the map, in which Envoy merged them.
func typedHeaders(http *authv3.AttributeContext_HttpRequest) (list []policy.Header, merged bool) {
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

// typedBody takes the bytes and what is known of them. Only Envoy's own word that nothing was cut makes them whole. Bytes and a text at once
// are nothing that Envoy sends.
func typedBody(r *policy.Request, http *authv3.AttributeContext_HttpRequest) {
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

// typedRespond builds a CheckResponse. Envoy allows whatever has no status or status 0, so only a decision that is
// wholly an allow gets one; everything else, the impossible too, is denied with its HTTP status.
func typedRespond(d *policy.Decision, r *policy.Request) *authv3.CheckResponse {
	safe := checked(*d)
	response := &authv3.CheckResponse{DynamicMetadata: typedMetadata(&safe)}
	switch safe.Outcome {
	case policy.Allow:
		response.Status = &status.Status{Code: int32(codes.OK)}
		response.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: typedForward(&safe, r)}
	case policy.Answer:
		response.Status = &status.Status{Code: int32(codes.PermissionDenied)}
		response.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: typedAnswer(&safe)}
	default:
		response.Status = &status.Status{Code: int32(codes.PermissionDenied)}
		response.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: typedDeny(&safe, r.RequestID)}
	}
	return response
}

// forward sets our headers on the request and removes what a client sent under their names.
func typedForward(d *policy.Decision, r *policy.Request) *authv3.OkHttpResponse {
	out := &authv3.OkHttpResponse{}
	set := make(map[string]bool, len(ourHeaders))
	add := func(name, value string) {
		if value == "" || len(value) > maxValue || !printable(value) {
			return
		}
		set[name] = true
		out.Headers = append(out.Headers, typedHeader(name, value))
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
	out.HeadersToRemove = typedRemovals(set, r.Headers)
	return out
}

// removals are our names that are not set, in both of their usual spellings, and every other spelling that the request carries. Envoy
// removes after it sets: a name that is set is never among them.
func typedRemovals(set map[string]bool, request []policy.Header) []string {
	out := make([]string, 0, 2*len(ourHeaders))
	for _, name := range ourHeaders {
		if !set[name] {
			out = append(out, name)
		}
		out = append(out, strings.ReplaceAll(name, "-", "_"))
	}
	for _, h := range request {
		if plain := betweenWords.ReplaceAllString(h.Name, "-"); slices.Contains(ourHeaders[:], plain) && plain != h.Name && !slices.Contains(out, h.Name) {
			out = append(out, h.Name)
		}
	}
	return out
}

var betweenWords = regexp.MustCompile(`[^a-z0-9]`)

// header sets one header. A raw_value would arrive empty. Both fields say "overwrite": Envoy's reading of either alone has changed.
func typedHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value},
		//lint:ignore SA1019 Envoys before 1.37 read it
		Append:       wrapperspb.Bool(false),
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// typedError is what a sender learns of a denial.
type typedError struct {
	Error     string `json:"error"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
}

func typedDeny(d *policy.Decision, requestID string) *authv3.DeniedHttpResponse {
	reason, code := d.Reason, d.Status
	// The text is of our own making and always encodes.
	body, _ := json.Marshal(typedError{reason.Code(), reason.Message(), requestID})
	out := &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(code)},
		Headers: []*corev3.HeaderValueOption{typedHeader("content-type", "application/json")},
		Body:    string(body),
	}
	if after := retryAfter(code, d.RetryAfter); after != "" {
		out.Headers = append(out.Headers, typedHeader("retry-after", after))
	}
	return out
}

func typedAnswer(d *policy.Decision) *authv3.DeniedHttpResponse {
	contentType := d.Reply.ContentType
	if contentType == "" {
		contentType = "text/plain"
	}
	return &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.Status)},
		Headers: []*corev3.HeaderValueOption{typedHeader("content-type", contentType), typedHeader("x-content-type-options", "nosniff")},
		Body:    string(d.Reply.Body),
	}
}

// typedMetadata goes to Envoy's dynamic metadata on every decision: access logs read it, and the outcome log brings the reservation back.
func typedMetadata(d *policy.Decision) *structpb.Struct {
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

// fataler is a test, or a check of rapid.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// decodeMessage is what decode makes of a message, which the library has encoded.
func decodeMessage(t fataler, m *authv3.CheckRequest) *policy.Request {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := new(policy.Request)
	if err := new(decoder).decode([][]byte{data}, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// respondMessage is the reply as the library reads it.
func respondMessage(t fataler, d *policy.Decision, r *policy.Request) *authv3.CheckResponse {
	t.Helper()
	m := new(authv3.CheckResponse)
	if err := proto.Unmarshal(respond(nil, d, r), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// split cuts a message into segments: none, one and many bytes long.
func split(data []byte) [][]byte {
	segments := [][]byte{{}}
	for n := 1; len(data) > 0; n = n*3%17 + 1 {
		cut := min(n, len(data))
		segments = append(segments, slices.Clone(data[:cut]))
		if n%5 == 0 {
			segments = append(segments, nil)
		}
		data = data[cut:]
	}
	return segments
}

// sortHeaders makes merged headers comparable: a map has no order.
func sortHeaders(r *policy.Request) {
	if r.Merged {
		slices.SortFunc(r.Headers, func(a, b policy.Header) int { return strings.Compare(a.Name+"="+a.Value, b.Name+"="+b.Value) })
	}
	if len(r.Headers) == 0 {
		r.Headers = nil
	}
}

// FuzzDecodeEqualsTheLibrary holds decode against the library: what the library reads, decode reads alike; what decode refuses, the library refuses.
func FuzzDecodeEqualsTheLibrary(f *testing.F) {
	for _, m := range []*authv3.CheckRequest{
		{},
		{Attributes: &authv3.AttributeContext{
			Source:            &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"}}}},
			ContextExtensions: map[string]string{"hookauthz.endpoint": "a", "b": "c"},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Id: "1", Method: "POST", Path: "/a?b", Host: "h", RawBody: []byte("{}"),
				Headers:   map[string]string{"A": "1", "a": "2", "x-envoy-auth-partial-body": "false"},
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "X-Sig", RawValue: []byte("\xff")}, {Key: "x-request-id", Value: "r"}}}}},
		}},
		{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Body: "text", Headers: map[string]string{"x-envoy-auth-partial-body": "false"}}}}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(data, data...)) // messages merge
	}
	for _, data := range recorded(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { equalsTheLibrary(t, data) })
}

// equalsTheLibrary reads a message in segments, with a decoder that has read another one before.
func equalsTheLibrary(t fataler, data []byte) {
	t.Helper()
	var m authv3.CheckRequest
	wanted := proto.Unmarshal(data, &m)
	d := new(decoder)
	if err := d.decode(split(usedBefore), new(policy.Request)); err != nil {
		t.Fatal(err)
	}
	d.reset()
	var got policy.Request
	err := d.decode(split(data), &got)
	if wanted != nil {
		return // decode may pass over what it does not need
	}
	if err != nil {
		t.Fatal("refused what is well-formed:", err)
	}
	want := typedDecode(&m)
	sortHeaders(&got)
	sortHeaders(want)
	if len(got.Body) > 0 {
		got.Body = [][]byte{slices.Concat(got.Body...)}
	}
	if diff := cmp.Diff(*want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Fatal("request (-library +decode):\n" + diff)
	}
}

// usedBefore is a message that leaves something in every place of a decoder.
var usedBefore = func() []byte {
	m := (&delivery{extension: map[string]string{endpointExtension: "before"}, peer: "192.0.2.99", id: "before", method: "PUT", host: "before", path: "/before",
		headers: []policy.Header{{Name: "x-request-id", Value: "before"}, {Name: "x-before", Value: strings.Repeat("b", 300)}}, body: []byte("before")}).request(false)
	m.Attributes.Request.Http.Headers, m.Attributes.Request.Http.Body = map[string]string{"x-before": "before"}, "before"
	data, _ := proto.Marshal(m)
	return data
}()

// recorded are checks as Envoy 1.40 sent them; the end-to-end test TestRecord writes them.
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/envoy/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatal("no recorded checks: ", err)
	}
	out := make(map[string][]byte)
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(name), ".bin")] = data
	}
	return out
}

// What Envoy sends is read as the library reads it, and every way to cut it short is survived.
func TestDecodeWhatEnvoySends(t *testing.T) {
	states := map[string]policy.BodyState{"no-body": policy.NoBody, "empty": policy.NoBody, "partial": policy.PartialBody, "text": policy.TextBody}
	for name, data := range recorded(t) {
		t.Run(name, func(t *testing.T) {
			equalsTheLibrary(t, data)
			for cut := range min(len(data), 6000) {
				equalsTheLibrary(t, data[:cut])
			}
			r := new(policy.Request)
			if err := new(decoder).decode([][]byte{data}, r); err != nil {
				t.Fatal(err)
			}
			want, listed := states[name]
			if !listed {
				want = policy.WholeBody
			}
			if r.BodyState != want || r.Endpoint != "raw" || r.Merged != (name == "merged") || !r.Peer.IsLoopback() {
				t.Errorf("got body state %d, endpoint %q, merged %v, peer %v", r.BodyState, r.Endpoint, r.Merged, r.Peer)
			}
		})
	}
}

// wireMessage draws a message of fields that are known and unknown, once and repeated, in every wire type.
func wireMessage(t *rapid.T, depth int) []byte {
	var b []byte
	for range rapid.IntRange(0, 5).Draw(t, "fields") {
		number := rapid.OneOf(rapid.Int32Range(1, 14), rapid.SampledFrom([]int32{1, 1, 2, 4, 4, 10, 13, 15, 16, 1 << 20})).Draw(t, "number")
		n := protowire.Number(number)
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), rapid.Uint64().Draw(t, "varint"))
		case 1:
			b = protowire.AppendFixed32(protowire.AppendTag(b, n, protowire.Fixed32Type), 7)
		case 2:
			b = protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), 7)
		case 3:
			b = protowire.AppendTag(b, n, protowire.StartGroupType)
			if depth > 0 {
				b = append(b, wireMessage(t, depth-1)...)
			}
			b = protowire.AppendTag(b, n, protowire.EndGroupType)
		case 4:
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), rapid.SampledFrom([]string{"", "POST", "hookauthz.endpoint", "x-envoy-auth-partial-body",
				"false", "192.0.2.1", ":authority", "X-A", "\xff", strings.Repeat("t", 130)}).Draw(t, "text"))
		default:
			var inner []byte
			if depth > 0 {
				inner = wireMessage(t, depth-1)
			}
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), inner)
		}
	}
	return b
}

// Any fields in any order are read as the library reads them: the last of a text wins, messages merge, what is unknown is passed over.
func TestDecodeOfAnyFieldsEqualsTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := wireMessage(t, 6)
		if rapid.Bool().Draw(t, "in the request") { // where nearly all is read
			for range rapid.IntRange(0, 8).Draw(t, "texts") {
				n := rapid.SampledFrom([]protowire.Number{httpID, httpMethod, httpPath, httpHost, httpBody, httpRawBody}).Draw(t, "number")
				data = protowire.AppendString(protowire.AppendTag(data, n, protowire.BytesType), rapid.SampledFrom([]string{"", "a", "b", strings.Repeat("t", 130)}).Draw(t, "text"))
			}
			for _, n := range []protowire.Number{requestHTTP, attributesRequest, checkAttributes} {
				data = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), data)
			}
		}
		if cut := rapid.IntRange(0, 3*len(data)).Draw(t, "cut"); cut < len(data) {
			data = data[:cut]
		}
		equalsTheLibrary(t, data)
	})
}

// Text that is not UTF-8 is refused where the library refuses it.
func TestDecodeRefusesInvalidText(t *testing.T) {
	for _, m := range []*authv3.AttributeContext_HttpRequest{
		{Id: "\xff"}, {Method: "\xff"}, {Path: "\xff"}, {Host: "\xff"}, {Body: "\xff"}, {Headers: map[string]string{"a": "\xff"}}, {Headers: map[string]string{"\xff": "a"}},
		{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "\xff"}}}}, {HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "a", Value: "\xff"}}}},
	} {
		valid := proto.Clone(m)
		data := invalidText(t, valid)
		if err := new(decoder).decode([][]byte{data}, new(policy.Request)); err == nil {
			t.Errorf("%q was taken", m)
		}
		if proto.Unmarshal(data, new(authv3.CheckRequest)) == nil {
			t.Errorf("the library takes %q", m)
		}
	}
	if err := new(decoder).decode([][]byte{{0x0a, 0x05}, {0x01}}, new(policy.Request)); err == nil {
		t.Error("a cut message was taken")
	}
}

// invalidText encodes a message in which every "\xff" stands for itself, which the library does not do.
func invalidText(t *testing.T, http proto.Message) []byte {
	t.Helper()
	const mark = "\u0001"
	m := http.(*authv3.AttributeContext_HttpRequest)
	replace := func(s string) string { return strings.ReplaceAll(s, "\xff", mark) }
	m.Id, m.Method, m.Path, m.Host, m.Body = replace(m.Id), replace(m.Method), replace(m.Path), replace(m.Host), replace(m.Body)
	headers := map[string]string{}
	for k, v := range m.Headers {
		headers[replace(k)] = replace(v)
	}
	m.Headers = headers
	for _, h := range m.GetHeaderMap().GetHeaders() {
		h.Key, h.Value = replace(h.Key), replace(h.Value)
	}
	data, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: m}}})
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(data), mark)
	if at < 0 {
		t.Fatal("no mark")
	}
	data[at] = 0xff
	return data
}

// What respond writes is what the library reads of the same reply made from its own types.
func TestRespondEqualsTheLibrary(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringMatching(`[a-z-]{1,300}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	name := rapid.OneOf(rapid.SampledFrom([]string{"x-hookauthz_endpoint", "x_hookauthz-event", "x.hookauthz.event", "x-hookauthz~endpoint", "x-hookauthz!event!", "x-hookauthz", "x_hookauthz_scheme", "x-hookauthz-scheme", "a_b-c"}), text)
	rapid.Check(t, func(t *rapid.T) {
		d := policy.Decision{
			Outcome: policy.Outcome(rapid.IntRange(0, 3).Draw(t, "outcome")), Reason: policy.Reason(rapid.IntRange(0, 36).Draw(t, "reason")),
			Shadow: policy.Reason(rapid.IntRange(0, 36).Draw(t, "shadow")), Status: rapid.SampledFrom([]int{0, 200, 204, 401, 403, 404, 409, 413, 429, 500, 503}).Draw(t, "status"),
			RetryAfter: 1e6 * 1000 * 1, Endpoint: text.Draw(t, "endpoint"), Scheme: text.Draw(t, "scheme"), SecretVersion: text.Draw(t, "version"),
			DeliveryID: text.Draw(t, "id"), DeliveryIDSigned: rapid.Bool().Draw(t, "idSigned"), Event: text.Draw(t, "event"), EventSigned: rapid.Bool().Draw(t, "eventSigned"),
			Duplicate: rapid.Bool().Draw(t, "duplicate"), Degraded: rapid.Bool().Draw(t, "degraded"), Reservation: text.Draw(t, "reservation"), Revision: text.Draw(t, "revision"),
			Reply: policy.Reply{ContentType: text.Draw(t, "type"), Body: []byte(text.Draw(t, "body"))},
		}
		r := policy.Request{RequestID: rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[ -~]{0,40}`), rapid.Just(`<"a&b\\c">`)).Draw(t, "requestID")}
		for range rapid.IntRange(0, 4).Draw(t, "headers") {
			h := strings.ToValidUTF8(name.Draw(t, "name"), "")
			r.Headers = append(r.Headers, policy.Header{Name: h, Value: "v"})
		}
		var got authv3.CheckResponse
		if err := proto.Unmarshal(respond(nil, &d, &r), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(typedRespond(&d, &r), &got, protocmp.Transform()); diff != "" {
			t.Errorf("reply (-library +respond):\n%s", diff)
		}
	})
}
