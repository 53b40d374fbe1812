// Command bench measures what a check costs: the built hookauthz beside a no-op ext_authz server on the stock library, directly and through
// a real Envoy, interleaved over rounds in one run, so that their ratios hold even where the machine's speed drifts.
//
//	make bench                                  # everything, into docs/performance.md
//	go run ./bench -quick -rows 'TCP, 2 KiB'    # some rows, shortly
//	go run ./bench -profile cpu.pprof           # a CPU profile of hookauthz under a mixed load
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	rounds, concurrency int
	period              time.Duration
	sizes               []int
	rows                *regexp.Regexp
	server, storeURL    string
	self, dir           string // this program, and a folder for what is made
	stderr              io.Writer
	*progress

	started     int // servers, which numbers their files
	reloads     int
	running     []*process
	application *application
	versions    map[string]string // of Envoy and Valkey, once they are used
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	b := &bench{stderr: stderr, progress: newProgress(stderr), versions: make(map[string]string)}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&b.rounds, "rounds", 9, "rounds: from six on the interval of a median covers 95 %")
	flags.DurationVar(&b.period, "period", time.Second, "length of one measurement; of a profile 15s")
	flags.IntVar(&b.concurrency, "concurrency", 16, "checks under way at once; through Envoy twice as many requests")
	quick := flags.Bool("quick", false, "3 rounds of 200ms: to see that everything runs")
	sizes := flags.String("sizes", "2048,65536,1048576", "body sizes in bytes, of those three")
	rows := flags.String("rows", "", "`expression` of the rows to measure, such as 'TCP, 2 KiB' or Envoy")
	flags.StringVar(&b.server, "server", "./hookauthz", "hookauthz binary")
	flags.StringVar(&b.storeURL, "store", "", "`URL` of a Redis or Valkey to take as the shared store (default: start the one that scripts/valkey finds)")
	profile := flags.String("profile", "", "write a CPU profile of hookauthz under a mixed load to this `file`, and do nothing else")
	write := flags.String("write", "", "write the report to this `file` too")
	noop := flags.String("noop", "", "serve the no-op authorizer at these `addresses`, and do nothing else")
	noopAdmin := flags.String("noop-admin", "", "`address` of its metrics")
	busy := flags.Bool("busy", false, "keep one CPU busy, and do nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *noop != "" {
		return serveNoop(ctx, *noop, *noopAdmin)
	}
	if *busy {
		return keepBusy(ctx)
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *quick {
		b.rounds, b.period = 3, 200*time.Millisecond
	}
	if *profile != "" && !given["period"] {
		b.period = 15 * time.Second
	}
	if b.rounds < 1 || b.period <= 0 || b.concurrency < 1 {
		return errors.New("-rounds, -period and -concurrency must be more than 0")
	}
	if b.rows, err = regexp.Compile(*rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || !slices.Contains([]int{small, medium, large}, size) {
			return fmt.Errorf("-sizes: %q is none of %d, %d and %d", text, small, medium, large)
		}
		b.sizes = append(b.sizes, size)
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if _, err := exec.LookPath(b.server); err != nil {
		return fmt.Errorf("no hookauthz to measure (make build makes ./hookauthz): %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "hookauthz-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.endAll()
	if *profile != "" {
		return b.profile(ctx, *profile)
	}
	return b.measure(ctx, stdout, *write)
}

// measure measures everything and reports it.
func (b *bench) measure(ctx context.Context, stdout io.Writer, file string) error {
	begin := time.Now()
	rows := b.plan()
	if len(rows) == 0 && len(b.planWork()) == 0 {
		return fmt.Errorf("no row matches -rows %s and -sizes", b.rows)
	}
	o, err := b.measureAll(ctx, rows)
	b.progress.end()
	if err != nil {
		return err
	}
	report := b.report(rows, o, begin)
	if _, err := io.WriteString(stdout, report); err != nil {
		return err
	}
	if file == "" {
		return nil
	}
	return os.WriteFile(file, []byte(report), 0o644)
}

// onceOnly is what is measured once, after the rounds.
type onceOnly struct {
	sizes sizes
	work  []work
}

func (b *bench) measureAll(ctx context.Context, rows []*row) (o onceOnly, err error) {
	if err = b.measureRows(ctx, rows); err != nil {
		return o, err
	}
	if o.work, err = b.measureWork(ctx); err != nil {
		return o, err
	}
	o.sizes, err = b.measureSizes(ctx)
	return o, err
}

// tool is the path of a program that a script of the checkout finds or installs.
func (b *bench) tool(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("scripts", name))
	cmd.Stderr = b.stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/%s, to be run in the checkout: %w", name, err)
	}
	path := strings.TrimSpace(string(out))
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	b.versions[name] = strings.TrimSpace(string(version))
	return path, err
}

// endServer ends one server.
func (b *bench) endServer(s *server) {
	s.close()
	b.running = slices.DeleteFunc(b.running, func(p *process) bool { return p == s.process })
}

// endAll ends what was started, the last first.
func (b *bench) endAll() {
	for _, p := range slices.Backward(b.running) {
		p.stop()
	}
	if b.application != nil {
		b.application.stop()
	}
}
