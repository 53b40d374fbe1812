package extauthz

import (
	"bytes"
	"context"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/policy"
)

// verbatim is a client codec that sends bytes as they are.
type verbatim struct{}

func (verbatim) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (verbatim) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}
func (verbatim) Name() string { return "proto" }

// Whatever comes as a CheckRequest, the reply is explicit, and it allows only what the decider allowed.
func FuzzCheck(f *testing.F) {
	for _, m := range []*authv3.CheckRequest{
		{},
		withBody(3),
		{Attributes: &authv3.AttributeContext{
			Source:            &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "::ffff:1.2.3.4"}}}},
			ContextExtensions: map[string]string{endpointExtension: "github"},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Id: "1", Method: "POST", Path: "/p?q", Host: "h", RawBody: []byte("allow"),
				HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
					{Key: partialBodyHeader, RawValue: []byte("false")}, {Key: "X-Hookauthz_Event", RawValue: []byte("\xff")},
					{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {Key: "x-request-id", Value: "r"},
				}},
			}},
		}},
		{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Headers: map[string]string{":authority": "h", partialBodyHeader: "true", "a": "b,c"}, Body: "text",
		}}}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0x0a, 0xff})

	// It says what it is told to by the body, and gives the sender's own words back.
	decider := deciderFunc(func(_ context.Context, r *policy.Request) policy.Decision {
		var body []byte
		if len(r.Body) > 0 {
			body = r.Body[0]
		}
		d := policy.Decision{Endpoint: r.Endpoint, DeliveryID: r.StreamID, DeliveryIDSigned: true, Event: string(body), EventSigned: true, SecretVersion: r.Host}
		switch {
		case bytes.Equal(body, []byte("allow")):
			d.Outcome, d.Reason = policy.Allow, policy.OK
		case len(body) > 3 && body[0] == 1:
			d.Outcome, d.Reason, d.Status = policy.Answer, policy.Handshake, int(body[1])+100
			d.Reply = policy.Reply{ContentType: string(body[2:3]), Body: body[3:]}
		case len(body) > 3 && body[0] == 2:
			d.Outcome, d.Reason, d.Status = policy.Outcome(body[1]%4), policy.Reason(body[2]), int(body[3])
		default:
			d.Reason, d.Status = policy.SignatureMismatch, 401
		}
		return d
	})
	conn := startRig(f, Config{Decider: decider, MaxBody: 64 << 10}).dial(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(authv3.CheckResponse)
		if err := conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, &data, m, grpc.ForceCodecV2(verbatim{})); err != nil {
			t.Fatalf("got the gRPC error %v, want an answer", err)
		}
		allowed := false
		if asked := new(authv3.CheckRequest); proto.Unmarshal(data, asked) == nil {
			d := decider(t.Context(), decodeMessage(t, asked))
			allowed = d.Outcome == policy.Allow && d.Reason.Allows()
		}
		switch {
		case m.GetStatus() == nil:
			t.Fatal("no status: Envoy allows")
		case allowed != (m.GetStatus().GetCode() == 0) || allowed != (m.GetOkResponse() != nil):
			t.Fatalf("reply %v; allowed by the decider: %v", m, allowed)
		case !allowed && m.GetDeniedResponse().GetStatus().GetCode() < 200:
			t.Fatalf("reply %v, want an HTTP status", m)
		}
	})
}
