package policy_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// exampleFolder is a folder with one policy file.
func exampleFolder(yaml string) (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "policies")
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "github.yaml"), []byte(yaml), 0o600); err != nil {
		panic(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// Load tells every fault of a folder at once, with its place and what to write instead.
func ExampleLoad() {
	dir, remove := exampleFolder(`apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: github-ci}
spec:
  match: {paths: [/webhooks/github]}
  body:
    maxBytez: 2MiB
  signature:
    scheme: gihub
    secrets: [{version: "1", env: GITHUB_WEBHOOK_SECRET}]
`)
	defer remove()
	_, err := policy.Load(dir, policy.LoadOptions{})
	for _, fault := range err.(policy.Faults) {
		fault.File = filepath.Base(fault.File)
		fmt.Println(fault)
	}
	// Output:
	// github.yaml:7:5: webhook "github-ci": unknown key "maxBytez"; did you mean "maxBytes"?
	// github.yaml:9:13: webhook "github-ci": no scheme is named "gihub"; did you mean "github"?
}

// Decide is the verdict on one delivery, here the one that GitHub documents for testing.
func ExampleEngine_Decide() {
	dir, remove := exampleFolder(`apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: github-ci}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/github]}
  signature:
    scheme: github
    secrets: [{version: "1", env: GITHUB_WEBHOOK_SECRET}]
`)
	defer remove()
	set, err := policy.Load(dir, policy.LoadOptions{
		LookupEnv: func(string) (string, bool) { return "It's a Secret to Everybody", true },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	engine := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
	delivery := policy.Request{
		Time:   time.Now(),
		Method: "POST",
		Host:   "hooks.example.com",
		Path:   "/webhooks/github",
		Peer:   netip.MustParseAddr("192.30.252.1"),
		Headers: []policy.Header{
			{Name: "x-hub-signature-256", Value: "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
		},
		Body:      [][]byte{[]byte("Hello, World!")},
		BodyState: policy.WholeBody,
	}
	d := engine.Decide(context.Background(), &delivery)
	fmt.Println(d.Outcome, d.Reason, d.Endpoint, d.SecretVersion)

	delivery.Body = [][]byte{[]byte("Hello, world!")}
	d = engine.Decide(context.Background(), &delivery)
	fmt.Println(d.Outcome, d.Reason, d.Status)
	// Output:
	// allow ok github-ci 1
	// deny signature_mismatch 401
}
