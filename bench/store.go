package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// startShared starts a hookauthz with a shared store.
func (b *bench) startShared(ctx context.Context) (*server, error) {
	url, err := b.startStore(ctx)
	if err != nil {
		return nil, err
	}
	return b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec, storeURL: url})
}

// startStore starts a Valkey, unless one is given, and returns its URL.
func (b *bench) startStore(ctx context.Context) (string, error) {
	if b.storeURL != "" {
		return b.storeURL, nil
	}
	path, err := b.tool(ctx, "valkey")
	if err != nil {
		return "", err
	}
	address := b.freeAddress()
	host, port, _ := strings.Cut(address, ":")
	p, err := start("valkey", nil, nil, path, "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err != nil {
		return "", err
	}
	b.running = append(b.running, p)
	err = p.wait(ctx, func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
	b.storeURL = fmt.Sprintf("redis://%s/0", address)
	return b.storeURL, err
}
