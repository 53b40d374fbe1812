package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// startStore starts a Valkey, unless one is given or started already, and returns its URL.
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
	if err != nil {
		return "", err
	}
	b.storeURL = fmt.Sprintf("redis://%s/0", address)
	return b.storeURL, nil
}
