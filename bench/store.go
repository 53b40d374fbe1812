package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// startStore starts a Valkey, unless one is given, and returns it with its URL.
func (b *bench) startStore(ctx context.Context) (*process, string, error) {
	if b.storeURL != "" {
		return nil, b.storeURL, nil
	}
	path, err := b.tool(ctx, "valkey")
	if err != nil {
		return nil, "", err
	}
	address := b.freeAddress()
	host, port, _ := strings.Cut(address, ":")
	p, err := start("valkey", nil, nil, path, "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err != nil {
		return nil, "", err
	}
	b.running = append(b.running, p)
	err = p.wait(ctx, func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return p, fmt.Sprintf("redis://%s/0", address), err
}
