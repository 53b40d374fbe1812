package main

import (
	"bytes"
	"errors"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// verdict is what is read of every CheckResponse: as Envoy has it, the delivery passes if the code is absent or 0.
type verdict struct {
	allowed bool
	reply   []byte // of a denial, to explain it
}

// rawCodec sends requests that are encoded already and reads no more of replies than must be, so that the client's share of the machine is small.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if len(data) == 1 {
		return v.(*verdict).read(data[0].ReadOnlyData())
	}
	return v.(*verdict).read(data.Materialize())
}

var errReply = errors.New("the reply is not a CheckResponse")

// read reads status.code of a CheckResponse.
func (v *verdict) read(reply []byte) error {
	const status, code = 1, 1
	value := uint64(0)
	for rest := reply; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return errReply
		}
		rest = rest[n:]
		if number == status && kind == protowire.BytesType {
			inner, n := protowire.ConsumeBytes(rest)
			if n < 0 {
				return errReply
			}
			rest = rest[n:]
			for len(inner) > 0 {
				number, kind, n := protowire.ConsumeTag(inner)
				if n < 0 {
					return errReply
				}
				inner = inner[n:]
				if number == code && kind == protowire.VarintType {
					value, _ = protowire.ConsumeVarint(inner)
				}
				if n = protowire.ConsumeFieldValue(number, kind, inner); n < 0 {
					return errReply
				}
				inner = inner[n:]
			}
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
			return errReply
		}
		rest = rest[n:]
	}
	v.allowed, v.reply = value == 0, v.reply[:0]
	if !v.allowed {
		v.reply = append(v.reply, reply...)
	}
	return nil
}

// String explains a verdict.
func (v *verdict) String() string {
	if v.allowed {
		return "allowed"
	}
	var r authv3.CheckResponse
	if err := proto.Unmarshal(v.reply, &r); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("denied: %s, status %d", r.GetDynamicMetadata().GetFields()["reason"].GetStringValue(), r.GetDeniedResponse().GetStatus().GetCode())
}

// overloadedReply says whether the server refused the check for its load, and not for what the delivery is.
func (v *verdict) overloaded() bool {
	return bytes.Contains(v.reply, []byte("overloaded")) || bytes.Contains(v.reply, []byte("deadline_exceeded"))
}
