package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// patience bounds every wait for a condition. Nothing takes nearly as long on a machine that works.
const patience = 30 * time.Second

// root is the checkout.
const root = ".."

// The programs, and the stack that most tests share.
var (
	binaries stack.Binaries
	envoy    string
	shared   *stack.Stack
)

// skipped says why no test can run; empty where they can.
var skipped string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if envoy, err = findEnvoy(); err != nil {
		if os.Getenv("CI") == "true" {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		skipped = err.Error()
		fmt.Fprintln(os.Stderr, "e2e: every test is skipped:", err)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "hookauthz-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // everything may have to be compiled
	defer cancel()
	if binaries, err = stack.Build(ctx, root, dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	shared, err = upShared(ctx, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	code := 1
	if err == nil {
		code = m.Run()
		fmt.Printf("e2e: %d cases through %s\n", cases.Load(), envoy)
	}
	if err := shared.Down(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: at the end:", err)
		code = 1
	}
	if code != 0 {
		showLogs(shared)
	}
	return code
}

// findEnvoy finds the Envoy that scripts/envoy would, but installs none.
func findEnvoy() (string, error) {
	if path := os.Getenv("HOOKAUTHZ_ENVOY"); path != "" {
		return path, envoyFits(path)
	}
	if path, err := exec.LookPath("envoy"); err == nil && envoyFits(path) == nil {
		return path, nil
	}
	cached, err := filepath.Glob(filepath.Join(root, ".cache", "envoy-1.*", "envoy", "_bin", "envoy"))
	if err != nil {
		return "", err
	}
	for _, path := range cached {
		if envoyFits(path) == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("no envoy 1.40 on PATH or in .cache; scripts/envoy installs one, HOOKAUTHZ_ENVOY names one")
}

var goodEnvoy = regexp.MustCompile(`version: [0-9a-f]+/(1\.40\.|1\.39\.[1-9])`)

func envoyFits(path string) error {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	if !goodEnvoy.Match(out) {
		return fmt.Errorf("%s: %s: wanted envoy 1.40", path, strings.TrimSpace(string(out)))
	}
	return nil
}

// upShared starts the stack of most tests: the policies of examples/ and of testdata/ together, each with a route, and one more
// listener for every wiring that differs from the example's.
func upShared(ctx context.Context, dir string) (*stack.Stack, error) {
	policies, err := makePolicies(dir)
	if err != nil {
		return nil, err
	}
	return stack.Up(ctx, stack.Config{
		Root: root, Dir: dir, Binaries: binaries, Envoy: envoy, Policies: policies,
		Env: secretEnv, Edit: addRoutesAndListeners,
	})
}

// makePolicies lays a folder of policies out as examples/ has it: with the secrets beside it.
func makePolicies(dir string) (string, error) {
	policies := filepath.Join(dir, "policies")
	for from, to := range map[string]string{
		filepath.Join(root, "examples", "policies"): policies,
		filepath.Join(root, "examples", "secrets"):  filepath.Join(dir, "secrets"),
		filepath.Join("testdata", "policies"):       policies,
	} {
		if err := copyFiles(from, to); err != nil {
			return "", err
		}
	}
	return policies, nil
}

func copyFiles(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), text, 0o644)
	})
}

// cases counts what was run.
var cases atomic.Int64

// scenario runs one case, beside others.
func scenario(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		cases.Add(1)
		f(t)
	})
}

// setup is what each test that needs processes begins with.
func setup(t *testing.T) *stack.Stack {
	t.Helper()
	if skipped != "" {
		t.Skip(skipped)
	}
	return shared
}

// up starts a stack for one test: one that kills, reloads, or needs other arguments. The application is shared.
func up(t *testing.T, c stack.Config) *stack.Stack {
	t.Helper()
	c.App = setup(t).AppAddr
	c.Root, c.Binaries, c.Envoy = root, binaries, envoy
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Env = append(c.Env, secretEnv...)
	s, err := stack.Up(within(t), c)
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			showLogs(s)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// within is the context of a wait.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until a condition has no complaint.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	if err := stack.Poll(within(t), ok); err != nil {
		t.Fatal(err)
	}
}

func showLogs(s *stack.Stack) {
	for _, p := range []*stack.Process{s.Envoy, s.Hookauthz} {
		if p != nil {
			fmt.Fprintf(os.Stderr, "--- the end of the log of %s:\n%s\n", p.Name, p.Tail(40))
		}
	}
}
