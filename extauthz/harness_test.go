package extauthz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// noon is the moment of every test that does not say otherwise.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// environment holds the secrets of the policies.
var environment = map[string]string{"SECRET": "a-secret-of-a-webhook", "OTHER": "another-secret-of-a-webhook", "THIRD": "a-third-secret-of-a-webhook"}

// policies loads a folder with one policy file. A secret that is not in environment is tolerated.
func policies(t testing.TB, yaml string) *policy.Set {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: lookup, Secrets: policy.TolerateMissingSecrets})
	if err != nil {
		t.Fatalf("loading:\n%v", err)
	}
	return set
}

// webhook is a policy named hook for POST /hook with the given signature and lines under spec.
func webhook(signature string, lines ...string) string {
	return "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: hook}\nspec:\n  match: {paths: [/hook]}\n  signature: {" +
		signature + "}\n  " + strings.Join(lines, "\n  ") + "\n"
}

const (
	githubScheme = `scheme: github, secrets: [{version: "1", env: SECRET}]`
	stripeScheme = `scheme: stripe, secrets: [{version: "1", env: SECRET}]`
)

// newEngine decides by the policies over an embedded store.
func newEngine(t testing.TB, yaml string) *policy.Engine {
	t.Helper()
	return policy.NewEngine(policies(t, yaml), policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
}

// decides is a Decider of one function.
type decides func(ctx context.Context, r *policy.Request) policy.Decision

func (f decides) Decide(ctx context.Context, r *policy.Request) policy.Decision { return f(ctx, r) }

// brokenStore gives no verdict.
type brokenStore struct{}

var errBroken = errors.New("the store is broken")

func (brokenStore) Take(context.Context, *policy.Take) (policy.Taken, error) {
	return policy.Taken{}, errBroken
}
func (brokenStore) Release(context.Context, *policy.Take) error { return errBroken }
func (brokenStore) Settle(context.Context, time.Time, string, policy.Token, bool) (bool, error) {
	return false, errBroken
}

// dial serves c on an in-process listener until the test ends and connects to it.
func dial(t testing.TB, c Config) *grpc.ClientConn {
	t.Helper()
	return serving(t, c)()
}

// serving serves c on an in-process listener until the test ends. The func that it returns makes a connection.
func serving(t testing.TB, c Config) (connect func() *grpc.ClientConn) {
	t.Helper()
	if c.Now == nil {
		c.Now = func() time.Time { return noon }
	}
	s := NewServer(c)
	l := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return func() *grpc.ClientConn {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///hookauthz", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// ask sends one Check. The server answers every one with RPC OK.
func ask(t testing.TB, conn *grpc.ClientConn, m *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, m)
	if err != nil {
		t.Fatalf("the RPC itself failed: %v", err)
	}
	return response
}

// delivery is one HTTP request as Envoy describes it.
type delivery struct {
	extension map[string]string
	peer      string
	id        string
	method    string
	host      string
	path      string
	headers   []policy.Header // without pseudo-headers
	body      []byte
	partial   string // x-envoy-auth-partial-body; "-" for none
	text      bool   // the body comes as a string
}

// signed is a delivery that the webhook "hook" of set takes at the moment at.
func signed(t testing.TB, set *policy.Set, at time.Time, body string) *delivery {
	t.Helper()
	return signedBy(t, set, policy.SignOptions{Time: at, Body: []byte(body)})
}

func signedBy(t testing.TB, set *policy.Set, o policy.SignOptions) *delivery {
	t.Helper()
	d, err := set.Sign("hook", o)
	if err != nil {
		t.Fatal(err)
	}
	_, target, _ := strings.Cut(d.URL, "://")
	host, path, _ := strings.Cut(target, "/")
	headers := []policy.Header{{Name: "content-length", Value: strconv.Itoa(len(o.Body))}, {Name: "x-request-id", Value: "request-1"}}
	return &delivery{peer: "192.0.2.10", id: "stream-1", method: d.Method, host: host, path: "/" + path, headers: append(headers, d.Headers...), body: o.Body}
}

// with sets a header, or adds it.
func (d *delivery) with(name, value string) *delivery {
	for i := range d.headers {
		if d.headers[i].Name == name {
			d.headers[i].Value = value
			return d
		}
	}
	return d.add(name, value)
}

// add adds a header, beside those that have the same name.
func (d *delivery) add(name, value string) *delivery {
	d.headers = append(d.headers, policy.Header{Name: name, Value: value})
	return d
}

func (d *delivery) without(name string) *delivery {
	d.headers = slices.DeleteFunc(d.headers, func(h policy.Header) bool { return h.Name == name })
	return d
}

func (d *delivery) value(name string) string {
	for _, h := range d.headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// headerForms are the two ways in which Envoy sends headers.
var headerForms = []struct {
	name   string
	merged bool
}{
	{"header_map", false}, // encode_raw_headers: true
	{"headers", true},
}

// request is the CheckRequest that Envoy makes of d.
func (d *delivery) request(merged bool) *authv3.CheckRequest {
	http := &authv3.AttributeContext_HttpRequest{
		Id: d.id, Method: d.method, Host: d.host, Path: d.path, Scheme: "https", Protocol: "HTTP/1.1", Size: int64(len(d.body)),
	}
	list := append([]policy.Header{{Name: ":method", Value: d.method}, {Name: ":path", Value: d.path}, {Name: ":authority", Value: d.host}}, d.headers...)
	partial := d.partial
	if partial == "" && len(d.body) > 0 {
		partial = "false"
	}
	if partial != "" && partial != "-" {
		list = append(list, policy.Header{Name: partialBodyHeader, Value: partial})
	}
	if merged {
		http.Headers = make(map[string]string)
		for _, h := range list {
			value := sanitized(h.Value)
			if before, twice := http.Headers[h.Name]; twice {
				value = before + "," + value
			}
			http.Headers[h.Name] = value
		}
	} else {
		http.HeaderMap = &corev3.HeaderMap{}
		for _, h := range list {
			http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: h.Name, RawValue: []byte(h.Value)})
		}
	}
	switch {
	case d.text:
		http.Body = sanitized(string(d.body))
	case len(d.body) > 0:
		http.RawBody = d.body
	}
	attributes := &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: http}, ContextExtensions: d.extension}
	if d.peer != "" {
		attributes.Source = &authv3.AttributeContext_Peer{Address: socket(d.peer)}
	}
	return &authv3.CheckRequest{Attributes: attributes}
}

// sanitized is what Envoy makes of a string that is not UTF-8.
func sanitized(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r == '\uFFFD' && !strings.HasPrefix(s[i:], "\uFFFD") {
			b.WriteByte('!')
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func socket(address string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000},
	}}}
}

// set are the headers that a reply sets, in one form that all of them share.
func set(t testing.TB, options []*corev3.HeaderValueOption) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, o := range options {
		name := o.GetHeader().GetKey()
		if _, twice := out[name]; twice {
			t.Errorf("the header %q is set twice", name)
		}
		//lint:ignore SA1019 Envoys before 1.37 read it
		if len(o.GetHeader().GetRawValue()) > 0 || o.GetAppend() == nil || o.GetAppend().GetValue() || o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("the header %q is not a plain overwrite: %v", name, o)
		}
		out[name] = o.GetHeader().GetValue()
	}
	return out
}

// notes are the dynamic metadata of a reply.
func notes(t testing.TB, response *authv3.CheckResponse) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for name, v := range response.GetDynamicMetadata().GetFields() {
		out[name] = v.GetStringValue()
	}
	return out
}

// reply is what a sender gets, in a form that compares.
type reply struct {
	Code       int32 // of the CheckResponse: 0 allows
	Status     int   // of the HTTP response; 0 where the application answers
	Error      string
	Message    string
	RequestID  string
	RetryAfter string
	Type       string
	Nosniff    string
	Text       string // a body that is no error
}

func replyOf(t testing.TB, response *authv3.CheckResponse) reply {
	t.Helper()
	out := reply{Code: response.GetStatus().GetCode()}
	denied := response.GetDeniedResponse()
	if denied == nil {
		return out
	}
	out.Status = int(denied.GetStatus().GetCode())
	headers := set(t, denied.GetHeaders())
	out.Type, out.RetryAfter, out.Nosniff = headers["content-type"], headers["retry-after"], headers["x-content-type-options"]
	if out.Type != "application/json" || out.Status < 400 {
		out.Text = denied.GetBody()
		return out
	}
	var body map[string]string
	if err := json.Unmarshal([]byte(denied.GetBody()), &body); err != nil {
		t.Errorf("the body %q is no JSON: %v", denied.GetBody(), err)
	}
	out.Error, out.Message, out.RequestID = body["error"], body["message"], body["request_id"]
	for name := range maps.Keys(body) {
		if name != "error" && name != "message" && name != "request_id" {
			t.Errorf("the body tells %q", name)
		}
	}
	return out
}

// journal keeps log lines as JSON and can be waited for.
type journal struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{} // closed at the next line, if anybody waits for it
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.written != nil {
		close(j.written)
		j.written = nil
	}
	return j.text.Write(p)
}

// wait waits until the journal holds part n times: a decision is logged after its reply has gone.
func (j *journal) wait(t testing.TB, part string, n int) {
	t.Helper()
	patience := time.After(30 * time.Second)
	for {
		j.mu.Lock()
		found := strings.Count(j.text.String(), part)
		if j.written == nil {
			j.written = make(chan struct{})
		}
		written := j.written
		j.mu.Unlock()
		if found >= n {
			return
		}
		select {
		case <-written:
		case <-patience:
			t.Fatalf("%d times %s in the log, want %d:\n%s", found, part, n, j)
		}
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// logger writes to j without times, which differ.
func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
}

// lines are the log lines as maps.
func (j *journal) lines(t testing.TB) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(j.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("the log line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

// newStore is an embedded store.
func newStore() policy.Store { return store.NewMemory(store.MemoryConfig{}) }
