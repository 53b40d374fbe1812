package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		// The program itself, at a fixed moment where a script asks for one.
		"hookauthz": func() {
			now := time.Now
			if text := os.Getenv("TEST_NOW"); text != "" {
				at, err := time.Parse(time.RFC3339, text)
				if err != nil {
					panic(err)
				}
				now = func() time.Time { return at }
			}
			os.Exit(run(context.Background(), process{
				args:    os.Args[1:],
				lookup:  os.LookupEnv,
				stdin:   os.Stdin,
				stdout:  os.Stdout,
				stderr:  os.Stderr,
				now:     now,
				signals: signal.Notify,
			}))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(3 * time.Minute), // for a server that starts where it should not
		Setup: func(e *testscript.Env) error {
			// A program with the race detector sleeps for a second at its end unless it is told not to.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":      exitCode,
			"chop":      chop,
			"await":     await,
			"awaitcode": awaitCode,
			"dropline":  dropLine,
		},
	})
}

// exitCode is "code N program arguments...": the program must end with this code.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOf(ts, args[1:]); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// dropLine is "dropline N file": removes a line.
func dropLine(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	lines := slices.Collect(strings.Lines(ts.ReadFile(args[1])))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(slices.Delete(lines, n-1, n), "")), 0o644))
}

// codeOf runs a program and gives its exit code.
func codeOf(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		ts.Fatalf("running %q: %v", args, err)
	}
	return 0
}

// awaitCode is "awaitcode N program arguments...": runs the program until it ends with this code.
func awaitCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for deadline := time.After(10 * time.Second); codeOf(ts, args[1:]) != want; {
		select {
		case <-deadline:
			ts.Fatalf("no exit code %d after 10 s", want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// chop is "chop file...": removes the newline at the end of each file, which an archive always has.
func chop(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := ts.ReadFile(name)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(strings.TrimSuffix(text, "\n")), 0o644))
	}
}

// await is "await file": waits until it is there.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.After(10 * time.Second); ; {
		if _, err := os.Lstat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%s is not there after 10 s", args[0])
		case <-time.After(5 * time.Millisecond):
		}
	}
}
