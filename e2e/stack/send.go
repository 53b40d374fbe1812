package stack

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Delivery is one request of a sender. What is left out is as an ordinary sender has it.
type Delivery struct {
	Method   string // POST
	Path     string // put on the wire as it stands, with its query
	Host     string // Host
	Headers  []Header
	Body     []byte
	Trailers []Header // only with Chunked
	Chunked  bool
	HTTP2    bool
	From     string // the sender's address: 127.0.0.1
	Listener string // "hooks"
	// Agent is the user-agent, by which the delivery is found in Envoy's log and at the application.
	Agent string
}

// Header is the name and the value of a field, as they are put on the wire.
type Header [2]string

// With is the delivery with more headers, behind its own.
func (d Delivery) With(h ...Header) Delivery {
	d.Headers = slices.Concat(d.Headers, h)
	return d
}

// Reply is what the sender sees.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Send sends a delivery on a connection of its own and reads the whole reply.
func (s *Stack) Send(ctx context.Context, d Delivery) (Reply, error) {
	t := s.Transport(d.HTTP2, d.From)
	defer t.CloseIdleConnections()
	return s.SendBy(ctx, t, d)
}

// SendBy sends a delivery by a transport, which decides about its protocol and the sender's address.
func (s *Stack) SendBy(ctx context.Context, t *http.Transport, d Delivery) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var body io.Reader = bytes.NewReader(d.Body)
	if d.Chunked {
		body = io.MultiReader(body) // of a length that the client does not know
	}
	req, err := http.NewRequestWithContext(ctx, orElse(d.Method, http.MethodPost), "https://"+s.Listeners[orElse(d.Listener, "hooks")], body)
	if err != nil {
		return Reply{}, err
	}
	path, query, _ := strings.Cut(d.Path, "?")
	if req.URL.RawQuery = query; strings.HasPrefix(path, "//") {
		req.URL.Path = path // Opaque would take it for a host
	} else {
		req.URL.Opaque = path // as it stands
	}
	req.Host = orElse(d.Host, Host)
	for _, h := range d.Headers {
		req.Header[h[0]] = append(req.Header[h[0]], h[1])
	}
	for _, h := range d.Trailers {
		if req.Trailer == nil {
			req.Trailer = make(http.Header)
		}
		req.Trailer.Add(h[0], h[1])
	}
	req.Header.Set("User-Agent", d.Agent)
	resp, err := t.RoundTrip(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	r := Reply{Status: resp.StatusCode, Header: resp.Header}
	r.Body, err = io.ReadAll(resp.Body)
	return r, err
}

// Transport connects senders to Envoy from an address of this machine; empty: from any.
func (s *Stack) Transport(http2 bool, from string) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: s.ClientTLS(), Protocols: protocols, DisableCompression: true}
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
