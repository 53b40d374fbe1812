package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The test starts itself as the no-op, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-noop" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A run with tiny rounds measures servers of each kind, holds every reply and the log to what it claims, and says that these are no results.
func TestRun(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the CPU time of other processes is read as Linux shows it")
	}
	dir := t.TempDir()
	server := filepath.Join(dir, "hookauthz")
	if out, err := exec.Command("go", "build", "-o", server, "..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "performance.md")
	var out, progress bytes.Buffer
	args := []string{"-server", server, "-rounds", "2", "-period", "20ms", "-write", file,
		"-rows", "TCP, 2 KiB, (no-op|full policy|denied.*)$|socket, 2 KiB, full|10x|profile, 2 KiB$"}
	if err := run(context.Background(), args, &out, &progress); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != out.String() {
		t.Errorf("what is written differs from what is printed (%v)", err)
	}
	for _, want := range []string{
		"2 rounds of 20ms", "these are no results", "| full policy ", "| denied: no policy ", "## Checks over a unix socket", "| 10x overload ", "| HMAC-SHA-256 of the body ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
	if !strings.Contains(progress.String(), "round 1 of 2") {
		t.Errorf("no progress is told: %q", progress.String())
	}
}

// A reply that is not as it must be ends the run.
func TestRunRefusesWrongReplies(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b := &bench{dir: t.TempDir()}
	address, admin := b.freeAddress(), b.freeAddress()
	served := make(chan error, 1)
	go func() { served <- serveNoop(ctx, address, admin) }()
	conns, err := dial(ctx, address, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	s := &server{conns: conns}
	m, err := newMessage(delivery{size: small, forged: true}, asCheck)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.checkers(m, 1, false)[0](ctx); err == nil || !strings.Contains(err.Error(), "allowed") {
		t.Errorf("an allow in a row of denials: %v", err)
	}
	callers := s.crowd(m, m, forgedShare)
	for range forgedShare {
		_, err = callers[0](ctx)
		if err != nil {
			break
		}
	}
	if err != errWronglyAllowed {
		t.Errorf("an allow of a forged delivery under overload: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestRunRefusesWrongFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-rounds 0", "more than 0"},
		{"-sizes 2048,1000", `"1000" is none of`},
		{"-rows (", "-rows"},
		{"-server /nonexistent", "make build"},
		{"-server /bin/sh -rows nothing", "no row matches"},
	} {
		err := run(context.Background(), strings.Fields(c.args), &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q in it", c.args, err, c.want)
		}
	}
}
