package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// sendRaw writes bytes to a listener over TLS and reads what comes back until the connection is closed, or answered by one response.
func sendRaw(t *testing.T, s *stack.Stack, listener, text string) *http.Response {
	t.Helper()
	conn := dialTLS(t, s, listener)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return readResponse(t, conn)
}

func dialTLS(t *testing.T, s *stack.Stack, listener string) *tls.Conn {
	t.Helper()
	config := s.ClientTLS()
	config.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", s.Listeners[listener], config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// readResponse reads one response, whatever the connection holds behind it.
func readResponse(t *testing.T, conn io.Reader) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusContinue {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	resp.Body.Close()
	return resp
}

// sendHTTP2 sends one HTTP/2 request made of frames, which no HTTP library would send, and returns the status of the reply; 0 where the
// stream or the connection was ended instead.
func sendHTTP2(t *testing.T, s *stack.Stack, listener string, fields []header, body string) int {
	t.Helper()
	config := s.ClientTLS()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.Listeners[listener], config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, []byte(body))); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(f.PseudoValue("status"))
			if err != nil {
				t.Fatal(err)
			}
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}
