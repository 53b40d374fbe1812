// Command certs writes the certificates that examples/envoy.yaml and docker-compose.yml name into a folder: a new
// certificate authority, and by it hooks (for senders), hookauthz (its gRPC listener) and envoy (its client certificate).
//
// They are for trying things out. The authority's own key is not kept.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: certs DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
}

// lifetime is short, so that nobody is tempted to serve real senders with these.
const lifetime = 30 * 24 * time.Hour

// leaves are the certificates by the names of their files.
var leaves = []struct {
	name  string
	hosts []string
	usage x509.ExtKeyUsage
}{
	{"hooks", []string{"hooks.example.com", "localhost", "127.0.0.1", "::1"}, x509.ExtKeyUsageServerAuth},
	{"hookauthz", []string{"hookauthz"}, x509.ExtKeyUsageServerAuth},
	{"envoy", []string{"envoy"}, x509.ExtKeyUsageClientAuth},
}

// run writes ca.pem, and NAME.pem and NAME.key for every leaf. Where all of them stand already and are not about to expire, it leaves them
// alone: servers that run with them would not take new ones.
func run(dir string, now time.Time) error {
	if fresh(dir, now) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template(now, "hookauthz example authority")
	ca.IsCA = true
	ca.BasicConstraintsValid = true
	ca.KeyUsage = x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	for _, leaf := range leaves {
		c := template(now, leaf.name)
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{leaf.usage}
		for _, h := range leaf.hosts {
			if ip := net.ParseIP(h); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, h)
			}
		}
		if err := writeLeaf(dir, leaf.name, c, ca, caKey); err != nil {
			return err
		}
	}
	// The authority comes last: fresh looks for it first.
	return write(dir, "ca.pem", 0o644, "CERTIFICATE", caDER)
}

func writeLeaf(dir, name string, c, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The group may read the keys: in docker-compose.yml each server is a user of its own, and all are in one group.
	return errors.Join(write(dir, name+".key", 0o640, "PRIVATE KEY", keyDER), write(dir, name+".pem", 0o644, "CERTIFICATE", der))
}

func template(now time.Time, name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}
}

// write puts the file in its place in one step, so that nobody reads half of it.
func write(dir, name string, mode os.FileMode, kind string, der []byte) error {
	part := filepath.Join(dir, "."+name)
	if err := os.WriteFile(part, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(dir, name))
}

// fresh says whether every certificate is there with its key, made by the authority that is there, and good for another day.
func fresh(dir string, now time.Time) bool {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		return false
	}
	for _, leaf := range leaves {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, leaf.name+".pem"), filepath.Join(dir, leaf.name+".key"))
		if err != nil {
			return false
		}
		o := x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(24 * time.Hour), KeyUsages: []x509.ExtKeyUsage{leaf.usage}}
		if _, err := pair.Leaf.Verify(o); err != nil {
			return false
		}
	}
	return true
}
