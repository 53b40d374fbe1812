package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	read := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "hooks.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	tests := []struct {
		name   string
		later  time.Duration
		change func(dir string) error
		kept   bool
	}{
		{name: "nothing changed", kept: true},
		{name: "nearly expired", later: lifetime - time.Hour},
		{name: "a key is gone", change: func(dir string) error { return os.Remove(filepath.Join(dir, "envoy.key")) }},
		{name: "a key is another's", change: func(dir string) error {
			return os.Rename(filepath.Join(dir, "hookauthz.key"), filepath.Join(dir, "envoy.key"))
		}},
		{name: "another authority", change: func(dir string) error {
			other := filepath.Join(dir, "other")
			if err := run(other, now); err != nil {
				return err
			}
			return os.Rename(filepath.Join(other, "ca.pem"), filepath.Join(dir, "ca.pem"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if fresh(dir, now) {
				t.Fatal("an empty folder counts as fresh")
			}
			if err := run(dir, now); err != nil {
				t.Fatal(err)
			}
			first := read(dir)
			if tt.change != nil {
				if err := tt.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := run(dir, now.Add(tt.later)); err != nil {
				t.Fatal(err)
			}
			if kept := read(dir) == first; kept != tt.kept {
				t.Errorf("certificates kept: %t, want %t", kept, tt.kept)
			}
			if !fresh(dir, now.Add(tt.later)) {
				t.Error("what was written is not fresh")
			}
		})
	}
}
