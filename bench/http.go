package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// This is as much of HTTP/1.1 as Envoy speaks to senders and applications that never do anything unexpected. The library's client and server
// would take more of the machine than Envoy.

// readMessage reads a message with a content-length, or without a body, and returns its first line. It does not keep the body.
func readMessage(r *bufio.Reader) (first string, err error) {
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case first == "":
			first = string(line)
		case len(line) == 0:
			_, err := r.Discard(length)
			return first, err
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return "", err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			return "", fmt.Errorf("a message in chunks, want one with content-length: %s", first)
		}
	}
}

// application answers 200 to whatever comes.
type application struct {
	listener net.Listener
	conns    sync.WaitGroup
}

func startApplication() (*application, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &application{listener: l}
	a.conns.Go(a.accept)
	return a, nil
}

func (a *application) accept() {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.conns.Go(func() {
			defer conn.Close()
			r := bufio.NewReaderSize(conn, 64<<10)
			for {
				if _, err := readMessage(r); err != nil {
					return
				}
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
					return
				}
			}
		})
	}
}

// stop ends it. Its callers must have hung up.
func (a *application) stop() {
	a.listener.Close()
	a.conns.Wait()
}

// senders are so many callers of an HTTP server, each with a connection of its own, which want every delivery answered with 200.
func senders(address string, m *message, count int) (callers []caller, hangUp func(), err error) {
	var conns []net.Conn
	hangUp = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range count {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		conns = append(conns, conn)
		m, r := m.clone(), bufio.NewReader(conn)
		callers = append(callers, func(context.Context) (outcome, error) {
			request, err := m.next()
			if err != nil {
				return 0, err
			}
			if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				return 0, err
			}
			if _, err := conn.Write(request); err != nil {
				return 0, err
			}
			status, err := readMessage(r)
			if err == nil && status != "HTTP/1.1 200 OK" {
				err = fmt.Errorf("a delivery got %q", status)
			}
			return asWanted, err
		})
	}
	return callers, hangUp, nil
}
