package extauthz

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// TLSFiles name what secures the listener. They are read again when they change.
type TLSFiles struct {
	Cert, Key string
	// ClientCA holds the authorities that client certificates must come from. Empty: none is asked for.
	ClientCA string
	// Read, if set, is told when certificates that came into force end: the server's, and the first of the authorities.
	Read func(server, authorities time.Time)
	// ClientNames are the DNS or URI names of which the client's certificate must carry one, letter for letter. Empty: any certificate of
	// ClientCA. They need a ClientCA.
	ClientNames []string
	// Protocol is what is spoken above TLS. Default: h2, as gRPC speaks.
	Protocol string
}

// suites are those of TLS 1.2 that keep what was recorded secret when the key leaks later, and that protect the length of what they hide.
// TLS 1.3 has no others.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// secure is what every configuration of the listener has.
func (f TLSFiles) secure() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{cmp.Or(f.Protocol, "h2")}, CipherSuites: suites}
}

// recheck is how long what was read is good without another look at the files.
const recheck = time.Second

// Load reads the files and gives a configuration that follows them: a handshake sees what they held a second ago or later. Files that
// cannot be used leave those before in force and are logged once. Connections that stand are not looked at again; they end with their age.
func (f TLSFiles) Load(logger *slog.Logger, now func() time.Time) (*tls.Config, error) {
	if len(f.ClientNames) > 0 && f.ClientCA == "" {
		return nil, fmt.Errorf("the client names %q need a client CA: without one no certificate is asked for", f.ClientNames)
	}
	if slices.Contains(f.ClientNames, "") {
		return nil, errors.New("a client name is empty; leave the list out to take any certificate of the client CA")
	}
	c := &certificates{files: f, logger: logger, now: now}
	current, err := f.read()
	if err != nil {
		return nil, err
	}
	c.take(current)
	c.checked = now()
	config := f.secure()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.get(), nil }
	return config, nil
}

// certificates hold the configuration in force.
type certificates struct {
	files  TLSFiles
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // guards what follows
	current *material
	failed  string // the error that was logged last; empty once the files are good again
	checked time.Time
}

func (c *certificates) get() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if age := now.Sub(c.checked); age >= 0 && age < recheck { // a clock that was set back does not stop the checks
		return c.current.config
	}
	c.checked = now
	next, err := c.files.read()
	if err != nil {
		if err.Error() != c.failed {
			c.failed = err.Error()
			c.logger.Error("the certificates cannot be used; those before stay in force", "error", err)
		}
		return c.current.config
	}
	c.failed = ""
	if next.sum != c.current.sum {
		c.take(next)
		c.logger.Info("certificates read again")
	}
	return c.current.config
}

func (c *certificates) take(m *material) {
	c.current = m
	if c.files.Read != nil {
		c.files.Read(m.config.Certificates[0].Leaf.NotAfter, m.authoritiesEnd)
	}
}

// material is what the files held.
type material struct {
	config         *tls.Config
	sum            [sha256.Size]byte
	authoritiesEnd time.Time // of the first authority that ends; the zero value where there is none
}

func (f TLSFiles) read() (*material, error) {
	sum := sha256.New()
	var parts [3][]byte
	for i, path := range []string{f.Cert, f.Key, f.ClientCA} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the TLS files: %w", err)
		}
		parts[i] = data
		fmt.Fprintf(sum, "%d ", len(data))
		sum.Write(data)
	}
	pair, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return nil, fmt.Errorf("the certificate %q and the key %q cannot be used: %w", f.Cert, f.Key, err)
	}
	config := f.secure()
	config.Certificates = []tls.Certificate{pair}
	m := &material{config: config, sum: [sha256.Size]byte(sum.Sum(nil))}
	if f.ClientCA != "" {
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(parts[2]) {
			return nil, fmt.Errorf("the file %q holds no PEM certificate", f.ClientCA)
		}
		m.authoritiesEnd = firstEnd(parts[2])
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.VerifyConnection = f.verifyName
		// A resumed session would not meet authorities and names that were changed since.
		config.SessionTicketsDisabled = true
	}
	return m, nil
}

// firstEnd is when the first of the certificates in a PEM file ends.
func firstEnd(file []byte) (end time.Time) {
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && (end.IsZero() || c.NotAfter.Before(end)) {
			end = c.NotAfter
		}
	}
	return end
}

var errClientName = errors.New("the client's certificate carries none of the allowed names")

func (f TLSFiles) verifyName(state tls.ConnectionState) error {
	if len(f.ClientNames) == 0 {
		return nil
	}
	if len(state.PeerCertificates) == 0 {
		return errClientName
	}
	leaf := state.PeerCertificates[0]
	for _, name := range leaf.DNSNames {
		if slices.Contains(f.ClientNames, name) {
			return nil
		}
	}
	for _, uri := range leaf.URIs {
		if slices.Contains(f.ClientNames, uri.String()) {
			return nil
		}
	}
	return errClientName
}
