package fetch

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// CertificatesConfig says how certificates are found. Zero values take the defaults.
type CertificatesConfig struct {
	// Client fetches them. Default: one that takes 64 KiB within 5 s and follows no redirect. Close closes it.
	Client *Client
	// Wait bounds how long a caller waits. Default: 1 s, and never more than half of what is left until its own deadline. A fetch goes on
	// without its caller, so that the next one finds what it brings.
	Wait time.Duration
	// Roots are the authorities that a chain must lead to. Default: those of the system.
	Roots *x509.CertPool
	// IssuerHosts are where the certificates of authorities may be fetched from, for senders that publish their own alone: a host, or
	// .example.com for every host below. They come over plain HTTP, as authorities publish them; the chain proves them. Empty: none.
	IssuerHosts []string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Report is told how each fetch went. May be nil.
	Report func(host string, err error)
}

// Certificates finds certificates and keeps them. It is safe for concurrent use.
type Certificates struct {
	config  CertificatesConfig
	ctx     context.Context // of the fetches
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows
	entries  map[string]*certificate
	fetching int
}

// certificate is one document, as far as it is known.
type certificate struct {
	data    []byte
	fetched time.Time     // when data came
	err     error         // of the last attempt
	next    time.Time     // when it is fetched again
	done    chan struct{} // closed at the end of the fetch that is on its way, nil where none is
}

// A certificate is fetched again after a while, and one that was good is used for a day while its server is away. A failure is not asked for
// again at once. What anybody can name in a delivery is bounded: the fetches at a time and what is kept.
const (
	certificateFresh  = 6 * time.Hour
	certificateStale  = 24 * time.Hour
	certificateRetry  = 10 * time.Second
	maxCertificates   = 256
	maxFetches        = 16
	maxCertificate    = 64 << 10
	maxIssuers        = 2
	certificateWait   = time.Second
	certificateLength = 512 // of a URL
)

// Why a certificate cannot be had now.
var (
	ErrBusy    = errors.New("too many certificates are being fetched")
	ErrPending = errors.New("the certificate is still being fetched")
)

// NewCertificates makes an empty store of certificates.
func NewCertificates(c CertificatesConfig) *Certificates {
	if c.Client == nil {
		c.Client = New(Config{Timeout: 5 * time.Second, MaxBytes: maxCertificate, NoRedirects: true})
	}
	if c.Wait <= 0 {
		c.Wait = certificateWait
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	store := &Certificates{config: c, entries: make(map[string]*certificate)}
	store.ctx, store.stop = context.WithCancel(context.Background())
	return store
}

// Close ends every fetch and waits for it.
func (c *Certificates) Close() {
	c.mu.Lock() // no fetch begins after this
	c.stop()
	c.mu.Unlock()
	c.running.Wait()
	c.config.Client.Close()
}

// Certificate is the PEM document at a URL, with the certificates that lead from its first one to a root.
func (c *Certificates) Certificate(ctx context.Context, address string) ([]byte, error) {
	e, data, done, err := c.lookup(address)
	if done == nil {
		return data, err
	}
	wait := c.config.Wait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, ErrPending
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.data != nil {
		return e.data, nil
	}
	return nil, e.err
}

// lookup gives what is known of a certificate or, where nothing is, what to wait for. It starts a fetch where one is due.
func (c *Certificates) lookup(address string) (e *certificate, data []byte, done <-chan struct{}, err error) {
	if len(address) > certificateLength {
		return nil, nil, nil, errors.New("the URL is too long")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	if e = c.entries[address]; e == nil {
		e = &certificate{err: ErrBusy}
	}
	if e.done == nil && !now.Before(e.next) && c.fetching < maxFetches && c.ctx.Err() == nil {
		if c.entries[address] == nil {
			c.makeRoom()
			c.entries[address] = e
		}
		c.fetching++
		e.done = make(chan struct{})
		c.running.Go(func() { c.fetch(address, e) })
	}
	switch {
	case e.data != nil && now.Sub(e.fetched) < certificateStale:
		return e, e.data, nil, nil
	case e.done != nil:
		return e, nil, e.done, nil
	}
	return e, nil, nil, e.err
}

// makeRoom drops an entry where there are too many: one without a certificate, else the one that was fetched first.
func (c *Certificates) makeRoom() {
	if len(c.entries) < maxCertificates {
		return
	}
	victim := ""
	for address, e := range c.entries {
		if e.done == nil && (victim == "" || e.fetched.Before(c.entries[victim].fetched)) {
			victim = address
		}
	}
	delete(c.entries, victim)
}

func (c *Certificates) fetch(address string, e *certificate) {
	data, err := c.config.Client.Get(c.ctx, address)
	if err == nil {
		data, err = c.complete(data)
	}
	c.mu.Lock()
	now := c.config.Now()
	done := e.done
	e.err, e.done = err, nil
	c.fetching--
	if err == nil {
		e.data, e.fetched, e.next = data, now, now.Add(certificateFresh)
	} else {
		e.next = now.Add(certificateRetry)
		if now.Sub(e.fetched) >= certificateStale {
			e.data = nil
		}
	}
	c.mu.Unlock()
	close(done)
	if c.config.Report != nil {
		u, _ := url.Parse(address) // Get has taken it, or has said what is wrong
		host := ""
		if u != nil {
			host = u.Host
		}
		c.config.Report(host, err)
	}
}

// complete adds the certificates of authorities that a document lacks. Whether the first certificate is to be trusted is for others to say:
// this only spares them a chain that cannot be followed.
func (c *Certificates) complete(data []byte) ([]byte, error) {
	var chain []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate: %w", err)
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("the document is not a certificate")
	}
	err := c.leads(chain)
	for range maxIssuers {
		if err == nil {
			break
		}
		issuer, problem := c.issuer(chain[len(chain)-1])
		if problem != nil {
			return nil, fmt.Errorf("%w; %w", err, problem)
		}
		data = append(bytes.TrimRight(slices.Clone(data), "\n"), '\n')
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Raw})...)
		chain = append(chain, issuer)
		err = c.leads(chain)
	}
	return data, err
}

// leads says whether a chain leads to a root. The time does not count here, as far as a moment can be found at which it is good.
func (c *Certificates) leads(chain []*x509.Certificate) error {
	at := c.config.Now()
	if at.After(chain[0].NotAfter) {
		at = chain[0].NotAfter
	}
	if at.Before(chain[0].NotBefore) {
		at = chain[0].NotBefore
	}
	others := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		others.AddCert(certificate)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: c.config.Roots, Intermediates: others, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// issuer fetches the certificate of the authority that signed another, from where that one says it lies.
func (c *Certificates) issuer(certificate *x509.Certificate) (*x509.Certificate, error) {
	for _, address := range certificate.IssuingCertificateURL {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" || u.User != nil || !slices.ContainsFunc(c.config.IssuerHosts, func(allowed string) bool {
			return u.Host == allowed || strings.HasPrefix(allowed, ".") && strings.HasSuffix(u.Host, allowed)
		}) {
			continue
		}
		data, err := c.config.Client.guarded(c.ctx, u.Host, address)
		if err != nil {
			return nil, fmt.Errorf("its authority: %w", err)
		}
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		issuer, err := x509.ParseCertificate(data)
		if err == nil {
			err = certificate.CheckSignatureFrom(issuer)
		}
		if err != nil {
			return nil, fmt.Errorf("the certificate of its authority, from %s: %w", u.Host, err)
		}
		return issuer, nil
	}
	return nil, errors.New("it does not say where the certificate of its authority lies, or nowhere that is known")
}
