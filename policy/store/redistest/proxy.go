package redistest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server, as a network with faults does. Its methods are for any goroutine.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	fault Fault
	eased chan struct{} // closed when the fault changes
	conns map[net.Conn]struct{}
	done  sync.WaitGroup
}

// Fault is what a network does to what is sent through it. The zero value: nothing.
type Fault struct {
	Delay time.Duration // of all that the server says
	Hold  bool          // nothing arrives, and nobody is told
	Cut   bool          // connections end at once
}

// NewProxy listens at a free port of the loopback until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, eased: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.Set(Fault{Cut: true})
		p.done.Wait()
	})
	return p
}

// URL is the proxy as --store takes it.
func (p *Proxy) URL() string { return "redis://" + p.listener.Addr().String() + "/0" }

// Set changes what the network does.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.eased)
	p.eased = make(chan struct{})
	if f.Cut {
		for c := range p.conns {
			c.Close()
		}
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.drop(client, server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, false) })
	both.Go(func() { p.copy(client, server, true) })
	both.Wait()
}

func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.fault.Cut
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// copy passes on what arrives. It ends both directions where one ends.
func (p *Proxy) copy(to, from net.Conn, reply bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.pass(reply) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

// pass waits as the fault in force has it; false: the connection is cut.
func (p *Proxy) pass(reply bool) bool {
	for {
		p.mu.Lock()
		f, eased := p.fault, p.eased
		p.mu.Unlock()
		switch {
		case f.Cut:
			return false
		case f.Hold:
			<-eased
			continue
		case f.Delay > 0 && reply:
			select {
			case <-time.After(f.Delay):
			case <-eased:
				continue
			}
		}
		return true
	}
}
