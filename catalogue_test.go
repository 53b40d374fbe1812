package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature"
)

// outcome is what a command did.
type outcome struct {
	code           int
	stdout, stderr string
}

// command runs a command in this process.
func command(env map[string]string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), process{
		args:   args,
		lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		stdin:  strings.NewReader(""),
		stdout: &stdout,
		stderr: &stderr,
		now:    func() time.Time { return time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC) },
	})
	return outcome{code, stdout.String(), stderr.String()}
}

// secretForms are secrets in the forms that senders hand out; a scheme takes at least one.
func secretForms() []string {
	raw := []byte("not for the eyes of others")
	return []string{
		"whsec_" + base64.StdEncoding.EncodeToString(raw),
		base64.StdEncoding.EncodeToString(raw),
		"6e6f7420666f7220746865206579657320",
		string(raw),
	}
}

// unsigned are the presets for which sign makes no delivery, and why.
var unsigned = map[string]string{
	"gitlab-token": "the token is the secret itself, and JSON would print it",
}

// bodies are those of presets for which a JSON body makes no delivery.
var bodies = map[string]string{
	"braintree": "bt_payload=PGE%2BPC9hPg%3D%3D",
}

// Whatever the sender, what sign makes by the policy that schemes shows is what decide allows, and no output holds the secret.
func TestSignThenDecide(t *testing.T) {
	const body = `{"id":"evt_1","type":"test.event","timestamp":1795507200}`
	allowed := 0
	for _, info := range signature.Presets() {
		t.Run(info.Name, func(t *testing.T) {
			d, err := describe(info)
			if err != nil {
				t.Fatal(err)
			}
			if d.Facts.PublicKey {
				return // the private key is the sender's
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(d.Policy), 0o600); err != nil {
				t.Fatal(err)
			}
			bodyFile := filepath.Join(t.TempDir(), "body")
			if err := os.WriteFile(bodyFile, []byte(cmp.Or(bodies[info.Name], body)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(d.Policy, "env: ")
			variable, _, _ := strings.Cut(rest, "}")

			var made outcome
			var env map[string]string
			for _, form := range secretForms() {
				env = map[string]string{variable: form}
				made = command(env, "sign", "--policies", dir, "--endpoint", info.Name, "--body", bodyFile, "-o", "json")
				quiet(t, env, made)
				quiet(t, env, command(env, "sign", "--policies", dir, "--endpoint", info.Name, "--body", bodyFile))
				quiet(t, env, command(env, "validate", dir))
				if made.code == 0 {
					break
				}
			}
			why, expected := unsigned[info.Name]
			if expected != (made.code != 0) {
				t.Fatalf("sign ends with %d and it is known that %q:\n%s", made.code, why, made.stderr)
			}
			if expected {
				return
			}
			var delivery signed
			if err := json.Unmarshal([]byte(made.stdout), &delivery); err != nil {
				t.Fatal(err)
			}
			sent, err := base64.StdEncoding.DecodeString(delivery.BodyBase64)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(bodyFile, sent, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"decide", "--policies", dir, "--body", bodyFile, "-X", delivery.Method}
			for _, h := range delivery.Headers {
				args = append(args, "-H", h.Name+": "+h.Value)
			}
			got := command(env, append(args, delivery.URL)...)
			quiet(t, env, got)
			if got.code != 0 || !strings.HasPrefix(got.stdout, "allow: ok\n") {
				t.Errorf("sign made\n%s\ndecide says\n%s%s", made.stdout, got.stdout, got.stderr)
				return
			}
			allowed++
		})
	}
	t.Logf("%d of %d schemes go round", allowed, len(signature.Presets()))
}

// quiet fails if any secret is in what a command printed.
func quiet(t *testing.T, env map[string]string, o outcome) {
	t.Helper()
	for _, value := range env {
		for _, spelling := range []string{value, base64.StdEncoding.EncodeToString([]byte(value)), strings.TrimPrefix(value, "whsec_")} {
			if strings.Contains(o.stdout+o.stderr, spelling) {
				t.Errorf("the secret %q is in the output:\n%s%s", value, o.stdout, o.stderr)
			}
		}
	}
}
