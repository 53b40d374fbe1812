package extauthz

import (
	"context"
	"encoding/binary"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/hookauthz/hookauthz/policy"
)

// messageReader is what grpc-go's server stream offers below RecvMsg. RecvMsg itself sends a gRPC error when a message is too large or
// cannot be decoded, before the handler can answer, and takes the whole message into memory before the handler knows its size. The
// type is unexported there, its methods are not; a grpc-go without them fails every call (and every test) here, closed.
type messageReader interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// prefixBytes is what stands before a gRPC message: the compressed flag and the length.
const prefixBytes = 5

// footprint is the memory that a call with a message of n bytes takes: its bytes, its decoded form, and the call itself.
func footprint(n int) int64 { return 2*int64(n) + 32<<10 }

// errTooLarge says that a message is larger than Limits.MessageBytes, errBusy that there was no memory for it in time.
var (
	errTooLarge = errors.New("message is too large")
	errBusy     = errors.New("no memory for the message")
)

// received is a message in the segments in which it came. They go back to grpc-go by free: no view of them may outlive that.
type received struct {
	prefix   [prefixBytes]byte
	parts    mem.BufferSlice
	segments [][]byte
}

func (p *received) free() {
	p.parts.Free()
	p.parts = nil
}

func (p *received) reset() {
	clear(p.segments)
	*p = received{segments: p.segments[:0]}
}

// receive reads the message of a call. Its memory is taken from the budget before a byte of it is read; taken says how much, and that must
// be given back whatever comes of the call, after the message was freed.
func (s *Server) receive(ctx context.Context, taken *int64, into *received) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(messageReader)
	if !ok {
		return errors.New("the gRPC stream cannot be read")
	}
	prefix := into.prefix[:]
	if err := stream.ReadMessageHeader(prefix); err != nil {
		return err
	}
	if prefix[0] != 0 {
		return errors.New("the message is compressed")
	}
	size := binary.BigEndian.Uint32(prefix[1:])
	if int64(size) > int64(s.limits.MessageBytes) {
		return errTooLarge
	}
	n := int(size)
	if bytes := footprint(n); !s.memory.tryTake(bytes) && !s.memory.take(ctx, bytes) {
		return errBusy
	}
	*taken = footprint(n)
	return into.read(stream, n)
}

// read takes a message of n bytes, for which there is memory: where they are more than the stream's window, grpc-go opens it for all of them.
func (p *received) read(stream messageReader, n int) (err error) {
	if p.parts, err = stream.Read(n); err != nil {
		return err
	}
	for _, b := range p.parts {
		p.segments = append(p.segments, b.ReadOnlyData())
	}
	return nil
}

// codec is the codec of protocol buffers, beside which replies of checks are bytes already.
type codec struct{ encoding.CodecV2 }

// encoded is a message that is bytes already. They go back to the pool once they are sent.
type encoded struct {
	bytes *[]byte
	pool  mem.BufferPool
}

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*encoded); ok {
		return mem.BufferSlice{mem.NewBuffer(m.bytes, m.pool)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// unreadable is the decision about a call whose message could not be had.
func unreadable(ctx context.Context, err error) policy.Decision {
	switch {
	case errors.Is(err, errTooLarge):
		return policy.Denied(policy.BodyTooLarge)
	case errors.Is(err, errBusy):
		return policy.Denied(policy.Overloaded)
	case ctx.Err() != nil:
		return policy.Denied(policy.DeadlineExceeded)
	}
	return policy.Denied(policy.InternalError)
}
