// Command hookauthz is an Envoy external-authorization server for webhooks: Envoy asks it about each delivery before the
// application sees it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"time"
)

func main() {
	os.Exit(run(context.Background(), process{
		args:    os.Args[1:],
		lookup:  os.LookupEnv,
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		now:     time.Now,
		signals: signal.Notify,
	}))
}

// process is what a command may use of the process it runs in.
type process struct {
	args           []string
	lookup         func(string) (string, bool) // environment variables
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	signals        func(chan<- os.Signal, ...os.Signal)
}

// run executes one command line and returns its exit code: 0, 1 it failed or denied, 2 wrong usage.
func run(ctx context.Context, p process) int {
	root := newRoot(p)
	return report(p.stderr, root.ExecuteContext(ctx))
}
