package stack

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Host is the name by which senders call Envoy: a certificate and a virtual host have it.
const Host = "hooks.example.com"

// Binaries are the programs of a stack.
type Binaries struct{ Hookauthz, App, Certs string }

// Build builds the programs of the checkout into dir. Where HOOKAUTHZ_BINARY is set, that hookauthz is taken instead of a built one:
// an image's, or one with the race detector.
func Build(ctx context.Context, root, dir string) (Binaries, error) {
	b := Binaries{filepath.Join(dir, "hookauthz"), filepath.Join(dir, "app"), filepath.Join(dir, "certs")}
	packages := map[string]string{b.Hookauthz: ".", b.App: "./examples/app", b.Certs: "./examples/certs"}
	if path := os.Getenv("HOOKAUTHZ_BINARY"); path != "" {
		delete(packages, b.Hookauthz)
		b.Hookauthz = path
	}
	for path, pkg := range packages {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return b, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return b, nil
}

// Config says what to run, and where.
type Config struct {
	// Root is the checkout, Dir a folder for logs, certificates and what else is made.
	Root, Dir string
	Binaries  Binaries
	// Envoy is the path of the Envoy binary.
	Envoy string
	// Listen is Envoy's address; empty: a free port of 127.0.0.1.
	Listen string
	// Policies is the folder of policies; empty: the one that docker-compose.yml mounts.
	Policies string
	// Serve is put behind the arguments of hookauthz, where a later flag wins over an earlier one.
	Serve []string
	// Env is put behind the environment of hookauthz, as NAME=value.
	Env []string
	// Plaintext has Envoy and hookauthz talk without TLS; with Socket, through that unix socket.
	Plaintext bool
	Socket    string
	// Edit, if set, changes the Envoy configuration.
	Edit func(*EnvoyConfig)
	// App is the address of a sample application that runs already; empty: start one.
	App string
	// Render is put behind the flags of `envoy render` with which the example is made; empty: take the example's file.
	Render []string
}

// RenderFlags are those of `envoy render` that make examples/envoy.yaml, but for --policies: the addresses and files of
// docker-compose.yml.
func RenderFlags() []string {
	return []string{
		"--upstream", "app:8080", "--listen", "0.0.0.0:8443", "--authz", "hookauthz:9001", "--admin-port", "9901",
		"--tls-cert", "/run/hookauthz-tls/hooks.pem", "--tls-key", "/run/hookauthz-tls/hooks.key",
		"--authz-ca", "/run/hookauthz-tls/ca.pem", "--authz-cert", "/run/hookauthz-tls/envoy.pem", "--authz-key", "/run/hookauthz-tls/envoy.key",
	}
}

// Stack is a running application, hookauthz and Envoy.
type Stack struct {
	config  Config
	compose *Compose

	// TLS is the folder of the certificates.
	TLS string
	// AppAddr, AuthzAddr, AdminAddr and MetricsAddr are where the application, hookauthz and its listeners for people and for probes
	// listen; EnvoyAdmin is Envoy's.
	AppAddr, AuthzAddr, AdminAddr, MetricsAddr, EnvoyAdmin string
	// Listeners holds Envoy's listeners by name: "hooks" and those that Edit added.
	Listeners map[string]string
	// CA trusts the certificate of Envoy.
	CA *x509.CertPool

	App, Hookauthz, Envoy *Process
}

// Up starts everything and waits until Envoy serves and finds hookauthz healthy. What it has started ends with Down, after an error too.
func Up(ctx context.Context, c Config) (*Stack, error) {
	s := &Stack{config: c, AppAddr: c.App, TLS: filepath.Join(c.Dir, "tls")}
	for _, step := range []func(context.Context) error{s.prepare, s.startApp, s.StartHookauthz, s.startEnvoy, s.WaitHealthy} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Down ends everything, Envoy first. The error is about a program that had ended before, or did not end cleanly.
func (s *Stack) Down() error {
	var errs []error
	for _, p := range []*Process{s.Envoy, s.Hookauthz, s.App} {
		if p == nil {
			continue
		}
		if err := p.Stop(20 * time.Second); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w; its last words:\n%s", p.Name, err, p.Tail(10)))
		}
	}
	return errors.Join(errs...)
}

func (s *Stack) prepare(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, s.config.Binaries.Certs, s.TLS).CombinedOutput(); err != nil {
		return fmt.Errorf("make certificates: %w: %s", err, out)
	}
	ca, err := os.ReadFile(filepath.Join(s.TLS, "ca.pem"))
	if err != nil {
		return err
	}
	s.CA = x509.NewCertPool()
	s.CA.AppendCertsFromPEM(ca)
	if s.compose, err = ReadCompose(s.config.Root); err != nil {
		return err
	}
	if s.AdminAddr, err = freeAddr(); err != nil {
		return err
	}
	if s.MetricsAddr, err = freeAddr(); err != nil {
		return err
	}
	if s.config.Socket != "" {
		s.AuthzAddr = "unix:" + s.config.Socket
		return nil
	}
	s.AuthzAddr, err = freeAddr()
	return err
}

// freeAddr is an address of 127.0.0.1 that nobody listens on. Somebody else may take it, which the one that listens there then says.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *Stack) startApp(ctx context.Context) error {
	if s.AppAddr != "" {
		return nil
	}
	var err error
	if s.AppAddr, err = freeAddr(); err != nil {
		return err
	}
	args, err := s.compose.Args("app", map[string]string{"0.0.0.0:8080": s.AppAddr}, nil)
	if err != nil {
		return err
	}
	if s.App, err = Start("app", s.config.Dir, nil, s.config.Binaries.App, args...); err != nil {
		return err
	}
	return s.waitHTTP(ctx, s.App, "http://"+s.AppAddr+"/healthz")
}

// StartHookauthz starts hookauthz, as Up did and at the same addresses, and waits until it is ready.
func (s *Stack) StartHookauthz(ctx context.Context) error {
	args, err := s.serveArgs()
	if err != nil {
		return err
	}
	env, err := s.compose.Env("hookauthz")
	if err != nil {
		return err
	}
	s.Hookauthz, err = Start("hookauthz", s.config.Dir, append(env, s.config.Env...), s.config.Binaries.Hookauthz, args...)
	if err != nil {
		return err
	}
	return s.waitHTTP(ctx, s.Hookauthz, "http://"+s.MetricsAddr+"/readyz")
}

// Policies is the folder of policies on this machine.
func (s *Stack) Policies() (string, error) {
	if s.config.Policies != "" {
		return s.config.Policies, nil
	}
	return s.compose.hostPath(s.compose.Services["hookauthz"], "/etc/hookauthz/policies", nil)
}

// Run runs another command of hookauthz, in the environment of the one that serves, and returns what it prints.
func (s *Stack) Run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	env, err := s.compose.Env("hookauthz")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.config.Binaries.Hookauthz, args...)
	cmd.Env = append(env, s.config.Env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("hookauthz %s: %w: %s", args[0], err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}

func (s *Stack) serveArgs() ([]string, error) {
	replace := map[string]string{"0.0.0.0:9001": s.AuthzAddr, "0.0.0.0:9003": s.MetricsAddr}
	if s.config.Policies != "" {
		replace["/etc/hookauthz/policies"] = s.config.Policies
	}
	args, err := s.compose.Args("hookauthz", replace, map[string]string{"tls": s.TLS})
	if err != nil {
		return nil, err
	}
	if s.config.Plaintext {
		args = withoutTLS(args)
	}
	return append(append(args, "--admin", s.AdminAddr), s.config.Serve...), nil
}

// withoutTLS leaves the --tls-... flags out, with their values.
func withoutTLS(args []string) []string {
	var rest []string
	for i := 0; i < len(args); i++ {
		if strings.HasPrefix(args[i], "--tls-") {
			i++
			continue
		}
		rest = append(rest, args[i])
	}
	return rest
}

func (s *Stack) startEnvoy(ctx context.Context) error {
	listen := s.config.Listen
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	replace := map[string]string{"0.0.0.0:8443": listen, "127.0.0.1:9901": "127.0.0.1:0", "app:8080": s.AppAddr, "hookauthz:9001": s.AuthzAddr}
	file, err := s.envoyFile(ctx)
	if err != nil {
		return err
	}
	c, err := ReadEnvoy(file, replace, map[string]string{"/run/hookauthz-tls": s.TLS})
	if err != nil {
		return err
	}
	if s.config.Plaintext {
		c.plaintext()
	}
	if s.config.Edit != nil {
		s.config.Edit(c)
	}
	path := filepath.Join(s.config.Dir, "envoy.json")
	if err := c.Write(path); err != nil {
		return err
	}
	args, err := s.compose.Args("envoy", map[string]string{"/etc/envoy/envoy.yaml": path}, nil)
	if err != nil {
		return err
	}
	admin := filepath.Join(s.config.Dir, "envoy-admin")
	args = append(args, "--admin-address-path", admin, "--concurrency", "2")
	if s.Envoy, err = Start("envoy", s.config.Dir, nil, s.config.Envoy, args[1:]...); err != nil {
		return err
	}
	if err := wait(ctx, s.Envoy, func() error {
		text, err := os.ReadFile(admin)
		s.EnvoyAdmin = strings.TrimSpace(string(text))
		if err == nil {
			_, err = netip.ParseAddrPort(s.EnvoyAdmin)
		}
		return err
	}); err != nil {
		return err
	}
	if err := s.waitHTTP(ctx, s.Envoy, "http://"+s.EnvoyAdmin+"/ready"); err != nil {
		return err
	}
	return s.readListeners()
}

// envoyFile is the file that docker-compose.yml mounts, or one that is rendered as that one is, for the policies of this stack.
func (s *Stack) envoyFile(ctx context.Context) (string, error) {
	if len(s.config.Render) == 0 {
		return s.compose.hostPath(s.compose.Services["envoy"], "/etc/envoy/envoy.yaml", nil)
	}
	policies := s.config.Policies
	if policies == "" {
		policies = filepath.Join(s.config.Root, "examples", "policies")
	}
	text, err := s.Run(ctx, nil, slices.Concat([]string{"envoy", "render", "--policies", policies}, RenderFlags(), s.config.Render)...)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.config.Dir, "envoy-rendered.yaml")
	return path, os.WriteFile(path, text, 0o600)
}

// plaintext takes TLS away between Envoy and hookauthz. A pipe is no name to resolve.
func (c *EnvoyConfig) plaintext() {
	cluster := c.Cluster("webhook_authz")
	delete(cluster, "transport_socket")
	cluster["type"] = "STATIC"
}

// Through is the stack with another Envoy in the place of its own: one whose admin interface is at this address.
func (s *Stack) Through(admin string) (*Stack, error) {
	other := *s
	other.EnvoyAdmin = admin
	return &other, other.readListeners()
}

func (s *Stack) readListeners() error {
	text, err := get("http://" + s.EnvoyAdmin + "/listeners?format=json")
	if err != nil {
		return err
	}
	var reply struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return fmt.Errorf("envoy's listeners: %w", err)
	}
	s.Listeners = make(map[string]string)
	for _, l := range reply.Statuses {
		s.Listeners[l.Name] = fmt.Sprintf("%s:%d", l.Address.Socket.Address, l.Address.Socket.Port)
	}
	return nil
}

// WaitHealthy waits until Envoy's health check finds hookauthz healthy.
func (s *Stack) WaitHealthy(ctx context.Context) error { return s.waitHealth(ctx, true) }

// WaitUnhealthy waits until Envoy's health check has found that hookauthz is not healthy.
func (s *Stack) WaitUnhealthy(ctx context.Context) error { return s.waitHealth(ctx, false) }

func (s *Stack) waitHealth(ctx context.Context, want bool) error {
	return wait(ctx, s.Envoy, func() error {
		text, err := get("http://" + s.EnvoyAdmin + "/clusters")
		if err != nil {
			return err
		}
		healthy := slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "webhook_authz::") && strings.HasSuffix(line, "::health_flags::healthy")
		})
		if healthy != want {
			return fmt.Errorf("envoy finds hookauthz healthy: %t, want %t", healthy, want)
		}
		return nil
	})
}

// CheckHealth runs the health check that docker-compose.yml has for Envoy.
func (s *Stack) CheckHealth(ctx context.Context) error {
	test := s.compose.Services["envoy"].Health.Test
	if len(test) < 2 || test[0] != "CMD" {
		return fmt.Errorf("docker-compose.yml: the health check of envoy is %q, wanted CMD and a command", test)
	}
	args := slices.Clone(test[1:])
	for i, arg := range args {
		arg = strings.ReplaceAll(arg, "$$", "$") // as Compose unescapes it
		args[i] = strings.ReplaceAll(arg, "127.0.0.1/9901", strings.ReplaceAll(s.EnvoyAdmin, ":", "/"))
	}
	if slices.Equal(args, test[1:]) {
		return errors.New("docker-compose.yml: the health check of envoy does not ask its admin listener")
	}
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("health check: %w: %s", err, out)
	}
	return nil
}

// ClientTLS is the TLS configuration of a sender.
func (s *Stack) ClientTLS() *tls.Config { return &tls.Config{RootCAs: s.CA, ServerName: Host} }

// AuthzTLS is the TLS configuration with which Envoy calls hookauthz.
func (s *Stack) AuthzTLS() (*tls.Config, error) {
	pair, err := s.Certificate("envoy")
	return &tls.Config{RootCAs: s.CA, ServerName: "hookauthz", Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}, err
}

// Certificate is one of the certificates of examples/certs, with its key.
func (s *Stack) Certificate(name string) (tls.Certificate, error) {
	return tls.LoadX509KeyPair(filepath.Join(s.TLS, name+".pem"), filepath.Join(s.TLS, name+".key"))
}

// Arrived is a delivery as the application recorded it.
type Arrived struct {
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
	Body    []byte      `json:"body"`
}

// Received are the deliveries that reached the application with this user-agent.
func (s *Stack) Received(userAgent string) ([]Arrived, error) {
	text, err := get("http://" + s.AppAddr + "/received?header=user-agent&value=" + userAgent)
	if err != nil {
		return nil, err
	}
	var all []Arrived
	return all, json.Unmarshal(text, &all)
}

// AccessLog are the lines of Envoy's access log for this user-agent.
func (s *Stack) AccessLog(userAgent string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(s.Envoy.Log()) {
		if !strings.Contains(line, `"`+userAgent+`"`) {
			continue
		}
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["user_agent"] == userAgent {
			found = append(found, entry)
		}
	}
	return found
}

// Metrics is the page of metrics of hookauthz.
func (s *Stack) Metrics() (string, error) {
	text, err := get("http://" + s.MetricsAddr + "/metrics")
	return string(text), err
}

func (s *Stack) waitHTTP(ctx context.Context, p *Process, url string) error {
	return wait(ctx, p, func() error { _, err := get(url); return err })
}

// client asks the admin listeners and the application.
var client = &http.Client{Timeout: 10 * time.Second}

func get(url string) ([]byte, error) {
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	return text, err
}

// wait asks again and again until ok has no complaint. It gives up when the program has ended, or with the context.
func wait(ctx context.Context, p *Process, ok func() error) error {
	err := Poll(ctx, func() error {
		if !p.Alive() {
			return Final(fmt.Errorf("%s has ended; its last words:\n%s", p.Name, p.Tail(20)))
		}
		return ok()
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", p.Name, err)
	}
	return nil
}
