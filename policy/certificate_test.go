package policy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/fetch"
	"github.com/hookauthz/hookauthz/policy/signature/certtest"
	"github.com/hookauthz/hookauthz/policy/store"
)

const (
	topicARN     = "arn:aws:sns:eu-west-1:123456789012:orders"
	snsHost      = "sns.eu-west-1.amazonaws.com"
	snsURL       = "https://" + snsHost + "/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
	snsScheme    = "scheme: aws-sns, tolerance: 65m, topics: [" + `"` + topicARN + `"]`
	paypalScheme = "scheme: paypal, tolerance: 3d, webhookID: 4JH86294D6297924G, acceptUnsignedBody: true"
)

// snsMessage is a notification of this moment, before it is signed.
func snsMessage() certtest.Message {
	return certtest.Message{"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": topicARN, "Message": "Hello",
		"Timestamp": now.Format("2006-01-02T15:04:05.000Z"), "SignatureVersion": "2", "SigningCertURL": snsURL}
}

// delivery is a POST /hook with a body and headers: name, value, name, value.
func delivery(body []byte, headers ...string) *policy.Request {
	r := &policy.Request{Time: now, Method: "POST", Host: "hooks.example.com", Path: "/hook", Peer: netip.MustParseAddr("192.0.2.10"),
		Body: [][]byte{body}, BodyState: policy.WholeBody, Headers: []policy.Header{{Name: "content-length", Value: strconv.Itoa(len(body))}}}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, policy.Header{Name: headers[i], Value: headers[i+1]})
	}
	return r
}

// certificateFunc answers for any URL.
type certificateFunc func(ctx context.Context, url string) ([]byte, error)

func (f certificateFunc) Certificate(ctx context.Context, url string) ([]byte, error) {
	return f(ctx, url)
}

// The whole way: a delivery names a certificate, which a TLS server under the sender's name serves and which leads to the test's root.
func TestCertificateOfADelivery(t *testing.T) {
	authority := certtest.New(t)
	signing := certtest.PEM(authority.Leaf(&certtest.Key(t, 0).PublicKey, "sns.amazonaws.com", nil), authority.Middle)
	var asked atomic.Int32
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if "https://"+r.Host+r.URL.Path != snsURL {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(signing)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{authority.Leaf(&serverKey.PublicKey, snsHost, nil).Raw, authority.Middle.Raw}, PrivateKey: serverKey}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	client := fetch.New(fetch.Config{Roots: authority.Roots(), NoRedirects: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != snsHost+":443" {
			t.Errorf("a connection to %s", address)
			return nil, errors.New("no such host")
		}
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}})
	certificates := fetch.NewCertificates(fetch.CertificatesConfig{Client: client, Roots: authority.Roots(), Wait: 10 * time.Second, Now: func() time.Time { return now }})
	t.Cleanup(certificates.Close)
	e := policy.NewEngine(load(t, webhook(snsScheme)), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), Certificates: certificates, CertificateRoots: authority.Roots()})

	body := snsMessage().Sign(t, certtest.Key(t, 0))
	d := e.Decide(t.Context(), delivery(body, "x-amz-sns-message-type", "Notification"))
	if got := verdict(d); got != "allow ok" {
		t.Fatal(got)
	}
	if d.DeliveryID != "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324" || !d.DeliveryIDSigned || d.Event != "Notification" || !d.EventSigned || d.SecretVersion != "certificate" || d.Scheme != "aws-sns" {
		t.Errorf("%+v", d)
	}
	for _, step := range []struct {
		what   string
		change func(*policy.Request)
		body   []byte
		want   string
	}{
		{what: "the same bytes again, as SNS retries", body: body, want: "allow duplicate"},
		{what: "another message", body: snsMessage().With("MessageId", "2").Sign(t, certtest.Key(t, 0)), want: "allow ok"},
		{what: "of the key of somebody else", body: snsMessage().Sign(t, certtest.Key(t, 1)), want: "deny signature_mismatch 401"},
		{what: "of another topic", body: snsMessage().With("TopicArn", topicARN+"2").Sign(t, certtest.Key(t, 0)), want: "deny signature_malformed 401"},
		{what: "of a certificate that is not there", body: snsMessage().With("SigningCertURL", "https://"+snsHost+"/SimpleNotificationService-00.pem").Sign(t, certtest.Key(t, 0)), want: "deny secret_unavailable 503"},
		{what: "of a certificate elsewhere", body: snsMessage().With("SigningCertURL", "https://evil.example/SimpleNotificationService-00.pem").Sign(t, certtest.Key(t, 0)), want: "deny signature_malformed 401"},
		{what: "an hour late", body: body, change: func(r *policy.Request) { r.Time = now.Add(65 * time.Minute) }, want: "allow duplicate"},
		{what: "later than that", body: body, change: func(r *policy.Request) { r.Time = now.Add(65*time.Minute + time.Second) }, want: "deny timestamp_out_of_tolerance 401"},
		{what: "years later", body: body, change: func(r *policy.Request) { r.Time = now.AddDate(2, 0, 0) }, want: "deny secret_expired 401"},
	} {
		r := delivery(step.body)
		if step.change != nil {
			step.change(r)
		}
		if got := verdict(e.Decide(t.Context(), r)); got != step.want {
			t.Errorf("%s: got %q, want %q", step.what, got, step.want)
		}
	}
	if n := asked.Load(); n != 2 { // the good one and the one that is not there
		t.Errorf("the server was asked %d times", n)
	}
}

// What comes in place of a certificate never lets a delivery through, and what is not the sender's fault is no 401.
func TestCertificateFaults(t *testing.T) {
	authority, other := certtest.New(t), certtest.New(t)
	key := &certtest.Key(t, 0).PublicKey
	good := certtest.PEM(authority.Leaf(key, "sns.amazonaws.com", nil), authority.Middle)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		pem  []byte
		err  error
		want string
	}{
		{"good", t.Context(), good, nil, "allow ok"},
		{"cannot be had", t.Context(), nil, errors.New("away"), "deny secret_unavailable 503"},
		{"came with an error", t.Context(), good, errors.New("away"), "deny secret_unavailable 503"},
		{"empty", t.Context(), nil, nil, "deny secret_unavailable 503"},
		{"of another root", t.Context(), certtest.PEM(other.Leaf(key, "sns.amazonaws.com", nil), other.Middle), nil, "deny secret_unavailable 503"},
		{"without its authority", t.Context(), certtest.PEM(authority.Leaf(key, "sns.amazonaws.com", nil)), nil, "deny secret_unavailable 503"},
		{"of another name", t.Context(), certtest.PEM(authority.Leaf(key, "evil.example", nil), authority.Middle), nil, "deny signature_mismatch 401"},
		{"of another key", t.Context(), certtest.PEM(authority.Leaf(&certtest.Key(t, 1).PublicKey, "sns.amazonaws.com", nil), authority.Middle), nil, "deny signature_mismatch 401"},
		{"too late", ended, good, nil, "deny deadline_exceeded 503"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := policy.NewEngine(load(t, webhook(snsScheme)), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), CertificateRoots: authority.Roots(),
				Certificates: certificateFunc(func(_ context.Context, url string) ([]byte, error) {
					if url != snsURL {
						t.Errorf("asked for %q", url)
					}
					return tt.pem, tt.err
				})})
			d, steps := e.Explain(tt.ctx, delivery(snsMessage().Sign(t, certtest.Key(t, 0))))
			if got := verdict(d); got != tt.want {
				t.Errorf("got %q, want %q; %+v", got, tt.want, steps)
			}
		})
	}
	t.Run("nothing fetches", func(t *testing.T) {
		if got := verdict(engine(t, webhook(snsScheme)).Decide(t.Context(), delivery(snsMessage().Sign(t, certtest.Key(t, 0))))); got != "deny secret_unavailable 503" {
			t.Error(got)
		}
	})
	t.Run("a topic of somebody else asks for nothing", func(t *testing.T) {
		e := policy.NewEngine(load(t, webhook(snsScheme)), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}),
			Certificates: certificateFunc(func(context.Context, string) ([]byte, error) { t.Error("asked"); return nil, nil })})
		for _, m := range []certtest.Message{snsMessage().With("TopicArn", "arn:aws:sns:eu-west-1:999999999999:orders"), snsMessage().With("SigningCertURL", "https://evil.example/x.pem"), snsMessage().With("SignatureVersion", "1")} {
			if got := verdict(e.Decide(t.Context(), delivery(m.Sign(t, certtest.Key(t, 0))))); got != "deny signature_malformed 401" {
				t.Error(got)
			}
		}
	})
}

// MessageAttributes are not signed: a policy must say that it takes them.
func TestSNSAttributesOfAPolicy(t *testing.T) {
	authority := certtest.New(t)
	pem := certtest.PEM(authority.Leaf(&certtest.Key(t, 0).PublicKey, "sns.amazonaws.com", nil), authority.Middle)
	body := snsMessage().With("MessageAttributes", map[string]any{"a": "b"}).Sign(t, certtest.Key(t, 0))
	for scheme, want := range map[string]string{snsScheme: "deny signature_malformed 401", snsScheme + ", acceptUnsignedBody: true": "allow ok"} {
		set := load(t, webhook(scheme))
		e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), CertificateRoots: authority.Roots(),
			Certificates: certificateFunc(func(context.Context, string) ([]byte, error) { return pem, nil })})
		if got := verdict(e.Decide(t.Context(), delivery(body))); got != want || len(set.Warnings()) > 0 {
			t.Errorf("%s: got %q, want %q; warnings %v", scheme, got, want, set.Warnings())
		}
	}
}

// One captured signature of PayPal serves once, although its body is not signed.
func TestPayPalDelivery(t *testing.T) {
	authority := certtest.New(t)
	pem := certtest.PEM(authority.Leaf(&certtest.Key(t, 0).PublicKey, "messageverificationcerts.paypal.com", nil), authority.Middle)
	e := policy.NewEngine(load(t, webhook(paypalScheme)), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), CertificateRoots: authority.Roots(),
		Certificates: certificateFunc(func(context.Context, string) ([]byte, error) { return pem, nil })})
	const body, id = `{"event_type":"PAYMENT.SALE.COMPLETED"}`, "dfb3be50-fd74-11e4-8bf3-77339302725b"
	at := now.Format(time.RFC3339)
	r := delivery([]byte(body), "paypal-transmission-id", id, "paypal-transmission-time", at, "paypal-auth-algo", "SHA256withRSA",
		"paypal-cert-url", "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-90621ecd",
		"paypal-transmission-sig", certtest.SignText(t, certtest.Key(t, 0), fmt.Sprintf("%s|%s|4JH86294D6297924G|%d", id, at, crc32.ChecksumIEEE([]byte(body)))))
	d := e.Decide(t.Context(), r)
	if got := verdict(d); got != "allow ok" || d.DeliveryID != id || !d.DeliveryIDSigned || d.Event != "PAYMENT.SALE.COMPLETED" || d.EventSigned {
		t.Errorf("%s: %+v", got, d)
	}
	if got := verdict(e.Decide(t.Context(), r)); got != "deny replayed 409" {
		t.Errorf("again: %s", got)
	}
	header(r, "paypal-cert-url", "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-90621ecd")
	if got := verdict(e.Decide(t.Context(), r)); got != "deny signature_malformed 401" {
		t.Errorf("a certificate of the sandbox: %s", got)
	}
}

// A webhook whose key comes from a certificate shows one version, whose name is no secret's.
func TestCertificateVersion(t *testing.T) {
	set := load(t, webhook(snsScheme))
	versions := set.Endpoints()[0].Versions
	if len(versions) != 1 || versions[0].Name != "certificate" || !versions[0].Available {
		t.Errorf("%+v", versions)
	}
	if _, err := set.Sign("hook", policy.SignOptions{Time: now}); err == nil || !strings.Contains(err.Error(), "private key is the sender's") {
		t.Errorf("sign: %v", err)
	}
}
