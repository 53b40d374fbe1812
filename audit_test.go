package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"
)

// command runs another command against a server and gives its exit code and what it prints.
func (s *serving) command(args ...string) (code int, out string) {
	s.t.Helper()
	var text bytes.Buffer
	code = run(s.t.Context(), process{
		args:   append(args, "--admin-url", "http://"+s.admin),
		lookup: func(string) (string, bool) { return "", false },
		stdout: &text, stderr: &text, now: time.Now,
	})
	return code, text.String()
}

// Which deliveries were accepted with the leaked key: decisions are in the audit file where their policy says so, also after it was moved away.
func TestServeAudit(t *testing.T) {
	dir, key := folder(t)
	put(t, filepath.Join(dir, "b.yaml"), policyText("b", key)+"  log: {audit: all}\n")
	put(t, filepath.Join(dir, "c.yaml"), policyText("c", key)+"  log: {audit: denied}\n")
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	s := startServing(t, "--policies", dir, "--audit", file)
	conn := s.dial(insecure.NewCredentials())
	for i, c := range []struct{ path, secret, want string }{
		{"/a", "first", "ok"}, {"/a", "other", "signature_mismatch"},
		{"/b", "first", "ok"}, {"/b", "other", "signature_mismatch"},
		{"/c", "first", "ok"}, {"/c", "other", "signature_mismatch"},
	} {
		if got := reason(t, conn, delivery(c.path, c.secret, fmt.Sprint(i))); got != c.want {
			t.Fatalf("%s: %s, want %s", c.path, got, c.want)
		}
	}
	if code, out := s.command("revoke", "b", "1", "--why", "leak"); code != 0 || !strings.Contains(out, "no other version of b is in force") {
		t.Errorf("revoke: %d %s", code, out)
	}
	if got := reason(t, conn, delivery("/b", "first", "after")); got != "secret_expired" {
		t.Errorf("revoked: %s, want secret_expired", got)
	}
	query := func(args ...string) string {
		t.Helper()
		code, out := s.command(append([]string{"audit", "query"}, args...)...)
		if code != 0 {
			t.Errorf("query: %d %s", code, out)
		}
		return out
	}
	eventually(t, "the decisions are written", func() bool { return strings.Count(query("--kind", "decision"), "\n") == 4 })
	if out := query("--endpoint", "b", "--secret-version", "1", "--decision", "allow"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "decision  allow  ok  b  version 1  from 127.0.0.1") {
		t.Errorf("accepted with the leaked key: %s", out)
	}
	if out := query("--endpoint", "c"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "deny  signature_mismatch  c") {
		t.Errorf("denied alone: %s", out)
	}

	// It is moved away, and the chain goes on.
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	s.signals <- syscall.SIGHUP
	eventually(t, "there is a new file", func() bool { _, err := os.Stat(file); return err == nil })
	eventually(t, "it is intact", func() bool { code, _ := s.command("audit", "verify"); return code == 0 })
	s.signals <- syscall.SIGTERM
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if code, out := s.command("audit", "verify", file+".1", file); code != 0 || !strings.Contains(out, "as they were written") {
		t.Errorf("verify: %d %s", code, out)
	}
	if code, out := s.command("audit", "verify", os.DevNull); code != 0 || !strings.HasPrefix(out, "no lines\n") {
		t.Errorf("verify of nothing: %d %s", code, out)
	}
	text, err := os.ReadFile(file + ".1")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"first", "other", "sha256="} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the file holds %q:\n%s", secret, text)
		}
	}
}
