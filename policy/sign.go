package policy

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature"
)

// SignOptions say what delivery is to be made.
type SignOptions struct {
	// Version names the secret version. Default: the first one in force.
	Version string
	// Time is the moment of the delivery. Required.
	Time time.Time
	// Body is sent as it is, but for fields of it that the scheme signs or that hold its signature.
	Body []byte
	// ID is the delivery id, where the scheme has one. Default: one made of Time.
	ID string
	// URL is where the delivery goes. Default: made of the policy's publicURL or match.
	URL string
}

// SignedDelivery is a delivery that the policy's signature check takes.
type SignedDelivery struct {
	Method  string
	URL     string
	Headers []Header
	Body    []byte
}

// Sign makes a valid delivery for an endpoint. The error says what is missing and what to do.
func (s *Set) Sign(endpoint string, o SignOptions) (SignedDelivery, error) {
	w := s.byName[endpoint]
	if w == nil {
		var names []string
		for _, w := range s.webhooks {
			names = append(names, w.name)
		}
		hint := ""
		if near := nearest(endpoint, names); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		return SignedDelivery{}, fmt.Errorf("no webhook is named %q%s", clip(endpoint), hint)
	}
	v, err := w.signingVersion(o)
	if err != nil {
		return SignedDelivery{}, err
	}
	url := o.URL
	if url == "" {
		url = w.url()
	}
	origin, target := splitURL(url)
	contentType := "application/json"
	if len(w.contentTypes) > 0 {
		contentType = w.contentTypes[0]
	}
	d := signature.Delivery{
		Method: w.methods[0], Path: target, PublicURL: w.publicURL,
		Headers: []Header{{Name: "content-type", Value: contentType}},
	}
	if len(o.Body) > 0 {
		d.Body = [][]byte{o.Body}
	}
	signed, err := w.scheme.Sign(v.key, d, o.Time, o.ID)
	if err != nil {
		return SignedDelivery{}, fmt.Errorf("signing for the webhook %q: %w", w.name, err)
	}
	body := bytes.Join(signed.Body, nil)
	if int64(len(body)) > w.maxBytes {
		return SignedDelivery{}, fmt.Errorf("the body has %d bytes and the webhook %q takes %d", len(body), w.name, w.maxBytes)
	}
	return SignedDelivery{Method: signed.Method, URL: origin + signed.Path, Headers: signed.Headers, Body: body}, nil
}

// splitURL parts a URL before its path, which is / where it has none. A fragment is never sent.
func splitURL(url string) (origin, target string) {
	url, _, _ = strings.Cut(url, "#")
	start := 0
	if at := strings.Index(url, "://"); at >= 0 {
		start = at + len("://")
	}
	end := strings.IndexAny(url[start:], "/?")
	if end < 0 {
		return url, "/"
	}
	origin, target = url[:start+end], url[start+end:]
	if target[0] == '?' {
		target = "/" + target
	}
	return origin, target
}

// signingVersion is the version to sign with.
func (w *Webhook) signingVersion(o SignOptions) (*version, error) {
	if w.scheme.NeedsPublicKey() {
		return nil, fmt.Errorf("the webhook %q is verified with a public key, and its private key is the sender's", w.name)
	}
	for i := range w.versions {
		v := &w.versions[i]
		switch {
		case o.Version == "" && v.inForce(o.Time), o.Version == v.name && v.key != nil:
			return v, nil
		case o.Version == v.name:
			return nil, fmt.Errorf("the secret of version %q cannot be read; hookauthz validate says why", v.name)
		}
	}
	if o.Version != "" {
		return nil, fmt.Errorf("the webhook %q has no version %q in this environment", w.name, clip(o.Version))
	}
	return nil, fmt.Errorf("the webhook %q has no secret in force; hookauthz validate says why, or name one with --version", w.name)
}

// url is a URL whose deliveries the policy decides.
func (w *Webhook) url() string {
	if w.publicURL != "" {
		return w.publicURL
	}
	host, path := "localhost", "/"
	if len(w.hosts) > 0 {
		host = strings.Replace(w.hosts[0], "*", "hooks", 1)
	}
	if len(w.paths) > 0 {
		path = strings.TrimSuffix(w.paths[0], "*")
	}
	return "https://" + host + path
}
