package test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var scratch string // the folder of the binary; empty until it is built

// binary is hookauthz, built once.
var binary = sync.OnceValues(func() (file string, err error) {
	if scratch, err = os.MkdirTemp("", "hookauthz-deploy-"); err != nil {
		return "", err
	}
	file = filepath.Join(scratch, "hookauthz")
	build := exec.Command("go", "build", "-o", file, ".")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if scratch != "" {
		os.RemoveAll(scratch)
	}
	os.Exit(code)
}

func run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), file, args...)
	c.Env = []string{}
	text, _ := c.CombinedOutput()
	return string(text), c.ProcessState.ExitCode()
}

// pod is what a container of hookauthz would find, in a folder in the place of its root.
type pod struct {
	root   string
	args   []string
	env    []string
	mounts []string
}

// certificate is a pair of PEM texts; it is its own authority.
var certificate = sync.OnceValues(func() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hookauthz"}, DNSNames: []string{"hookauthz"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		panic(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
})

// A policy for ConfigMaps that are somebody else's.
const somePolicy = `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: some}
spec:
  match: {paths: [/webhooks/some]}
  signature: {scheme: github, secrets: [{version: "1", file: ../own-secret}]}
`

// secretOf is what a file that comes from a Secret may hold.
func secretOf(file string) string {
	cert, key := certificate()
	switch filepath.Base(file) {
	case "tls.key":
		return key
	case "tls.crt", "ca.crt":
		return cert
	}
	return "4f1c9a7be2d05836a1f7c93e5b2d8064"
}

// newPod lays the volumes of the container out.
func newPod(t *testing.T, deployment object, all []object) *pod {
	t.Helper()
	p := &pod{root: t.TempDir()}
	spec, c := at(deployment, "spec", "template", "spec"), hookauthz(deployment)
	put := func(file, content string) {
		t.Helper()
		file = filepath.Join(p.root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	put("/etc/hookauthz/own-secret", secretOf("own"))
	for _, m := range list(c, "volumeMounts") {
		where := text(m, "mountPath")
		p.mounts = append(p.mounts, where)
		if err := os.MkdirAll(filepath.Join(p.root, where), 0o755); err != nil {
			t.Fatal(err)
		}
		volumes := list(spec, "volumes")
		i := slices.IndexFunc(volumes, func(v any) bool { return text(v, "name") == text(m, "name") })
		if i < 0 {
			t.Fatalf("%s is mounted, and there is no such volume", text(m, "name"))
		}
		for name, content := range contents(volumes[i], all) {
			put(filepath.Join(where, name), content)
		}
	}
	for _, file := range injected(deployment) {
		p.mounts = append(p.mounts, filepath.Dir(file))
		put(file, secretOf(file))
	}
	p.relocate(t)
	for _, a := range list(c, "args") {
		name, value, found := strings.Cut(a.(string), "=")
		if path, ok := strings.CutPrefix(value, "unix:"); ok {
			value = "unix:" + filepath.Join(p.root, path)
		} else if strings.HasPrefix(value, "/") {
			if !slices.ContainsFunc(p.mounts, func(m string) bool { return value == m || strings.HasPrefix(value, m+"/") }) {
				t.Errorf("%s is mounted from nowhere", a)
			}
			value = filepath.Join(p.root, value)
		}
		if found {
			name += "=" + value
		}
		p.args = append(p.args, name)
	}
	for _, e := range list(c, "env") {
		if at(e, "value") != nil {
			p.env = append(p.env, text(e, "name")+"="+text(e, "value"))
		}
	}
	return p
}

// relocate has the policies name files below the pod's root.
func (p *pod) relocate(t *testing.T) {
	t.Helper()
	policies, err := filepath.Glob(filepath.Join(p.root, "/etc/hookauthz/policies/*"))
	if err != nil || len(policies) == 0 {
		t.Fatalf("no policies (%v)", err)
	}
	for _, file := range policies {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		moved := regexp.MustCompile(`(file|dir): /`).ReplaceAllString(string(content), "$1: "+p.root+"/")
		if err := os.WriteFile(file, []byte(moved), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// contents are the files of a volume.
func contents(volume any, all []object) map[string]string {
	files := make(map[string]string)
	switch {
	case at(volume, "configMap") != nil:
		name := text(volume, "configMap", "name")
		for _, c := range ofKind(all, "ConfigMap") {
			if text(c, "metadata", "name") == name {
				for file, content := range at(c, "data").(map[string]any) {
					files[file] = content.(string)
				}
			}
		}
		if len(files) == 0 && text(volume, "name") == "policies" {
			files["some.yaml"] = somePolicy
		}
	case at(volume, "projected") != nil:
		for _, s := range list(volume, "projected", "sources") {
			for _, item := range list(s, "secret", "items") {
				files[text(item, "path")] = secretOf(text(item, "path"))
			}
		}
	case strings.Contains(text(volume, "secret", "secretName"), "tls"):
		for _, f := range []string{"tls.crt", "tls.key", "ca.crt"} {
			files[f] = secretOf(f)
		}
	case strings.Contains(text(volume, "secret", "secretName"), "store"):
		files["password"], files["ca.crt"] = secretOf("password"), secretOf("ca.crt")
	case at(volume, "secret") != nil, at(volume, "csi") != nil:
		for _, v := range versions {
			files[v] = secretOf(v)
		}
	}
	return files
}

// injected are the files that the Vault Agent injector would write, by the annotations of the pod.
func injected(deployment object) (all []string) {
	notes, _ := at(deployment, "spec", "template", "metadata", "annotations").(map[string]any)
	for k := range notes {
		if name, ok := strings.CutPrefix(k, "vault.hashicorp.com/agent-inject-secret-"); ok {
			all = append(all, filepath.Join(text(notes, "vault.hashicorp.com/secret-volume-path-"+name), text(notes, "vault.hashicorp.com/agent-inject-file-"+name)))
		}
	}
	return all
}

// serving are the pods of every manifest that runs hookauthz.
func serving(t *testing.T, do func(t *testing.T, p *pod)) {
	for from, manifests := range everything(t) {
		for _, d := range ofKind(manifests, "Deployment") {
			t.Run(from, func(t *testing.T) { do(t, newPod(t, d, manifests)) })
		}
	}
}

// with is the arguments with one in the place of what it sets.
func with(args []string, changed ...string) []string {
	args = slices.Clone(args)
	for _, c := range changed {
		name, _, _ := strings.Cut(c, "=")
		args = slices.DeleteFunc(args, func(a string) bool { return a == name || strings.HasPrefix(a, name+"=") })
		args = append(args, c)
	}
	return args
}

// storeOf has a shared store that does not answer, on this machine, in the place of the one that is named.
func storeOf(args []string) []string {
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, "--store=redi"); ok {
			scheme, _, _ := strings.Cut("redi"+value, ":")
			return with(args, "--store="+scheme+"://127.0.0.1:1/0", "--store-required=false")
		}
	}
	return args
}

// The program takes the arguments as they are: it goes on to look for the policies, which are not there.
func TestServeTakesTheArguments(t *testing.T) {
	help, _ := run(t, "serve", "--help")
	serving(t, func(t *testing.T, p *pod) {
		for _, a := range p.args[1:] {
			name, _, _ := strings.Cut(a, "=")
			if !regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(name) + `\b`).MatchString(help) {
				t.Errorf("serve --help does not know %s", name)
			}
		}
		if out, code := run(t, with(storeOf(p.args), "--policies=/nowhere")...); code != 1 || !strings.Contains(out, "/nowhere") {
			t.Errorf("exit code %d, want 1 for policies that are not there:\n%s", code, out)
		}
		// What lets others in is refused without its guard.
		for _, guard := range []string{"--insecure-listen", "--tls-client-ca"} {
			less := slices.DeleteFunc(slices.Clone(p.args), func(a string) bool {
				return strings.HasPrefix(a, guard) || guard == "--tls-client-ca" && strings.HasPrefix(a, "--tls-client-san")
			})
			if len(less) < len(p.args) {
				if out, code := run(t, with(storeOf(less), "--policies=/nowhere")...); code != 2 {
					t.Errorf("exit code %d without %s, want 2:\n%s", code, guard, out)
				}
			}
		}
	})
}

func TestServeValidatesThePolicies(t *testing.T) {
	serving(t, func(t *testing.T, p *pod) {
		args := []string{"validate", filepath.Join(p.root, "/etc/hookauthz/policies")}
		for _, a := range p.args {
			if strings.HasPrefix(a, "--environment=") || strings.HasPrefix(a, "--max-body=") {
				args = append(args, a)
			}
		}
		if out, code := run(t, args...); code != 0 {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
}

var metricsAddress = regexp.MustCompile(`"?metrics"?[=:]"?(127\.0\.0\.1:\d+)`)

// The program runs with the arguments and files of each pod, on loopback, answers the probes, and ends when it is told to.
func TestServeRuns(t *testing.T) {
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	serving(t, func(t *testing.T, p *pod) {
		args := with(storeOf(p.args), "--admin=127.0.0.1:0", "--metrics=127.0.0.1:0")
		if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--listen=unix:") }) {
			args = with(args, "--listen=127.0.0.1:0")
		}
		c := exec.CommandContext(t.Context(), file, args...)
		c.Env = p.env
		log, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		lines := bufio.NewScanner(log)
		address := ""
		for address == "" && lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if m := metricsAddress.FindStringSubmatch(lines.Text()); m != nil {
				address = m[1]
			}
		}
		if address == "" {
			c.Wait()
			t.Fatalf("it does not serve:\n%s", &said)
		}
		for _, probe := range []string{"/healthz", "/readyz"} {
			if r, err := http.Get("http://" + address + probe); err != nil || r.StatusCode != http.StatusOK {
				t.Errorf("%s: %v, %v", probe, r, err)
			} else {
				r.Body.Close()
			}
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
		}
		if err := c.Wait(); err != nil {
			t.Errorf("it ends with %v:\n%s", err, &said)
		}
		for _, word := range []string{"secret unavailable", "policy fault", secretOf("")} {
			if strings.Contains(said.String(), word) {
				t.Errorf("it says %q:\n%s", word, &said)
			}
		}
	})
}
