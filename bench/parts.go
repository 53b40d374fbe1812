package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// part is a part of the work of a check, for which a profile shows the CPU time.
type part string

const (
	hashPart      part = "HMAC-SHA-256 of the body"
	signaturePart part = "the signature beside that"
	statePart     part = "limits and replay memory"
	decisionPart  part = "the rest of the decision"
	readPart      part = "reading CheckRequest"
	writePart     part = "writing CheckResponse"
	logPart       part = "the log line"
	metricsPart   part = "metrics"
	callPart      part = "bounds and deadlines of calls"
	receivePart   part = "grpc-go: receiving"
	sendPart      part = "grpc-go: sending"
	grpcPart      part = "grpc-go: calls"
	runtimePart   part = "scheduler and garbage collector"
)

var parts = []part{hashPart, signaturePart, statePart, decisionPart, readPart, writePart, logPart, metricsPart, callPart, receivePart, sendPart, grpcPart, runtimePart}

const ours = "github.com/hookauthz/hookauthz/"

// partPrefixes say by the beginning of a frame what it works for. The first one that fits is it. A hash that the signature does not ask for is
// part of what asks for it.
var partPrefixes = []struct {
	prefix string
	part   part
}{
	{ours + "policy/signature/", signaturePart},
	{ours + "policy/store/", statePart},
	{"github.com/redis/rueidis", statePart},
	{ours + "policy/", decisionPart},
	{ours + "extauthz/decode.go", readPart},
	{ours + "extauthz/respond.go", writePart},
	{ours + "extauthz/log.go", logPart},
	{ours + "extauthz/denials.go", logPart},
	{ours + "lines/", logPart},
	{ours + "extauthz/metrics.go", metricsPart},
	{ours + "extauthz/series.go", metricsPart},
	{ours, callPart},
	{"google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams", receivePart},
	{"google.golang.org/grpc/internal/transport.(*loopyWriter).run", sendPart},
	{"google.golang.org/grpc.(*Server).serverWorker", grpcPart},
}

const (
	grpcPrefix = "google.golang.org/grpc"
	hashPrefix = "crypto/internal/fips140/"
)

// frame is a function as partPrefixes have it: one of ours is named by its package and file.
func frame(f *profile.Function) string {
	if rest, ok := strings.CutPrefix(f.Name, ours); ok {
		name, _, _ := strings.Cut(rest, ".")
		return ours + name + "/" + path.Base(f.Filename)
	}
	return f.Name
}

// partOf says what a stack of frames, the innermost first, works for. What grpc-go and the runtime do is found by where they began.
func partOf(stack []string) part {
	called, hash := false, false // called: by us
	for _, f := range stack {
		hash = hash || strings.HasPrefix(f, hashPrefix)
		for _, p := range partPrefixes {
			switch {
			case !strings.HasPrefix(f, p.prefix):
				continue
			case called && strings.HasPrefix(f, ours):
				return grpcPart
			case hash && p.part == signaturePart:
				return hashPart
			}
			return p.part
		}
		called = called || strings.HasPrefix(f, grpcPrefix)
	}
	return runtimePart
}

// partsOf adds up a CPU profile by part: the share of each.
func partsOf(data []byte) (map[part]float64, error) {
	p, err := profile.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the profile: %w", err)
	}
	shares, all := make(map[part]float64), 0.0
	for _, s := range p.Sample {
		var stack []string
		for _, l := range s.Location {
			for _, line := range l.Line {
				stack = append(stack, frame(line.Function))
			}
		}
		value := float64(s.Value[len(s.Value)-1])
		shares[partOf(stack)] += value
		all += value
	}
	for p := range shares {
		shares[p] /= all
	}
	return shares, nil
}

// work is where the CPU time of a check goes.
type work struct {
	what   string
	micros float64
	shares map[part]float64
}

// profiled is what a profile is made of. It is named as a row is.
type profiled struct {
	size   int
	atOnce int
	shared bool // the store
}

func (p profiled) String() string { return "profile, " + p.what() }

func (p profiled) what() string {
	text := sizeText(p.size)
	if p.shared {
		text += ", shared store"
	}
	if p.atOnce > 0 {
		text += fmt.Sprintf(", %d at once", p.atOnce)
	}
	return text
}

func (b *bench) planWork() []profiled {
	all := []profiled{{size: small}, {size: small, shared: true}, {size: small, atOnce: busy}, {size: small, atOnce: busy, shared: true}, {size: medium}, {size: large}}
	return slices.DeleteFunc(all, func(p profiled) bool { return !slices.Contains(b.sizes, p.size) || !b.rows.MatchString(p.String()) })
}

// measureWork profiles the full policy.
func (b *bench) measureWork(ctx context.Context) ([]work, error) {
	var all []work
	for _, p := range b.planWork() {
		b.tell("", p.String())
		w, err := b.profileOne(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (b *bench) profileOne(ctx context.Context, p profiled) (work, error) {
	s, err := b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec, shared: p.shared, flags: []string{"--pprof"}})
	if err != nil {
		return work{}, err
	}
	defer b.endServer(s)
	m, err := newMessage(delivery{size: p.size}, asCheck)
	if err != nil {
		return work{}, err
	}
	period := max(5*b.period, time.Second) // the shortest that a server profiles
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := s.profile(ctx, period)
		done <- result{data, err}
	}()
	l, err := drive(ctx, s.checkers(m, cmp.Or(p.atOnce, b.concurrency), true), b.warmUp(), period, s.process)
	if err != nil {
		return work{}, err
	}
	r := <-done
	if r.err != nil {
		return work{}, r.err
	}
	shares, err := partsOf(r.data)
	return work{p.what(), float64(l.cpu[0].Nanoseconds()) / 1e3 / float64(l.all()), shares}, err
}

func workTable(p *page, all []work) {
	if len(all) == 0 {
		return
	}
	head, sum := []string{"CPU µs/check"}, []string{"all"}
	for _, w := range all {
		head = append(head, w.what, "")
		sum = append(sum, number("%.1f", w.micros), "")
	}
	cells := [][]string{head}
	for _, name := range parts {
		line := []string{string(name)}
		for _, w := range all {
			line = append(line, number("%.1f", w.micros*w.shares[name]), number("%.0f %%", 100*w.shares[name]))
		}
		cells = append(cells, line)
	}
	p.text("## Where the CPU goes")
	p.table(append(cells, sum))
	p.text("A profile of the full policy over TCP: each sample counts for the innermost function that belongs to a part, the kernel's work for who asked for it.")
}
