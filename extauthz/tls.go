package extauthz

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
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
	// ClientNames are the DNS or URI names of which the client's certificate must carry one. Empty: any certificate of ClientCA.
	ClientNames []string
}

// recheck is how long what was read is good without another look at the files.
const recheck = time.Second

// Load reads the files and gives a configuration that follows them. A pair that cannot be used leaves the one before in force and is logged once.
func (f TLSFiles) Load(logger *slog.Logger, now func() time.Time) (*tls.Config, error) {
	c := &certificates{files: f, logger: logger, now: now}
	current, sum, err := f.read()
	if err != nil {
		return nil, err
	}
	c.current, c.sum, c.checked = current, sum, now()
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.get(), nil },
	}, nil
}

// certificates hold the configuration in force.
type certificates struct {
	files  TLSFiles
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // guards what follows
	current *tls.Config
	sum     [sha256.Size]byte
	failed  string
	checked time.Time
}

func (c *certificates) get() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.checked) < recheck {
		return c.current
	}
	c.checked = now
	next, sum, err := c.files.read()
	switch {
	case err != nil && err.Error() != c.failed:
		c.failed = err.Error()
		c.logger.Error("the certificates cannot be used; those before stay in force", "error", err)
	case err == nil && sum != c.sum:
		c.current, c.sum, c.failed = next, sum, ""
		c.logger.Info("certificates read again")
	}
	return c.current
}

func (f TLSFiles) read() (*tls.Config, [sha256.Size]byte, error) {
	fail := func(err error) (*tls.Config, [sha256.Size]byte, error) { return nil, [sha256.Size]byte{}, err }
	sum := sha256.New()
	var parts [3][]byte
	for i, path := range []string{f.Cert, f.Key, f.ClientCA} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fail(fmt.Errorf("reading the TLS files: %w", err))
		}
		parts[i] = data
		fmt.Fprintf(sum, "%d ", len(data))
		sum.Write(data)
	}
	pair, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return fail(fmt.Errorf("the certificate %q and the key %q cannot be used: %w", f.Cert, f.Key, err))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}}
	if f.ClientCA != "" {
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(parts[2]) {
			return fail(fmt.Errorf("the file %q holds no PEM certificate", f.ClientCA))
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.VerifyConnection = f.verifyName
		// A resumed session would not meet authorities and names that were changed since.
		config.SessionTicketsDisabled = true
	}
	return config, [sha256.Size]byte(sum.Sum(nil)), nil
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
