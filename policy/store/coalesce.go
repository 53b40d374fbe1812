package store

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
)

// coalescing is a connection that writes in the background, and lets every goroutine that is ready to run go first: what they add goes out
// with the same system call. That is the dearest part of a call to the store, and the server answers in batches as it is asked in batches.
type coalescing struct {
	net.Conn
	written sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // something to write, room to write, or err
	pending []byte
	err     error // of writing, for good
}

// most is how many bytes wait to be written before Write waits too.
const most = 1 << 20

func coalesce(c net.Conn) *coalescing {
	w := &coalescing{Conn: c}
	w.changed.L = &w.mu
	w.written.Go(w.run)
	return w
}

func (w *coalescing) run() {
	var batch []byte
	for {
		w.mu.Lock()
		for len(w.pending) == 0 && w.err == nil {
			w.changed.Wait()
		}
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
		batch, w.pending = w.pending, batch[:0]
		err := w.err
		w.changed.Broadcast()
		w.mu.Unlock()
		if err == nil {
			_, err = w.Conn.Write(batch)
		}
		if err != nil {
			w.fail(err)
			return
		}
	}
}

// fail ends the connection, so that whoever waits for an answer learns of it.
func (w *coalescing) fail(err error) error {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
	w.mu.Unlock()
	return w.Conn.Close()
}

// Write takes note of what is to be written. An error is that of an earlier one.
func (w *coalescing) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > most && w.err == nil {
		w.changed.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	if len(w.pending) == 0 {
		w.changed.Broadcast()
	}
	w.pending = append(w.pending, p...)
	return len(p), nil
}

func (w *coalescing) Close() error {
	err := w.fail(net.ErrClosed)
	w.written.Wait()
	return err
}

// dial connects as rueidis does.
func dial(ctx context.Context, address string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	connect := d.DialContext
	if c != nil {
		connect = (&tls.Dialer{NetDialer: d, Config: c}).DialContext
	}
	conn, err := connect(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return coalesce(conn), nil
}
