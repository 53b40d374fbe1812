package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
)

// A shell that runs the printed command hands curl exactly the delivery, whatever bytes it holds.
func TestCurlCommand(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	dir := t.TempDir()
	// Stands for curl: writes down its arguments, each ended by a NUL, and its input.
	stub := "#!/bin/sh\nprintf '%s\\000' \"$@\" > " + dir + "/args\ncat > " + dir + "/input\n"
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(stub), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(t rapid.TB, command string) (args []string, input []byte) {
		c := exec.Command(shell, "-c", command)
		c.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v: %s", command, err, out)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "args"))
		if err != nil {
			t.Fatal(err)
		}
		input, err = os.ReadFile(filepath.Join(dir, "input"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00"), input
	}
	check := func(t rapid.TB, body []byte, value string) {
		d := policy.SignedDelivery{Method: "POST", URL: "https://hooks.example.com/a?b=c&d=e", Headers: []policy.Header{{Name: "x-a", Value: value}}, Body: body}
		word, _ := headerWord(d.Headers[0], nil)
		args, input := run(t, curl(d, []string{word}, ""))
		header := "x-a: " + value
		if value == "" {
			header = "x-a;"
		}
		want := []string{"-X", "POST", "-H", header}
		sent := input
		switch rest := args[min(4, len(args)):]; {
		case len(body) == 0:
		case len(rest) > 1 && rest[0] == "--data-raw":
			sent = []byte(rest[1])
			want = append(want, "--data-raw", rest[1])
		default:
			want = append(want, "--data-binary", "@-")
		}
		want = append(want, d.URL)
		if strings.Join(args, "\x00") != strings.Join(want, "\x00") {
			t.Fatalf("arguments %q, want %q", args, want)
		}
		if !bytes.Equal(sent, body) {
			t.Fatalf("body %q, want %q", sent, body)
		}
	}
	for _, body := range []string{
		"", "hello", "@file", "-n", "--", "it's", `"$HOME" $(id) \n`, "line\nline\n", "\x00\x01", "100%", "%s%d", `\101`, "-\x00", "\xff\xfe", "é", "\r\n",
		strings.Repeat("x", maxQuoted+1), "'" + strings.Repeat("\x00'", 10),
	} {
		check(t, []byte(body), "it's $HOME; `id`")
	}
	check(t, []byte("x"), "")
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "body"), rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "value"))
	})

	if got, want := curl(policy.SignedDelivery{Method: "POST", URL: "https://a/", Body: []byte("x")}, nil, "my body.json"), "--data-binary '@my body.json'"; !strings.Contains(got, want) {
		t.Errorf("%s\nholds no %s", got, want)
	}
}
