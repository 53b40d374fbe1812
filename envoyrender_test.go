package main

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

var update = flag.Bool("update", false, "write examples/envoy.yaml")

func TestExampleIsUpToDate(t *testing.T) {
	var stdout, stderr strings.Builder
	code := run(context.Background(), process{
		args:   append([]string{"envoy", "render", "--policies", "examples/policies"}, stack.RenderFlags()...),
		lookup: func(string) (string, bool) { return "", false },
		stdin:  strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now,
	})
	if code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, want 0 and nothing said: %s", code, &stderr)
	}
	const file = "examples/envoy.yaml"
	if *update {
		if err := os.WriteFile(file, []byte(stdout.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(stdout.String(), "\n")); diff != "" {
		t.Errorf("%s is stale; run make envoy (-want +got):\n%s", file, diff)
	}
}
