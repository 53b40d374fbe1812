package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz/admin"
)

// adminFlags say which running server a command asks, and as whom.
type adminFlags struct {
	url       string
	tokenFile string
	ca        string
}

func (f *adminFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.url, "admin-url", "http://127.0.0.1:9002", "`URL` of the admin listener of a running serve: http://, https:// or unix:/path")
	flags.StringVar(&f.tokenFile, "admin-token-file", "", "`file` whose first token is sent, as serve reads it")
	flags.StringVar(&f.ca, "admin-ca", "", "`file` with the authorities that the listener's certificate may come from (PEM), instead of the system's")
}

// adminTimeout bounds one request.
const adminTimeout = 15 * time.Second

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// adminClient asks the admin listener of a running server.
type adminClient struct {
	base   string // of URLs
	shown  string // as it was given
	token  string
	client *http.Client
}

// client reads the flags and files.
func (f *adminFlags) client() (*adminClient, error) {
	// A proxy is not asked: it would see the token. Nor is a redirect followed.
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	c := &adminClient{shown: f.url, client: &http.Client{
		Transport:     transport,
		Timeout:       adminTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(f.url, "unix:"); ok {
		if path == "" {
			return nil, misused("write it as unix:/run/hookauthz/admin.sock", "--admin-url %q names no socket", f.url)
		}
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	} else {
		u, err := url.Parse(f.url)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return nil, misused("write it as http://127.0.0.1:9002, https://hooks.example.com:9002 or unix:/path", "--admin-url %q is no URL of an admin listener", f.url)
		}
		if f.tokenFile != "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, misused("write https://", "--admin-url %q would send the token over the network in plain text", f.url)
		}
		c.base = u.Scheme + "://" + u.Host
	}
	if f.tokenFile != "" {
		data, _, err := admin.ReadTokenFile(f.tokenFile)
		if err == nil {
			c.token, err = admin.FirstToken(data)
		}
		if err != nil {
			return nil, failed("write one token a line, as serve takes it", "--admin-token-file %q: %w", f.tokenFile, err)
		}
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, failed("", "reading --admin-ca: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, failed("give a file with PEM certificates", "--admin-ca %q holds no certificate", f.ca)
		}
	}
	return c, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// get asks for what a path shows and decodes the answer.
func (c *adminClient) get(ctx context.Context, path string, query url.Values, into any) error {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	return c.do(r, into)
}

// post asks for an action and decodes the answer.
func (c *adminClient) post(ctx context.Context, path string, action, into any) error {
	body, err := json.Marshal(action)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return c.do(r, into)
}

func (c *adminClient) do(r *http.Request, into any) error {
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.client.Do(r)
	if err != nil {
		return c.unreachable(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil || len(body) > maxAnswer {
		return failed("", "the answer of %s cannot be read: it broke off, or has more than %d bytes", c.shown, maxAnswer)
	}
	media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if media == "application/json" {
		if answer.StatusCode == http.StatusOK {
			if err := json.Unmarshal(body, into); err == nil {
				return nil
			}
		}
		var e admin.Error
		if json.Unmarshal(body, &e) == nil && e.Code != "" && e.Message != "" {
			return c.refused(answer.StatusCode, &e)
		}
	}
	hint := "give the --admin address of serve as --admin-url"
	if answer.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "HTTPS server") {
		hint = "it has TLS: write https://"
	}
	return failed(hint, "%s answers %s to %s, which is not what a hookauthz does", c.shown, answer.Status, r.URL.Path)
}

// refused is an error that the server told.
func (c *adminClient) refused(status int, e *admin.Error) error {
	message := "the server at " + c.shown + " says: " + printable(e.Message)
	hint := printable(e.Hint)
	if status == http.StatusUnauthorized && c.token == "" {
		hint = "give --admin-token-file or set " + variable("admin-token-file")
	}
	return &failure{err: errors.New(message), hint: hint, code: exitFailed}
}

// unreachable explains why there is no answer.
func (c *adminClient) unreachable(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	hint := "is it running, and is this its --admin address? give another with --admin-url or " + variable("admin-url")
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &authority):
		hint = "give the authority of its certificate as --admin-ca"
	case errors.As(err, &name):
		hint = "write the name that is in its certificate"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		hint = "it has no TLS: write http://"
	}
	return failed(hint, "asking %s: %w", c.shown, err)
}
