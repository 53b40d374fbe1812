package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// listen opens the listener at an address: host:port, or unix:/path.
func listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(path)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, failed("give another --listen or --admin, or end the program that listens there", "listening at %q: %w", address, err)
	}
	return l, nil
}

// resolve turns an address to listen at into one that needs no look-up any more, and says whether only this machine can reach it: a
// unix socket, or loopback.
func resolve(flag, address string) (resolved string, local bool, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		switch {
		case path == "":
			return "", false, misused("write it as unix:/run/hookauthz/authz.sock", "--%s %q is no address to listen at", flag, address)
		case strings.HasPrefix(path, "@"):
			return "", false, misused("give a path: its folder and mode say who may connect", "--%s %q is an abstract socket, which everybody on this machine may connect to", flag, address)
		}
		return address, true, nil
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	if err == nil && address == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", false, misused("write it as 127.0.0.1:9001 or unix:/run/hookauthz/authz.sock", "--%s %q is no address to listen at: %w", flag, address, err)
	}
	return a.String(), a.IP.IsLoopback(), nil
}

// socketMode lets the group connect as well: Envoy often runs as another user.
const socketMode = 0o660

// listenUnix opens a unix socket. It takes the place of a socket that nobody listens at any more, and of nothing else.
func listenUnix(path string) (net.Listener, error) {
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	// The socket gets its mode under another name, so that nobody can connect before.
	hidden := path + ".new"
	if err := clearSocket(hidden); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: hidden})
	if err != nil {
		return nil, fmt.Errorf("listening at the socket %q: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would look for the other name
	var info fs.FileInfo
	for _, step := range []func() error{
		func() error { return os.Chmod(hidden, socketMode) },
		func() error { return os.Rename(hidden, path) },
		func() error { info, err = os.Lstat(path); return err },
	} {
		if err := step(); err != nil {
			l.Close()
			os.Remove(hidden)
			return nil, fmt.Errorf("listening at the socket %q: %w", path, err)
		}
	}
	return &unixListener{Listener: l, path: path, file: info}, nil
}

// clearSocket removes a socket that nobody listens at.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the socket %q: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return failed("give another path, or remove the file if nobody needs it", "%q exists and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return failed("end the other server first, or give another path", "the socket %q is in use", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket %q that nobody listens at: %w", path, err)
	}
	return nil
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
	file fs.FileInfo
}

func (l *unixListener) Close() error {
	// Another server may have put its own socket there.
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }
