// Command demo shows hookauthz at work: it starts the sample application, hookauthz with examples/policies and a real Envoy
// with TLS on loopback, sends deliveries that are right and wrong, and prints what became of each. Then it stays up.
//
// `make demo` runs it; `make demo ONCE=1` ends after the table, with status 1 when a row is not as it must be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

func main() {
	once := flag.Bool("once", false, "end after the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *once, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// patience bounds the start, in which everything may have to be compiled.
const patience = 15 * time.Minute

func run(ctx context.Context, once bool, out io.Writer) (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "docker-compose.yml")); err != nil {
		return fmt.Errorf("run it in the checkout, as `make demo` does: %w", err)
	}
	dir, err := os.MkdirTemp("", "hookauthz-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	starting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := start(starting, root, dir, out)
	if s != nil {
		defer func() { err = errors.Join(err, s.Down()) }()
	}
	if err != nil {
		return err
	}
	wrong, err := show(ctx, s, out)
	if ctx.Err() != nil {
		return nil // Ctrl-C
	}
	if err != nil {
		return err
	}
	if wrong > 0 {
		fmt.Fprintf(out, "\n%d of the rows are not as they must be.\n", wrong)
	}
	if once {
		if wrong > 0 {
			return fmt.Errorf("%d rows are not as they must be; the end of hookauthz's log:\n%s", wrong, s.Hookauthz.Tail(30))
		}
		return nil
	}
	return stayUp(ctx, s, out)
}

// start builds and starts everything, and tells what takes its time.
func start(ctx context.Context, root, dir string, out io.Writer) (*stack.Stack, error) {
	fmt.Fprintln(out, "Looking for Envoy 1.40 (the first time it is installed into .cache/, about 37 MB) ...")
	envoy, err := findEnvoy(ctx, root)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "Building hookauthz and the sample application (the first time that takes a minute or two) ...")
	binaries, err := stack.Build(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "Starting the application, hookauthz and Envoy ...")
	s, err := stack.Up(ctx, stack.Config{Root: root, Dir: dir, Binaries: binaries, Envoy: envoy, Listen: freeOr("127.0.0.1:8443")})
	if err != nil {
		return s, err
	}
	fmt.Fprintf(out, `
  senders --TLS--> Envoy %s --forwards--> application %s
                     |
                     +--asks, mutual TLS--> hookauthz %s, with examples/policies
`, s.Listeners["hooks"], s.AppAddr, s.AuthzAddr)
	return s, nil
}

// findEnvoy asks scripts/envoy, which explains itself on standard error.
func findEnvoy(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "envoy"))
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err != nil {
		return "", errors.New("it needs an Envoy to show anything (see above)")
	}
	return strings.TrimSpace(string(path)), nil
}

// freeOr is the address if nobody listens there, else empty: any port.
func freeOr(addr string) string {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return ""
	}
	l.Close()
	return addr
}

// stayUp prints what one can try and waits for Ctrl-C, or for the end of one of the programs.
func stayUp(ctx context.Context, s *stack.Stack, out io.Writer) error {
	_, port, err := net.SplitHostPort(s.Listeners["hooks"])
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
Everything stays up until Ctrl-C. In another terminal:

  # GitHub's documented delivery, and with another body
  curl -k https://localhost:%[1]s/webhooks/github --data-binary 'Hello, World!' \
    -H 'x-hub-signature-256: %[2]s'
  curl -ik https://localhost:%[1]s/webhooks/github --data-binary 'Hello, Mallory!' \
    -H 'x-hub-signature-256: %[2]s'

  # what the application got, and what hookauthz counted
  curl http://%[3]s/received
  curl http://%[4]s/metrics | grep hookauthz_decisions_total
`, port, githubSignature, s.AppAddr, s.AdminAddr)
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
		return nil
	case <-s.Envoy.Ended():
		return errors.New("envoy has ended")
	case <-s.Hookauthz.Ended():
		return errors.New("hookauthz has ended")
	case <-s.App.Ended():
		return errors.New("the application has ended")
	}
}
