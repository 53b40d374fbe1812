package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// secret signs every delivery; the servers have it from the environment.
const secret = "a secret of the benchmark, 32 byte"

// fullSpec makes every step work: address list, signature, failures, limit, and replay memory that records each delivery and forgets it
// within the run, so that both are part of the cost. It denies what is not new, so that every allow proves that the delivery was.
const fullSpec = `  source: {allow: [127.0.0.0/8, 192.0.2.0/24, "2001:db8::/32"]}
  signature: {scheme: github, secrets: [{version: "1", env: BENCH_SECRET}]}
  failures: {limit: 60/minute}
  rateLimits: [{limit: 1000000/second}]
  replay: {window: 30s, onDuplicate: deny}
`

// signatureSpec checks the signature and keeps no state.
const signatureSpec = `  signature: {scheme: github, secrets: [{version: "1", env: BENCH_SECRET}]}
  failures: unlimited
  replay: {onDuplicate: allow}
`

// policiesPerFile is how many policies share a file: a folder of 10,000 has 100 files.
const policiesPerFile = 100

// policyText is one policy file, with the policies from first to before end.
func policyText(first, end int, spec string) string {
	var b strings.Builder
	for i := first; i < end; i++ {
		if i > first {
			b.WriteString("---\n")
		}
		fmt.Fprintf(&b, `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: bench-%05d}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/bench-%05[1]d]}
  body: {maxBytes: 2MiB, contentTypes: [application/json]}
%s`, i, spec)
	}
	return b.String()
}

// writePolicies fills a new folder of this name.
func writePolicies(dir string, count int, spec string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for first := 0; first < count; first += policiesPerFile {
		text := policyText(first, min(first+policiesPerFile, count), spec)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.yaml", first)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
