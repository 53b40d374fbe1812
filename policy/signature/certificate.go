package signature

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Parameters are what a policy must say of a sender whose certificates are anybody's: which of its customers is meant.
type Parameters struct {
	// Topics are the ARNs of the Amazon SNS topics whose messages are taken. Whoever has a topic has messages signed with the same certificates.
	Topics []string
	// UnsignedAttributes takes SNS messages with MessageAttributes, which Amazon does not sign.
	UnsignedAttributes bool
	// WebhookID is the id that the sender gave to the webhook.
	WebhookID string
}

// certificates is a family of certificates: where a delivery names one, and which are the sender's.
type certificates struct {
	in string
	// url says whether a delivery may name this URL. Nothing but an https URL of the sender's own host ever may.
	url func(v *Verification, url string) bool
	// names are the DNS names of which the certificate from this URL must have one.
	names func(url string) []string
	part  partKind // what the scheme must sign for the URL to be tied to the policy
}

const (
	paypalHost        = "api.paypal.com"
	paypalSandboxHost = "api.sandbox.paypal.com"
)

var certificateFamilies = map[string]*certificates{
	"aws-sns": {
		in: "json:SigningCertURL",
		url: func(v *Verification, url string) bool {
			return v.readSNS() && snsCertificateURL(url, v.sns.text(snsTopicArn))
		},
		names: snsCertificateNames,
		part:  snsPart,
	},
	"paypal": {
		in:    "header:PAYPAL-CERT-URL",
		url:   func(_ *Verification, url string) bool { return paypalCertificateURL(url, paypalHost) },
		names: func(string) []string { return []string{"messageverificationcerts.paypal.com"} },
		part:  webhookIDPart,
	},
	"paypal-sandbox": {
		in:  "header:PAYPAL-CERT-URL",
		url: func(_ *Verification, url string) bool { return paypalCertificateURL(url, paypalSandboxHost) },
		names: func(string) []string {
			return []string{"messageverificationcerts.sandbox.paypal.com", "messageverificationcerts.paypal.com"}
		},
		part: webhookIDPart,
	},
}

func (c *compiler) certificates() {
	s, name := c.scheme, c.scheme.spec.Certificate
	family := certificateFamilies[name]
	for i, t := range s.templates {
		for _, kind := range []partKind{snsPart, webhookIDPart} {
			switch has := t.has(kind); {
			case has && (family == nil || family.part != kind):
				c.fault(index("sign", i), "{aws-sns} and {webhookID} have no place here", "write certificate: aws-sns for {aws-sns}, and paypal for {webhookID}")
			case !has && family != nil && family.part == kind:
				c.fault(index("sign", i), fmt.Sprintf("nothing ties the certificates of %s to this webhook", name), "write {aws-sns} or {webhookID} in sign, as the preset does")
			}
		}
	}
	switch {
	case name == "":
		return
	case family == nil:
		c.fault("certificate", fmt.Sprintf("no certificates are named %q", clip(name)), "write one of "+strings.Join(slices.Sorted(maps.Keys(certificateFamilies)), ", "))
		return
	case s.alg.signer != rsaSigner:
		c.fault("alg", fmt.Sprintf("the certificates of %s hold RSA keys", name), "write rsa-sha256 or rsa-sha1")
	}
	s.certificates = family
	s.certificateURL, _ = c.field("certificate", family.in)
}

// NeedsCertificate says that the key comes from a certificate that each delivery names. CertificateURL tells which, Certify takes it.
func (s *Scheme) NeedsCertificate() bool { return s.certificates != nil }

// NeedsTopics says that Parameters.Topics must be given.
func (s *Scheme) NeedsTopics() bool { return s.certificates != nil && s.certificates.part == snsPart }

// NeedsWebhookID says that Parameters.WebhookID must be given.
func (s *Scheme) NeedsWebhookID() bool {
	return s.certificates != nil && s.certificates.part == webhookIDPart
}

var webhookIDForm = regexp.MustCompile(`^[A-Za-z0-9]{1,50}$`)

// With is the scheme for one customer of the sender. Without its parameters a scheme that needs them takes no delivery. The faults name
// the fields topics, topics[0] and so on, and webhookID.
func (s *Scheme) With(p Parameters) (*Scheme, []Fault) {
	var faults []Fault
	fault := func(field, problem, fix string) { faults = append(faults, Fault{field, problem, fix}) }
	const topicForm = "arn:aws:sns:eu-west-1:123456789012:name"
	switch {
	case s.NeedsTopics() && len(p.Topics) == 0:
		fault("", fmt.Sprintf("the scheme %s needs the topics whose messages are meant: anybody can have one", s.shown()), "write topics: ["+topicForm+"]")
	case !s.NeedsTopics() && len(p.Topics) > 0:
		fault("topics", fmt.Sprintf("the scheme %s has no topics", s.shown()), "delete topics")
	case len(p.Topics) > maxTopics:
		fault("topics", fmt.Sprintf("%d topics are more than %d", len(p.Topics), maxTopics), "write a second policy")
	}
	for i, topic := range p.Topics {
		if _, ok := parseTopic(topic); s.NeedsTopics() && !ok {
			fault(index("topics", i), fmt.Sprintf("%q is not the ARN of an SNS topic", clip(topic)), "write it in full, as "+topicForm)
		}
	}
	switch {
	case s.NeedsWebhookID() && p.WebhookID == "":
		fault("", fmt.Sprintf("the scheme %s needs the id of the webhook, which is signed", s.shown()), "write webhookID: with the id that the sender shows for the webhook")
	case !s.NeedsWebhookID() && p.WebhookID != "":
		fault("webhookID", fmt.Sprintf("the scheme %s has no webhook id", s.shown()), "delete webhookID")
	case s.NeedsWebhookID() && !webhookIDForm.MatchString(p.WebhookID):
		fault("webhookID", fmt.Sprintf("%q is not the id of a webhook", clip(p.WebhookID)), "write letters and digits, as the sender shows it")
	}
	if len(faults) > 0 {
		return nil, faults
	}
	if len(p.Topics) == 0 && !p.UnsignedAttributes && p.WebhookID == "" {
		return s, nil // thousands of policies share it
	}
	bound := *s
	bound.parameters = Parameters{Topics: slices.Clone(p.Topics), UnsignedAttributes: p.UnsignedAttributes, WebhookID: p.WebhookID}
	return &bound, nil
}

// NewCertificateKey stands for the key of whatever certificate a delivery names. It matches nothing until Certify has taken one.
func (s *Scheme) NewCertificateKey() *Key { return &Key{family: publicKeyFamily} }

// namesCertificate reads the certificate's URL. It refuses every one that is not the sender's own.
func (v *Verification) namesCertificate() bool {
	s := v.scheme
	if s.NeedsWebhookID() && s.parameters.WebhookID == "" {
		return false
	}
	url, state := v.field(s.certificateURL)
	if state != present || !s.certificates.url(v, url) {
		return false
	}
	v.certificateURL = url
	return true
}

// CertificateURL is where the certificate lies that the delivery names, once Parse has found nothing wrong: an https URL of a host that the
// sender owns and the scheme knows.
func (v *Verification) CertificateURL() string { return v.certificateURL }

// Why a certificate is not taken, where it is clear that waiting does not help.
var (
	ErrCertificateExpired = errors.New("the certificate is not valid at this time")
	ErrCertificateName    = errors.New("the certificate is not the sender's")
)

// maxChain bounds the certificates of one document.
const maxChain = 8

// minCertificateBits is the shortest RSA key of a certificate.
const minCertificateBits = 2048

// Certify takes the certificate that was found at CertificateURL: PEM, the sender's first, then those that lead to a root. It checks the
// chain, the name, and the time at which the delivery is decided; roots nil means those of the system. After it Matches uses its key. data is
// kept and must not change: the next delivery that comes with it is spared the check.
func (v *Verification) Certify(data []byte, roots *x509.CertPool, at time.Time) error {
	v.certified = nil
	if v.scheme == nil || v.scheme.certificates == nil || v.certificateURL == "" {
		return errors.New("the delivery names no certificate")
	}
	if v.taken.covers(data, roots, v.certificateURL, v.scheme.certificates, at) {
		v.certified = v.taken.key
		return nil
	}
	leaf, others, err := parseCertificates(data)
	if err != nil {
		return err
	}
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	switch {
	case leaf.IsCA:
		return fmt.Errorf("%w: it is an authority's", ErrCertificateName)
	case !ok || key.N.BitLen() < minCertificateBits:
		return fmt.Errorf("%w: it holds no RSA key of %d bits or more", ErrCertificateName, minCertificateBits)
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("%w: its key is not for signatures", ErrCertificateName)
	case at.Before(leaf.NotBefore) || at.After(leaf.NotAfter):
		return ErrCertificateExpired
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: at})
	if err != nil {
		return fmt.Errorf("checking the certificate: %w", err)
	}
	// Names are compared whole: a wildcard is not the sender's signing certificate.
	names := v.scheme.certificates.names(v.certificateURL)
	if !slices.ContainsFunc(leaf.DNSNames, func(name string) bool { return slices.Contains(names, strings.ToLower(name)) }) {
		return fmt.Errorf("%w: it is for none of %s", ErrCertificateName, strings.Join(names, ", "))
	}
	v.certified = key
	v.taken = takenCertificate{data: data, roots: roots, url: v.certificateURL, family: v.scheme.certificates, key: key}
	v.taken.from, v.taken.until = validity(chains[0])
	return nil
}

// takenCertificate is the certificate that a Verification took last. Checking a chain costs ten times as much as checking a signature, and
// most deliveries name the same one.
type takenCertificate struct {
	data        []byte // as it was given: the same bytes at the same place
	roots       *x509.CertPool
	url         string
	family      *certificates
	key         *rsa.PublicKey
	from, until time.Time // when the whole chain is valid
}

// covers says whether the check of this document would end as it did.
func (t *takenCertificate) covers(data []byte, roots *x509.CertPool, url string, family *certificates, at time.Time) bool {
	return t.key != nil && len(data) > 0 && len(data) == len(t.data) && &data[0] == &t.data[0] && roots == t.roots && url == t.url && family == t.family &&
		!at.Before(t.from) && !at.After(t.until)
}

// validity is the time in which every certificate of a chain is valid.
func validity(chain []*x509.Certificate) (from, until time.Time) {
	from, until = chain[0].NotBefore, chain[0].NotAfter
	for _, certificate := range chain[1:] {
		if certificate.NotBefore.After(from) {
			from = certificate.NotBefore
		}
		if certificate.NotAfter.Before(until) {
			until = certificate.NotAfter
		}
	}
	return from, until
}

// parseCertificates reads a PEM file that holds nothing but certificates.
func parseCertificates(data []byte) (leaf *x509.Certificate, others *x509.CertPool, err error) {
	others = x509.NewCertPool()
	for n := 0; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" || n == maxChain {
			return nil, nil, errors.New("reading the certificate: the file holds other things, or too many")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the certificate: %w", err)
		}
		if leaf == nil {
			leaf = certificate
		} else {
			others.AddCert(certificate)
		}
		data = rest
	}
	if leaf == nil || len(bytes.TrimSpace(data)) > 0 {
		return nil, nil, errors.New("reading the certificate: the file is not PEM")
	}
	return leaf, others, nil
}

// paypalCertificateURL says whether a URL is one of PayPal's certificates at this host, to the letter.
func paypalCertificateURL(url, host string) bool {
	id, ok := strings.CutPrefix(url, "https://"+host+"/v1/notifications/certs/CERT-")
	return ok && id != "" && len(id) <= 100 && !strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	})
}
