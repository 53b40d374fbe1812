package main

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

func TestVerdictEqualsTheLibrary(t *testing.T) {
	ok := &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{ResponseHeadersToAdd: nil}}
	denied := &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 401}, Body: "overloaded"}}
	for name, response := range map[string]*authv3.CheckResponse{
		"nothing":             {},
		"ok":                  {Status: &rpcstatus.Status{}, HttpResponse: ok},
		"denied":              {Status: &rpcstatus.Status{Code: 16, Message: "no"}, HttpResponse: denied},
		"denied with code 0":  {Status: &rpcstatus.Status{Message: "Envoy lets it pass"}, HttpResponse: denied},
		"ok with another one": {Status: &rpcstatus.Status{Code: 7}, HttpResponse: ok},
	} {
		data, err := proto.Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{0, len(data) / 2} { // in one piece and in two
			pieces := mem.BufferSlice{mem.SliceBuffer(data)}
			if cut > 0 {
				pieces = mem.BufferSlice{mem.SliceBuffer(data[:cut]), mem.SliceBuffer(data[cut:])}
			}
			var v verdict
			if err := (rawCodec{}).Unmarshal(pieces, &v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if want := response.GetStatus().GetCode() == 0; v.allowed != want {
				t.Errorf("%s: allowed is %v, want %v", name, v.allowed, want)
			}
		}
		var v verdict
		for cut := 1; cut < len(data); cut++ {
			// Cut off, it is a fault or says what it says without the rest; it must not panic, nor allow what the library does not.
			var whole authv3.CheckResponse
			if v.read(data[:cut]) == nil && v.allowed && proto.Unmarshal(data[:cut], &whole) == nil && whole.GetStatus().GetCode() != 0 {
				t.Errorf("%s, cut at %d: allowed", name, cut)
			}
		}
	}
}
