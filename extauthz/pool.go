package extauthz

import "sync"

// framePool lends the buffers in which data frames are received. It is a mem.BufferPool that does not clear them, as that of grpc-go does
// each time: a frame is read into a buffer as a whole before anybody sees it.
type framePool struct{ small, large sync.Pool }

// The sizes of buffers that are kept: a frame of a small message, and the largest frame that a peer may send.
const (
	smallFrame = 4 << 10
	largeFrame = 16 << 10
)

// of is the pool for buffers of n bytes, and what they hold at the most; nil for sizes that nobody asks for often.
func (p *framePool) of(n int) (pool *sync.Pool, size int) {
	switch {
	case n <= smallFrame:
		return &p.small, smallFrame
	case n <= largeFrame:
		return &p.large, largeFrame
	}
	return nil, n
}

// Get implements mem.BufferPool.
func (p *framePool) Get(n int) *[]byte {
	pool, size := p.of(n)
	if pool != nil {
		if b, ok := pool.Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
	}
	b := make([]byte, n, size)
	return &b
}

// Put implements mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	switch cap(*b) {
	case smallFrame:
		p.small.Put(b)
	case largeFrame:
		p.large.Put(b)
	}
}
