package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// policies have a version of each kind: in force, ended, decoy and unreadable; a timestamp; a list of addresses.
const policies = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: guide}
spec:
  match: {paths: [/guide]}
  signature:
    scheme: x-webhook-signature
    secrets:
      - {version: now, env: SECRET_NOW, notAfter: 2099-01-01T00:00:00Z}
      - {version: ended, env: SECRET_ENDED, notAfter: 2020-01-01T00:00:00Z}
      - {version: decoy, env: SECRET_DECOY, decoy: true}
      - {version: absent, env: SECRET_ABSENT}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: stripe}
spec:
  match: {paths: [/stripe]}
  source: {lists: [ours]}
  signature: {scheme: stripe, secrets: [{version: "1", env: SECRET_NOW}]}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookAddressList
metadata: {name: ours}
spec: {file: ours.txt, format: lines}
`

var secrets = []string{"SECRET_NOW=3Zq9tL0vXw8sPk2mRb7nYd5c", "SECRET_ENDED=Jf6hQe1uTz4gWa8iOx3rVs0l", "SECRET_DECOY=Mb2yKc7pNd9jHq5xEu1wRt6v"}

func mac(variable int, text string) string {
	_, secret, _ := strings.Cut(secrets[variable], "=")
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// family is a metric as a server exposes it.
type family struct {
	kind   string
	labels []string // sorted
}

// exposed runs a server, sends deliveries of every kind, and reads what it shows: hookauthz's metrics and those of the process.
func exposed(t *testing.T) map[string]family {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "hookauthz")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("policies/policies.yaml", policies)
	write("policies/ours.txt", "192.0.2.0/24\n198.51.100.0/24\n")
	certificate, key := selfSigned(t)
	write("tokens", "0123456789abcdef0123456789abcdef\n")

	// A store that is not there shows what there is of stores.
	serve := exec.Command(binary, "serve", "--policies", filepath.Join(dir, "policies"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--metrics", "127.0.0.1:0", "--audit", filepath.Join(dir, "audit"), "--store", "redis://127.0.0.1:1", "--store-required=false", "--admin-token-file", filepath.Join(dir, "tokens"),
		"--tls-cert", write("tls.crt", certificate), "--tls-key", write("tls.key", key), "--tls-client-ca", write("ca.crt", certificate),
		"--admin-tls-cert", filepath.Join(dir, "tls.crt"), "--admin-tls-key", filepath.Join(dir, "tls.key"))
	serve.Env = append([]string{"OTEL_TRACES_EXPORTER=console", "OTEL_BSP_SCHEDULE_DELAY=10"}, secrets...)
	log, err := serve.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		if err := serve.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-ended // the log has been read to its end
		if err := serve.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	addresses := make(chan [3]string, 1)
	var written strings.Builder // until the server ends
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			written.WriteString(lines.Text() + "\n")
			var line struct{ Msg, Listen, Metrics, Admin string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				addresses <- [3]string{line.Listen, line.Metrics, line.Admin}
			}
		}
	}()
	var at [3]string
	select {
	case at = <-addresses:
	case <-ended:
		t.Fatalf("the server ended:\n%s", &written)
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not say where it listens")
	}

	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(at[0], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := authv3.NewAuthorizationClient(conn)
	now := strconv.FormatInt(time.Now().Unix(), 10)
	for _, d := range []struct{ path, header, value, want string }{
		{"/guide", "x-webhook-signature", mac(0, "{}"), "ok"},
		{"/guide", "x-webhook-signature", mac(1, "{}"), "secret_expired"},
		{"/guide", "x-webhook-signature", mac(2, "{}"), "secret_expired"},
		{"/guide", "x-webhook-signature", mac(2, "[]"), "signature_mismatch"},
		{"/stripe", "stripe-signature", "t=" + now + ",v1=" + mac(0, now+".{}"), "ok"},
		{"/elsewhere", "x-none", "", "no_policy"},
	} {
		if got := reason(t, client, d.path, d.header, d.value); got != d.want {
			t.Fatalf("%s: %s, want %s", d.path, got, d.want)
		}
	}

	https := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer https.CloseIdleConnections()
	if response, err := https.Get("https://" + at[2] + "/api/v1/status"); err != nil {
		t.Fatal(err)
	} else {
		response.Body.Close()
	}
	logs, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries := &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{{}}}
	if err := logs.Send(&accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: entries}}); err != nil {
		t.Fatal(err)
	}
	if _, err := logs.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}

	var families map[string]*dto.MetricFamily
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // decisions are counted after their reply, spans are sent later
		families = scrape(t, at[1])
		if families["hookauthz_decisions_total"] != nil && families["hookauthz_address_list_addresses"] != nil &&
			families["hookauthz_trace_spans_total"].GetMetric()[1].GetCounter().GetValue() >= 6 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not every metric is there: %v", families)
		}
	}
	out := make(map[string]family)
	for name, f := range families {
		made := family{kind: strings.ToLower(f.GetType().String())}
		for _, l := range f.GetMetric()[0].GetLabel() {
			made.labels = append(made.labels, l.GetName())
		}
		slices.Sort(made.labels)
		out[name] = made
	}
	return out
}

func scrape(t *testing.T, address string) map[string]*dto.MetricFamily {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// reason asks for one delivery and gives the reason of its decision.
func reason(t *testing.T, client authv3.AuthorizationClient, path, header, value string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	headers := &corev3.HeaderMap{}
	for _, h := range [][2]string{{":method", "POST"}, {":path", path}, {"content-type", "application/json"}, {"content-length", "2"}, {"x-envoy-auth-partial-body", "false"}, {header, value}} {
		headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	response, err := client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "192.0.2.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Id: fmt.Sprint(path, value), Method: "POST", Path: path, HeaderMap: headers, RawBody: []byte("{}")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// selfSigned is a certificate that is its own authority, and its key.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	var c, b bytes.Buffer
	if err := pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		t.Fatal(err)
	}
	if err := pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}); err != nil {
		t.Fatal(err)
	}
	return c.String(), b.String()
}
