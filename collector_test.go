package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentOf(t *testing.T) {
	for _, tt := range []struct {
		alive uint64
		want  int
	}{
		{0, 2400}, {1 << 20, 2400}, {8 << 20, 300}, {24 << 20, 100}, {1 << 40, 100},
	} {
		if got := percentOf(tt.alive); got != tt.want {
			t.Errorf("%d bytes alive: %d, want %d", tt.alive, got, tt.want)
		}
	}
}

// GOGC follows what is alive, and is what it was once the server has ended.
func TestTuneCollector(t *testing.T) {
	t.Setenv("GOGC", "") // is as it was afterwards
	os.Unsetenv("GOGC")
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	stop := tuneCollector()
	if got := percent(); got <= 100 {
		t.Errorf("GOGC is %d at the start", got)
	}
	alive := make([]byte, 2*garbage)
	collect := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
			runtime.GC()
			if time.Now().After(deadline) {
				t.Fatalf("GOGC is %d with %s", percent(), what)
			}
		}
	}
	collect("much alive", func() bool { return percent() == 100 })
	runtime.KeepAlive(alive)
	alive = nil
	collect("little alive", func() bool { return percent() > 100 })
	stop()
	if got := percent(); got != 100 {
		t.Errorf("GOGC is %d at the end", got)
	}
}
