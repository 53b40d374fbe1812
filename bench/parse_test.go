package main

import (
	"bufio"
	"maps"
	"strings"
	"testing"
)

func TestParseMemory(t *testing.T) {
	const status = "Name:\tbench\nVmPeak:\t 1822344 kB\nVmHWM:\t   52480 kB\nVmRSS:\t   50964 kB\nThreads:\t9\n"
	now, peak, err := parseMemory([]byte(status))
	if now != 50964<<10 || peak != 52480<<10 || err != nil {
		t.Errorf("got %d, %d, %v", now, peak, err)
	}
	for name, bad := range map[string]string{
		"a kernel thread": "Name:\tkthreadd\nThreads:\t1\n",
		"no unit":         strings.Replace(status, "50964 kB", "50964", 1),
		"no number":       strings.Replace(status, "52480", "?", 1),
		"empty":           "",
	} {
		if now, peak, err := parseMemory([]byte(bad)); err == nil {
			t.Errorf("%s: got %d, %d", name, now, peak)
		}
	}
}

func TestParseMetrics(t *testing.T) {
	const text = `# HELP go_memstats_mallocs_total Total number of heap objects allocated, both live and gc-ed.
# TYPE go_memstats_mallocs_total counter
go_memstats_mallocs_total 1.5e+06
hookauthz_store_errors_total{op="take"} 2
hookauthz_store_errors_total{op="a } b"} 3

`
	got, err := parseMetrics(strings.NewReader(text))
	if want := (map[string]float64{"go_memstats_mallocs_total": 1.5e6, "hookauthz_store_errors_total": 5}); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := parseMetrics(strings.NewReader("go_goroutines many\n")); err == nil {
		t.Errorf("got %v of a metric that is no number", got)
	}
}

func TestReadMessage(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nserver: envoy\r\n\r\nHTTP/HTTP/1.1 403 Forbidden\r\ndate: now\r\ncontent-length: 0\r\n\r\n"+
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), 64)
	for _, want := range []string{"HTTP/1.1 200 OK", "HTTP/1.1 403 Forbidden"} {
		if got, err := readMessage(r); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if got, err := readMessage(r); err == nil {
		t.Errorf("got %q of a message whose end is not told", got)
	}
}

func TestVersionText(t *testing.T) {
	for _, c := range []struct{ name, said, want string }{
		{"envoy", "\n/x/y/envoy  version: 0123abcd/1.40.0/Clean/RELEASE/BoringSSL", "Envoy 1.40.0"},
		{"valkey", "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=0", "Valkey server v=9.1.2"},
		{"valkey", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", "Redis server v=7.0.15"},
		{"valkey", "", ""},
	} {
		if got := versionText(c.name, strings.TrimSpace(c.said)); got != c.want {
			t.Errorf("%q: got %q, want %q", c.said, got, c.want)
		}
	}
}
