package store

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// slowly is a connection whose writes wait to be let go.
type slowly struct {
	net.Conn
	mu      sync.Mutex
	writes  [][]byte
	release chan error
	closed  chan struct{}
	once    sync.Once
}

func newSlowly() *slowly { return &slowly{release: make(chan error), closed: make(chan struct{})} }

func (s *slowly) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.writes = append(s.writes, bytes.Clone(p))
	s.mu.Unlock()
	select {
	case err := <-s.release:
		return len(p), err
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *slowly) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowly()
		c := coalesce(s)
		for _, p := range []string{"a", "b", "c", "d"} {
			if n, err := c.Write([]byte(p)); n != 1 || err != nil {
				t.Fatalf("got %d, %v", n, err)
			}
			synctest.Wait()
		}
		s.release <- nil
		synctest.Wait()
		if got := string(bytes.Join(s.writes, []byte("|"))); got != "a|bcd" {
			t.Errorf("got the writes %s, want what came meanwhile in one", got)
		}
		c.Close()
		if _, err := c.Write([]byte("e")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("writing after the end: got %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestCoalesceWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowly()
		c := coalesce(s)
		defer c.Close()
		c.Write([]byte("a"))
		synctest.Wait()
		c.Write(make([]byte, most+1))
		wrote := false
		go func() {
			c.Write([]byte("b"))
			wrote = true
		}()
		synctest.Wait()
		if wrote {
			t.Errorf("%d bytes wait to be written, and one more was taken", len(c.pending))
		}
		s.release <- nil
		synctest.Wait()
		if !wrote {
			t.Error("there is room, and the write still waits")
		}
	})
}

func TestCoalesceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowly()
		c := coalesce(s)
		defer c.Close()
		c.Write([]byte("a"))
		s.release <- io.ErrShortWrite
		<-s.closed // whoever reads learns of it
		if _, err := c.Write([]byte("b")); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("got %v, want the error of the write before", err)
		}
	})
}
