package extauthz

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// cursor reads a message that lies in several segments.
type cursor struct {
	head  []byte   // what is left of the segment in hand; empty only at the end
	rest  [][]byte // the segments behind it
	at    int      // bytes that were read
	size  int      // of the whole message
	depth int      // of groups
	room  []byte   // for copies of short texts
}

// begin sets the cursor to the beginning of a message.
func (c *cursor) begin(segments [][]byte) {
	*c = cursor{rest: segments}
	for _, s := range segments {
		c.size += len(s)
	}
	c.settle()
}

// settle takes the next segment in hand that is not empty, once the last one is used up.
func (c *cursor) settle() {
	for len(c.head) == 0 && len(c.rest) > 0 {
		c.head, c.rest = c.rest[0], c.rest[1:]
	}
}

// fields calls read for every field that is bytes, text or a message, up to end, with the place where the field ends. What read leaves is
// passed over.
func (c *cursor) fields(end int, read func(c *cursor, n protowire.Number, end int) error) error {
	for c.at < end {
		number, kind, err := c.tag(end)
		if err != nil {
			return err
		}
		if kind != protowire.BytesType {
			if err := c.skipValue(number, kind, end); err != nil {
				return err
			}
			continue
		}
		n, err := c.varint(end)
		if err != nil || n > uint64(end-c.at) {
			return errWire
		}
		fieldEnd := c.at + int(n)
		if err := read(c, number, fieldEnd); err != nil {
			return err
		}
		c.skip(fieldEnd)
	}
	return nil
}

func (c *cursor) tag(end int) (protowire.Number, protowire.Type, error) {
	v, err := c.varint(end)
	if err != nil || v>>3 < uint64(protowire.MinValidNumber) || v>>3 > uint64(protowire.MaxValidNumber) {
		return 0, 0, errWire
	}
	number, kind := protowire.DecodeTag(v)
	return number, kind, nil
}

// varint reads a number before end, which the library bounds to ten bytes and 64 bits.
func (c *cursor) varint(end int) (uint64, error) {
	if c.at < end && c.head[0] < 0x80 {
		v := uint64(c.head[0])
		c.skip(c.at + 1)
		return v, nil
	}
	var v uint64
	for shift := uint(0); c.at < end && shift < 70; shift += 7 {
		b := c.head[0]
		c.skip(c.at + 1)
		if shift == 63 && b > 1 {
			return 0, errWire
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, errWire
}

// maxGroups bounds groups within groups, which nobody sends.
const maxGroups = 100

// skipValue passes over a value that is not bytes.
func (c *cursor) skipValue(number protowire.Number, kind protowire.Type, end int) error {
	size := 0
	switch kind {
	case protowire.VarintType:
		_, err := c.varint(end)
		return err
	case protowire.Fixed32Type:
		size = 4
	case protowire.Fixed64Type:
		size = 8
	case protowire.StartGroupType:
		return c.skipGroup(number, end)
	default:
		return errWire
	}
	if size > end-c.at {
		return errWire
	}
	c.skip(c.at + size)
	return nil
}

func (c *cursor) skipGroup(group protowire.Number, end int) error {
	if c.depth++; c.depth > maxGroups {
		return errWire
	}
	defer func() { c.depth-- }()
	for c.at < end {
		number, kind, err := c.tag(end)
		switch {
		case err != nil:
			return err
		case kind == protowire.EndGroupType && number == group:
			return nil
		case kind == protowire.EndGroupType:
			return errWire
		case kind == protowire.BytesType:
			n, err := c.varint(end)
			if err != nil || n > uint64(end-c.at) {
				return errWire
			}
			c.skip(c.at + int(n))
		default:
			if err := c.skipValue(number, kind, end); err != nil {
				return err
			}
		}
	}
	return errWire
}

// skip goes on to a place that is not beyond the end of the message.
func (c *cursor) skip(to int) {
	if n := to - c.at; n < len(c.head) {
		c.head, c.at = c.head[n:], to
		return
	}
	for c.at < to {
		n := min(to-c.at, len(c.head))
		c.head = c.head[n:]
		c.at += n
		c.settle()
	}
}

// bytes is a copy of those up to a place: text that is kept by mistake is only memory, never somebody else's delivery.
func (c *cursor) bytes(to int) []byte {
	b := c.space(to - c.at)
	for c.at < to {
		n := min(to-c.at, len(c.head))
		b = append(b, c.head[:n]...)
		c.skip(c.at + n)
	}
	return b
}

// Short texts share a piece of memory, so that there is one to be collected for a message and not one for each of them.
const (
	shortText = 128
	roomBytes = 512
)

// space is room for n bytes.
func (c *cursor) space(n int) []byte {
	if n > shortText {
		return make([]byte, 0, n)
	}
	if len(c.room) < n {
		c.room = make([]byte, roomBytes)
	}
	b := c.room[:0:n]
	c.room = c.room[n:]
	return b
}

// views appends the bytes up to a place, without a copy, in as many views as there are segments.
func (c *cursor) views(dst [][]byte, to int) [][]byte {
	for c.at < to {
		n := min(to-c.at, len(c.head))
		dst = append(dst, c.head[:n:n])
		c.skip(c.at + n)
	}
	return dst
}
