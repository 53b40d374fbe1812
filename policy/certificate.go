package policy

import (
	"context"
	"errors"
	"strings"

	"github.com/hookauthz/hookauthz/policy/signature"
)

// Certificates finds the certificates that deliveries name by URL.
type Certificates interface {
	// Certificate is the PEM document at an https URL of a sender's own host. It must answer well before the deadline of ctx: a delivery
	// waits for it.
	Certificate(ctx context.Context, url string) ([]byte, error)
}

// certificateVersion is the name of the only version of a webhook whose key comes from a certificate.
const certificateVersion = "certificate"

// bind ties a scheme to the sender's customer that the policy means, and reports whether that can be done.
func (c *compiler) bind() bool {
	w, s := c.webhook, &c.doc.spec.Signature
	bound, faults := w.scheme.With(signature.Parameters{
		Topics:             s.Topics,
		WebhookID:          s.WebhookID,
		UnsignedAttributes: s.AcceptUnsignedBody,
	})
	for _, f := range faults {
		c.fault(strings.TrimSuffix("signature."+f.Field, "."), f.Problem, f.Fix)
	}
	if len(faults) > 0 {
		return false
	}
	w.scheme = bound
	return true
}

// certificateVersions gives a webhook whose key comes from a certificate its only version.
func (c *compiler) certificateVersions() {
	s := &c.doc.spec.Signature
	const fix = "delete it: the key comes from the certificate"
	if len(s.Secrets) > 0 {
		c.fault("signature.secrets", "the scheme "+c.webhook.schemeName+" is verified with the certificate that a delivery names", fix)
	}
	if len(s.PublicKeys) > 0 {
		c.fault("signature.publicKeys", "the scheme "+c.webhook.schemeName+" is verified with the certificate that a delivery names", fix)
	}
	c.webhook.versions = []version{{name: certificateVersion, key: c.webhook.scheme.NewCertificateKey()}}
}

// certificate finds the certificate that the delivery names and takes its key. One that cannot be had, or whose chain cannot be followed, is
// no fault of the sender: it came from the sender's own host.
func (c *check) certificate() Reason {
	if !c.webhook.scheme.NeedsCertificate() {
		return OK
	}
	if c.engine.config.Certificates == nil {
		c.note("certificates are not fetched here")
		return SecretUnavailable
	}
	data, err := c.engine.config.Certificates.Certificate(c.ctx, c.verification.CertificateURL())
	if reason := c.deadline(); reason != OK {
		return reason
	}
	if err == nil {
		err = c.verification.Certify(data, c.engine.config.CertificateRoots, c.request.Time)
	}
	if err == nil {
		return OK
	}
	c.note("the certificate at %s: %v", c.verification.CertificateURL(), err)
	switch {
	case errors.Is(err, signature.ErrCertificateExpired):
		c.d.SecretVersion = certificateVersion
		return SecretExpired
	case errors.Is(err, signature.ErrCertificateName):
		return SignatureMismatch
	}
	return SecretUnavailable
}
