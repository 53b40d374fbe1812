package main

import (
	"testing"

	"github.com/google/pprof/profile"
)

func TestPartOf(t *testing.T) {
	const (
		worker  = "google.golang.org/grpc.(*Server).serverWorker"
		check   = ours + "extauthz/server.go"
		decide  = ours + "policy/engine.go"
		reader  = "google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams"
		writer  = "google.golang.org/grpc/internal/transport.(*loopyWriter).run"
		syscall = "internal/runtime/syscall/linux.Syscall6"
	)
	for _, tt := range []struct {
		name  string
		stack []string // the innermost first
		want  part
	}{
		{"hash", []string{"crypto/internal/fips140/sha256.blockSHANI", ours + "policy/signature/match.go", decide, check, worker}, hashPart},
		{"signature", []string{"runtime.memmove", ours + "policy/signature/parse.go", decide, check, worker}, signaturePart},
		{"state", []string{"runtime.mapaccess1", ours + "policy/store/memory.go", decide, check, worker}, statePart},
		{"hash of a key", []string{"crypto/internal/fips140/sha256.blockSHANI", ours + "policy/store/redis.go", decide, check, worker}, statePart},
		{"reply of the store", []string{syscall, "bufio.(*Reader).Read", "github.com/redis/rueidis.(*pipe)._backgroundRead"}, statePart},
		{"decision", []string{ours + "policy/source/source.go", decide, check, worker}, decisionPart},
		{"read", []string{ours + "extauthz/decode.go", check, worker}, readPart},
		{"write", []string{"slices.Insert", ours + "extauthz/respond.go", check, worker}, writePart},
		{"log of the check", []string{ours + "lines/handler.go", ours + "extauthz/log.go", check, worker}, logPart},
		{"log written", []string{syscall, "os.(*File).Write", ours + "lines/writer.go"}, logPart},
		{"metrics", []string{"github.com/prometheus/client_golang/prometheus.(*histogram).observe", ours + "extauthz/metrics.go", check, worker}, metricsPart},
		{"bounds", []string{"sync.(*Mutex).Lock", ours + "extauthz/budget.go", check, worker}, callPart},
		{"tap", []string{ours + "extauthz/server.go", "google.golang.org/grpc/internal/transport.(*http2Server).operateHeaders", reader}, callPart},
		{"receiving", []string{syscall, "bufio.(*Reader).Read", reader}, receivePart},
		{"sending", []string{syscall, "net.(*conn).Write", writer}, sendPart},
		{"reply handed over", []string{"runtime.chansend", "google.golang.org/grpc.(*serverStream).SendMsg", check, worker}, grpcPart},
		{"message awaited", []string{"runtime.selectgo", "google.golang.org/grpc/internal/transport.(*recvBufferReader).read", ours + "extauthz/message.go", check, worker}, grpcPart},
		{"call", []string{"context.WithValue", "google.golang.org/grpc.(*Server).handleStream", worker}, grpcPart},
		{"scheduler", []string{"runtime.findRunnable", "runtime.mcall"}, runtimePart},
		{"collector", []string{"runtime.scanObject", "runtime.gcBgMarkWorker"}, runtimePart},
	} {
		if got := partOf(tt.stack); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFrame(t *testing.T) {
	for name, want := range map[string]string{
		ours + "policy/store.(*Memory).Take": ours + "policy/store/memory.go",
		ours + "policy.(*check).decide":      ours + "policy/memory.go",
		"runtime.mallocgc":                   "runtime.mallocgc",
	} {
		if got := frame(&profile.Function{Name: name, Filename: "/somewhere/memory.go"}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
