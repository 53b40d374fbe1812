package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/policy"
)

// folderOf is a folder of n policies like those that people write, 100 to a file.
func folderOf(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: hook-%d, labels: {team: ci}}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/%d]}
  body: {maxBytes: 2MiB, contentTypes: [application/json]}
  source: {allow: [192.30.252.0/22, 185.199.108.0/22, "2a0a:a440::/29"]}
  signature:
    scheme: github
    secrets:
      - {version: "2026-10", env: SECRET}
      - {version: "2026-04", env: OLD, notAfter: 2026-12-01T00:00:00Z}
  failures: {limit: 20/minute}
  rateLimits:
    - {name: endpoint, limit: 100/minute, burst: 20}
  replay: {window: 24h, onDuplicate: tag}
`, i, i)
		if i%100 == 99 || i == n-1 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.yaml", i)), []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
	return dir
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := folderOf(b, n)
			options := policy.LoadOptions{LookupEnv: func(name string) (string, bool) { return "a secret of 32 bytes: " + name, true }}
			b.ReportAllocs()
			for b.Loop() {
				set, err := policy.Load(dir, options)
				if err != nil || set.Len() != n {
					b.Fatal(err)
				}
			}
		})
	}
}
