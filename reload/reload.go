// Package reload notices that policy files or secret files have changed.
//
// A Watcher compares what the files hold. It looks every two seconds, so that nothing depends on events of the file system,
// which get lost on network file systems, over mount points and when queues overflow; events only make it look sooner.
// A change counts once the files have held the same for a moment, so that a half-written file is rarely loaded; where it is
// loaded all the same, what is written later is one more change.
package reload

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxUnsettled is how many looks in a row may see something else before a change counts although it goes on.
const maxUnsettled = 5

// Change says what is different since the last call of Config.Changed. The zero value asks to try again what failed then.
type Change struct {
	// Policies: a policy file came, went or changed, or Reload was called.
	Policies bool
	// Secrets: a secret file came, went or changed, or other secret files count than before.
	Secrets bool
}

// Config is what a Watcher needs.
type Config struct {
	// Dir is the folder of policy files. It need not exist.
	Dir string
	// Files lists the files that the policies in force were made from, absolute. Those that are not policy files in Dir are
	// secret files; of a folder among them it counts which files are in it. It is called before each look, from the goroutine of Run.
	Files func() []string
	// Changed is called for each change, from the goroutine of Run. If it reports false, something could not be read although the
	// files may be all right, and it is called again after Retry.
	Changed func(context.Context, Change) bool
	// Interval is the time between two looks; 0 means 2 s.
	Interval time.Duration
	// Settle is how long files must hold the same before a change counts; 0 means 200 ms.
	Settle time.Duration
	// Retry is the time until Changed is called again after it has reported false; 0 means 10 s.
	Retry time.Duration
	// Logger hears it when events cannot be had; nil discards.
	Logger *slog.Logger
}

// Watcher calls Config.Changed when files have changed.
type Watcher struct {
	config Config
	asked  chan struct{} // of capacity 1: Reload was called
	seen   content       // what the files held when Changed was called last
	open   func() (*fsnotify.Watcher, error)
}

// New makes a Watcher that starts from what the folder holds now. Made before the policies are loaded for the first time, it
// misses nothing that changes in between.
func New(c Config) *Watcher {
	if abs, err := filepath.Abs(c.Dir); err == nil {
		c.Dir = abs
	}
	c.Interval = cmp.Or(c.Interval, 2*time.Second)
	c.Settle = cmp.Or(c.Settle, 200*time.Millisecond)
	c.Retry = cmp.Or(c.Retry, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watcher{
		config: c,
		asked:  make(chan struct{}, 1),
		seen:   look(c.Dir, nil),
		open:   fsnotify.NewWatcher,
	}
}

// Reload asks Run to call Config.Changed now, whether files have changed or not. It does not wait for it.
func (w *Watcher) Reload() {
	select {
	case w.asked <- struct{}{}:
	default: // the call that is pending already does
	}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	events := w.openEvents()
	defer events.close()
	poll := time.NewTicker(w.config.Interval)
	defer poll.Stop()
	// The secret files were not compared yet, so the first look is at once.
	soon := time.NewTimer(0)
	defer soon.Stop()
	again := time.NewTimer(w.config.Retry)
	again.Stop()
	defer again.Stop()
	waiting := true // soon is running
	wait := func() { waiting = true; soon.Reset(w.config.Settle) }

	var pending content // what the last look saw, while unsettled > 0
	unsettled := 0      // looks in a row that saw something other than w.seen
	act := func(now content, asked bool) {
		unsettled = 0
		again.Stop()
		if !w.changed(ctx, now, asked) {
			again.Reset(w.config.Retry)
		}
		wait() // other secret files may count now
	}
	step := func() {
		files := w.config.Files()
		events.watch(w.config.Dir, files)
		now := look(w.config.Dir, files)
		switch {
		case now == w.seen:
			unsettled = 0
		case unsettled > 0 && now == pending, unsettled >= maxUnsettled:
			act(now, false)
		default:
			pending = now
			unsettled++
			wait()
		}
	}

	for {
		select {
		case <-ctx.Done():
			return
		case <-w.asked:
			act(look(w.config.Dir, w.config.Files()), true)
		case <-again.C:
			act(look(w.config.Dir, w.config.Files()), false)
		case <-soon.C:
			waiting = false
			step()
		case <-poll.C:
			if !waiting {
				step()
			}
		case e := <-events.events():
			if !waiting && events.concerns(e) {
				wait()
			}
		case <-events.errors():
			// Events were lost. The next look does not need them.
			if !waiting {
				wait()
			}
		}
	}
}

// changed reports the change from what was seen to now. The files are looked at before they are loaded, so that what is written
// while they load is a change at the next look.
func (w *Watcher) changed(ctx context.Context, now content, asked bool) bool {
	c := Change{Policies: asked || now.policies != w.seen.policies, Secrets: now.secrets != w.seen.secrets}
	w.seen = now
	return w.config.Changed(ctx, c)
}

func (w *Watcher) openEvents() *events {
	fs, err := w.open()
	if err != nil {
		w.config.Logger.Warn("no file system events: changes are seen by polling only", "error", err, "interval", w.config.Interval)
		return &events{}
	}
	return &events{fs: fs, watched: map[string]bool{}}
}
