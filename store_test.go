package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReadPassword(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"plain", "pw", "pw"}, {"newline", "pw\n", "pw"}, {"carriage return", "pw\r\n", "pw"}, {"two newlines", "pw\n\n", "pw\n"}, {"empty", "", ""}, {"only a newline", "\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pw")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readPassword(file)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := readPassword(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there gives a password")
	}
}

func TestStoreFlagsTakePassword(t *testing.T) {
	f := storeFlags{url: "redis://u:hunter2@h/1", timeout: 50 * time.Millisecond}
	if err := f.check(); err != nil {
		t.Fatal(err)
	}
	if f.redis.Password != "hunter2" || f.redis.CallTimeout != f.timeout || f.String() != "redis://h:6379/1" {
		t.Errorf("got %q, %s and %q", f.redis.Password, f.redis.CallTimeout, f.String())
	}
	f.passwordFile = "pw"
	if err := f.check(); err == nil {
		t.Error("two passwords are none too many")
	}
}
