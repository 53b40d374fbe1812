package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// secured speaks TLS for a server, with a certificate for these names. It returns the port, and who vouches for the certificate.
func secured(t *testing.T, s *redistest.Server, names ...string) (port string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: names, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authority = x509.NewCertPool()
	authority.AddCert(cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", s.Address())
				if err != nil {
					return
				}
				defer server.Close()
				conns.Go(func() { io.Copy(server, client); server.Close() })
				io.Copy(client, server)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, authority
}

func TestRedisTLS(t *testing.T) {
	s := redistest.Start(t)
	good, authority := secured(t, s, "localhost")
	other, _ := secured(t, s, "localhost")
	misnamed, itsAuthority := secured(t, s, "elsewhere.example.com")
	tests := []struct {
		name, port string
		trusts     *x509.CertPool
		want       string
	}{
		{"a certificate of the authority", good, authority, ""},
		{"of an authority that the system does not know", good, nil, "x509:"},
		{"of another authority", other, authority, "x509:"},
		{"for another name", misnamed, itsAuthority, "x509:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := store.ParseRedisURL("rediss://localhost:" + tt.port)
			if err != nil {
				t.Fatal(err)
			}
			c.TLS.RootCAs = tt.trusts
			r := store.NewRedis(c)
			defer r.Close()
			err = r.Connect(within(t, 5*time.Second))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Take(within(t, time.Second), delivery(1)); err != nil {
					t.Error(err)
				}
				return
			}
			var refused *store.Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(refused.Fix, "--store-ca") {
				t.Errorf("got %v (%+v), want %s", err, refused, tt.want)
			}
		})
	}
}
