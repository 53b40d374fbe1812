package redistest

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
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
	asked map[string]int
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
	p := &Proxy{listener: l, target: target, eased: make(chan struct{}), conns: make(map[net.Conn]struct{}), asked: make(map[string]int)}
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

// Asked is how often clients have sent a command, such as EVALSHA, whatever became of it.
func (p *Proxy) Asked(command string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[command]
}

// note reads the commands of one client: arrays of bulk strings.
func (p *Proxy) note(from io.Reader) {
	r := bufio.NewReader(from)
	defer io.Copy(io.Discard, r) // what is no command is passed on all the same
	length := func(mark byte) (n int, ok bool) {
		line, err := r.ReadString('\n')
		if err != nil || line[0] != mark {
			return 0, false
		}
		n, err = strconv.Atoi(strings.TrimSpace(line[1:]))
		return n, err == nil
	}
	for {
		words, ok := length('*')
		if !ok {
			return
		}
		for i := range words {
			n, ok := length('$')
			if !ok {
				return
			}
			word := make([]byte, n+len("\r\n"))
			if _, err := io.ReadFull(r, word); err != nil {
				return
			}
			if i == 0 {
				p.mu.Lock()
				p.asked[string(word[:n])]++
				p.mu.Unlock()
			}
		}
	}
}

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
	reader, writer := io.Pipe()
	both.Go(func() { p.note(reader) })
	both.Go(func() {
		defer writer.Close()
		p.copy(io.MultiWriter(writer, server), server, client, false)
	})
	both.Go(func() { p.copy(client, client, server, true) })
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
func (p *Proxy) copy(out io.Writer, to, from net.Conn, reply bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.pass(reply) {
				return
			}
			if _, err := out.Write(buffer[:n]); err != nil {
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
