package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// garbage is how many bytes may be left lying between two collections where little is alive. A server with small state would otherwise
// collect after every 4 MiB, some hundred checks, which takes a tenth of its time. With much more the memory of a check is never in the
// processor's cache, which costs as much.
const garbage = 24 << 20

// percentOf is the GOGC with which garbage, or as much as is alive, may be left lying.
func percentOf(alive uint64) int {
	if alive >= garbage {
		return 100
	}
	return int(100 * garbage / max(alive, 1<<20))
}

// tuneCollector sets GOGC anew after each collection until stop is called, unless the operator has set it. Unlike a higher GOGC it costs no more
// than garbage, however much is alive, and unlike a memory limit it cannot end in a server that does nothing but collect.
func tuneCollector() (stop func()) {
	if _, set := os.LookupEnv("GOGC"); set {
		return func() {}
	}
	var stopped atomic.Bool
	before := debug.SetGCPercent(percentOf(0))
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var watch func()
	watch = func() {
		// An object that nothing holds is found by every collection.
		runtime.AddCleanup(new([16]byte), func(struct{}) {
			if stopped.Load() {
				return
			}
			metrics.Read(sample)
			debug.SetGCPercent(percentOf(sample[0].Value.Uint64()))
			watch()
		}, struct{}{})
	}
	watch()
	return func() {
		stopped.Store(true)
		debug.SetGCPercent(before)
	}
}
