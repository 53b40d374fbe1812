// Package fetch gets small documents over HTTPS, such as address lists and certificates, within bounds: of size, of time, and of how
// often a failing server is asked. What it gets is bytes; what they mean is for others to say.
package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Config says how documents are fetched. Zero values take the defaults.
type Config struct {
	// Timeout bounds one fetch. Default: 10 s.
	Timeout time.Duration
	// MaxBytes bounds one document. Default: 4 MiB.
	MaxBytes int64
	// Roots are the authorities of servers. Default: those of the system.
	Roots *x509.CertPool
	// MaxHosts bounds the number of hosts that a breaker is kept for. Default: 256.
	MaxHosts int
	// NoRedirects takes a redirect for a failure.
	NoRedirects bool
	// DialContext opens connections. Default: as net/http does.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client fetches documents. It is safe for concurrent use.
type Client struct {
	config Config
	http   *http.Client

	mu       sync.Mutex // guards breakers
	breakers map[string]*gobreaker.CircuitBreaker[[]byte]
}

// Why a document cannot be had.
var (
	ErrNotHTTPS = errors.New("the URL is not https")
	ErrTooLarge = errors.New("the document is too large")
	ErrRedirect = errors.New("the server redirects to another host")
	// ErrAway says that the server failed several times and is not asked for a while.
	ErrAway = errors.New("the server failed several times and is left alone for a while")
)

// The breaker of a host opens after this many failures on end, and tries again after this time.
const (
	failuresToOpen = 3
	openFor        = time.Minute
)

// New makes a Client.
func New(c Config) *Client {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 4 << 20
	}
	if c.MaxHosts <= 0 {
		c.MaxHosts = 256
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = c.Roots
	transport.MaxIdleConnsPerHost = 1
	if c.DialContext != nil {
		transport.DialContext = c.DialContext
	}
	return &Client{
		config:   c,
		breakers: make(map[string]*gobreaker.CircuitBreaker[[]byte]),
		http: &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, past []*http.Request) error {
			switch {
			case c.NoRedirects:
				return errors.New("the server redirects")
			case next.URL.Scheme != "https":
				return ErrNotHTTPS
			case next.URL.Host != past[0].URL.Host:
				return ErrRedirect
			case len(past) > 3:
				return errors.New("the server redirects too often")
			}
			return nil
		}},
	}
}

// Get is the document at an https URL.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, ErrNotHTTPS
	}
	return c.guarded(ctx, u.Host, address)
}

// guarded fetches through the breaker of a host.
func (c *Client) guarded(ctx context.Context, host, address string) ([]byte, error) {
	data, err := c.breaker(host).Execute(func() ([]byte, error) { return c.get(ctx, address) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = ErrAway
	}
	if err != nil {
		return nil, fmt.Errorf("fetching from %s: %w", host, err)
	}
	return data, nil
}

func (c *Client) get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "hookauthz")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, cause(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, statusError(response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, c.config.MaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > c.config.MaxBytes:
		return nil, ErrTooLarge
	}
	return data, nil
}

// statusError is an answer other than 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the server answered %d", int(e)) }

// wellAnswered says whether a server is well although the document is not to be had: it does not know it, or does not give it out. Whoever
// can choose what is asked for must not be able to have a server left alone.
func wellAnswered(err error) bool {
	var status statusError
	return errors.As(err, &status) && status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
}

// cause drops the URL that net/http puts around its errors: it may hold a key.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// breaker is the circuit breaker of a host. A caller that gave up says nothing about the server.
func (c *Client) breaker(host string) *gobreaker.CircuitBreaker[[]byte] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.breakers[host]; ok {
		return b
	}
	if len(c.breakers) >= c.config.MaxHosts {
		for other := range c.breakers { // any: hosts come from policy files and from patterns of a provider
			delete(c.breakers, other)
			break
		}
	}
	b := gobreaker.NewCircuitBreaker[[]byte](gobreaker.Settings{
		Name:         host,
		Timeout:      openFor,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= failuresToOpen },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, context.Canceled) || wellAnswered(err) },
	})
	c.breakers[host] = b
	return b
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
