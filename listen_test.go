package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authz.sock")
	l, err := listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o660; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
	if got := l.Addr().String(); got != path {
		t.Errorf("address %q, want %q", got, path)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	conn.Close()

	if _, err := listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("a second server: error %v, want one that says it is in use", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("connecting after the second server was refused: %v", err)
	} else {
		conn.Close()
	}

	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after Close: %v, want it gone", err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// abandon makes a socket that nobody listens at.
func abandon(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestListenUnixTakesOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authz.sock")
	abandon(t, path)
	abandon(t, path+".new")
	l, err := listen("unix:" + path)
	if err != nil {
		t.Fatalf("with a socket that nobody listens at: %v", err)
	}
	l.Close()
}

// A file that is not a socket is never removed.
func TestListenUnixKeepsFiles(t *testing.T) {
	for _, name := range []string{"authz.sock", "authz.sock.new"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
		if l, err := listen("unix:" + filepath.Join(dir, "authz.sock")); err == nil {
			l.Close()
			t.Errorf("%s is a file: no error", name)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "precious" {
			t.Errorf("%s now holds %q, %v", name, b, err)
		}
	}
}

// A socket that another server has put in the place of ours is not ours to remove.
func TestCloseKeepsTheSocketOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authz.sock")
	first, err := listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the second server after the first was closed: %v", err)
	}
	conn.Close()
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		address, resolved string
		local             bool
	}{
		{"127.0.0.1:9001", "127.0.0.1:9001", true},
		{"127.9.9.9:9001", "127.9.9.9:9001", true},
		{"localhost:9001", "127.0.0.1:9001", true},
		{"[::1]:9001", "[::1]:9001", true},
		{"[::ffff:127.0.0.1]:9001", "127.0.0.1:9001", true},
		{"unix:/run/a.sock", "unix:/run/a.sock", true},
		{":9001", ":9001", false},
		{"0.0.0.0:9001", "0.0.0.0:9001", false},
		{"[::]:9001", "[::]:9001", false},
		{"192.0.2.1:9001", "192.0.2.1:9001", false},
		{"10.0.0.1:9001", "10.0.0.1:9001", false},
	} {
		resolved, local, err := resolve("listen", c.address)
		if err != nil || resolved != c.resolved || local != c.local {
			t.Errorf("resolve(%q) = %q, local %t, %v; want %q, local %t", c.address, resolved, local, err, c.resolved, c.local)
		}
	}
	for _, address := range []string{"", "9001", "unix:", "unix:@abstract", "127.0.0.1", "no.such.invalid:9001", "127.0.0.1:99999"} {
		if resolved, _, err := resolve("listen", address); err == nil {
			t.Errorf("resolve(%q) = %q, want an error", address, resolved)
		}
	}
}
