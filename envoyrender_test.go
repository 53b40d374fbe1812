package main

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write examples/envoy.yaml")

// exampleArgs makes examples/envoy.yaml, with the addresses and files of docker-compose.yml.
var exampleArgs = []string{
	"envoy", "render", "--policies", "examples/policies",
	"--upstream", "app:8080", "--listen", "0.0.0.0:8443", "--authz", "hookauthz:9001", "--admin-port", "9901",
	"--tls-cert", "/run/hookauthz-tls/hooks.pem", "--tls-key", "/run/hookauthz-tls/hooks.key",
	"--authz-ca", "/run/hookauthz-tls/ca.pem", "--authz-cert", "/run/hookauthz-tls/envoy.pem", "--authz-key", "/run/hookauthz-tls/envoy.key",
}

func TestExampleIsUpToDate(t *testing.T) {
	var stdout, stderr strings.Builder
	code := run(context.Background(), process{
		args: exampleArgs, lookup: func(string) (string, bool) { return "", false },
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: time.Now,
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
