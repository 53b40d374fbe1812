package browser

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// patience bounds every wait for a condition. Nothing takes nearly as long on a machine that works.
const patience = time.Minute

const root = "../.."

// built is the program under test.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hookauthz-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = filepath.Join(dir, "hookauthz")
	build := exec.Command("go", "build", "-o", built, ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "browser: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is a running hookauthz.
type server struct {
	t        *testing.T
	policies string // the folder
	admin    string // host:port
	checks   authv3.AuthorizationClient
	process  *stack.Process
}

const githubSecret = "8f1c0d5e-browser-test-github"

var examplePolicies = map[string]string{
	"github.yaml": `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: github-ci, labels: {team: ci}}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/github]}
  signature: {scheme: github, secrets: [{version: "2026-10", env: GITHUB_SECRET}, {version: "2026-04", env: GITHUB_OLD, notAfter: 2026-05-01T00:00:00Z}]}
  failures: unlimited
`,
	"others.yaml": `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: payments}
spec:
  match: {paths: [/webhooks/stripe]}
  pausedUntil: 2099-01-01T00:00:00Z
  signature: {scheme: stripe, secrets: [{version: "1", env: GITHUB_SECRET}]}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: newcomer-in-shadow}
spec:
  match: {paths: [/webhooks/new/*]}
  mode: shadow
  signature: {scheme: x-webhook-signature, secrets: [{version: "1", env: NOT_SET_ANYWHERE}]}
`,
}

// start runs serve with the policies until the test ends.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, policies: filepath.Join(dir, "policies"), admin: free(t)}
	if err := os.Mkdir(s.policies, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range examplePolicies {
		s.write(name, text)
	}
	listen := free(t)
	args = append([]string{"serve", "--policies", s.policies, "--listen", listen, "--admin", s.admin}, args...)
	env := append(os.Environ(), "GITHUB_SECRET="+githubSecret, "GITHUB_OLD=an-older-browser-test-secret")
	var err error
	s.process, err = stack.Start("hookauthz", dir, env, built, args...)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.checks = authv3.NewAuthorizationClient(conn)
	t.Cleanup(func() {
		conn.Close()
		if err := s.process.Stop(patience); err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("hookauthz said:\n%s", s.process.Tail(40))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := stack.Poll(ctx, func() error {
		if !s.process.Alive() {
			return stack.Final(fmt.Errorf("hookauthz ended:\n%s", s.process.Tail(20)))
		}
		conn, err := net.DialTimeout("tcp", s.admin, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.policies, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var streams atomic.Int64

// deliver asks about a delivery and gives the reason of the decision.
func (s *server) deliver(path, body string, headers ...string) string {
	s.t.Helper()
	list := []*corev3.HeaderValue{}
	add := func(k, v string) { list = append(list, &corev3.HeaderValue{Key: k, RawValue: []byte(v)}) }
	add("x-envoy-auth-partial-body", "false")
	add("content-length", strconv.Itoa(len(body)))
	for i := 0; i < len(headers); i += 2 {
		add(headers[i], headers[i+1])
	}
	reply, err := s.checks.Check(s.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "192.0.2.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: strconv.FormatInt(streams.Add(1), 10), Method: "POST", Path: path, Host: "hooks.example.com", RawBody: []byte(body), HeaderMap: &corev3.HeaderMap{Headers: list},
		}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// github delivers what GitHub would have signed.
func (s *server) github(body string, headers ...string) string {
	s.t.Helper()
	mac := hmac.New(sha256.New, []byte(githubSecret))
	mac.Write([]byte(body))
	return s.deliver("/webhooks/github", body, append([]string{"x-hub-signature-256", "sha256=" + hex.EncodeToString(mac.Sum(nil))}, headers...)...)
}

// forged delivers what somebody else has signed.
func (s *server) forged(headers ...string) string {
	s.t.Helper()
	return s.deliver("/webhooks/github", "{}", append([]string{"x-hub-signature-256", "sha256=" + hex.EncodeToString(make([]byte, 32))}, headers...)...)
}
