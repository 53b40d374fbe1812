package incident

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Shared is where servers that belong together keep their incidents.
type Shared interface {
	// LoadIncidents gives what is kept; nil where nothing is.
	LoadIncidents(ctx context.Context) ([]byte, error)
	// SwapIncidents keeps next if what is kept is still last, and reports whether it was.
	SwapIncidents(ctx context.Context, last, next []byte) (bool, error)
}

// Config says what a Book works with.
type Config struct {
	// Apply is told what is in force, at the start and whenever that changes. Required.
	Apply func(*Snapshot)
	// Shared keeps incidents for all servers. Nil: this server is alone.
	Shared Shared
	// File keeps incidents over a restart. Empty: none does.
	File string
	// Logger gets what comes into force and what ends. Required.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Book is every incident that this server knows. Servers with one Shared come to know the same within half a second: each record is
// replaced by a later one of the same thing, wherever it was written. While Shared is away a server keeps what it knows; what it does then is in
// force there at once, and everywhere once Shared is back. It is safe for concurrent use.
type Book struct {
	config Config

	syncing sync.Mutex // is held while records are read or written elsewhere; taken before mu
	seen    []byte     // what Shared held last
	onDisk  []byte     // what File holds

	mu      sync.Mutex // guards what follows
	all     map[string]Incident
	inForce map[string]Incident // as was told last
	changes uint64              // counts what was done here
	shared  uint64              // those of them that Shared has
	met     bool                // Shared has been asked
	away    error               // why Shared could not be asked last
	failed  error               // why File could not be written last
}

// How often Shared is asked, and for how long.
const (
	askEvery      = 300 * time.Millisecond
	askAgainAfter = time.Second
	askFor        = time.Second
)

// Open reads what is kept. A file that cannot be read or written is an error; a Shared that does not answer is asked again by Run.
func Open(ctx context.Context, c Config) (*Book, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	b := &Book{config: c, all: make(map[string]Incident), inForce: make(map[string]Incident)}
	if c.File != "" {
		all, err := readFile(c.File)
		if err != nil {
			return nil, err
		}
		b.all = all
	}
	b.sync(ctx)
	return b, b.failed
}

// Run keeps in step with other servers, and tells of what ends, until ctx ends.
func (b *Book) Run(ctx context.Context) {
	timer := time.NewTimer(askEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := askEvery
		if b.sync(ctx) != nil {
			wait = askAgainAfter
		}
		timer.Reset(wait)
	}
}

// sync takes over what others did and tells them what was done here. The error says why they could not be told.
func (b *Book) sync(ctx context.Context) error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	err := b.share(ctx)
	if err != nil && ctx.Err() != nil {
		return err // it is ending
	}
	b.mu.Lock()
	before := b.away
	b.away = err
	b.mu.Unlock()
	switch {
	case err != nil && fmt.Sprint(err) != fmt.Sprint(before):
		b.config.Logger.Warn("the store cannot be asked for incidents: those known stay in force", "error", err)
	case err == nil && before != nil:
		b.config.Logger.Info("the store can be asked for incidents again")
	}
	b.apply()
	return cmp.Or(err, b.save())
}

// maxTries is how often a swap is tried where others write at the same time.
const maxTries = 8

func (b *Book) share(ctx context.Context) error {
	if b.config.Shared == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	for range maxTries {
		kept, err := b.config.Shared.LoadIncidents(ctx)
		if err != nil {
			return err
		}
		if b.known(kept) {
			return nil
		}
		theirs, err := decode(kept)
		if err != nil {
			return fmt.Errorf("what the store holds as incidents cannot be read: %w", err)
		}
		b.mu.Lock()
		changes := b.changes
		lack := merge(b.all, theirs, b.config.Now())
		next := encode(b.all)
		b.mu.Unlock()
		swapped := !lack
		if lack {
			if swapped, err = b.config.Shared.SwapIncidents(ctx, kept, next); err != nil {
				return err
			}
			kept = next
		}
		if swapped {
			b.mu.Lock()
			b.seen, b.met, b.shared = kept, true, changes
			b.mu.Unlock()
			return nil
		}
	}
	return errors.New("others write incidents all the time")
}

// known says that what Shared holds is what it held before, and all that is known here.
func (b *Book) known(kept []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.met && b.shared == b.changes && bytes.Equal(kept, b.seen)
}

// apply tells what has come into force and what has ended since it was told last.
func (b *Book) apply() {
	now := b.config.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	next := maps.Clone(b.all)
	maps.DeleteFunc(next, func(_ string, i Incident) bool { return !i.InForce(now) })
	if maps.Equal(next, b.inForce) {
		return
	}
	for key, i := range next {
		if before, was := b.inForce[key]; !was || before != i {
			b.config.Logger.Warn("incident in force", i.attributes()...)
		}
	}
	for key, i := range b.inForce {
		if _, still := next[key]; !still {
			b.config.Logger.Info("incident ended", "kind", i.Kind, "what", i.What(), "undone", b.all[key].Undone)
		}
	}
	b.inForce = next
	b.config.Apply(snapshot(next, now))
}

func (i *Incident) attributes() []any {
	a := []any{"kind", i.Kind, "what", i.What(), "by", i.By, "token", i.Token, "why", i.Why}
	if !i.Until.IsZero() {
		a = append(a, "until", i.Until)
	}
	return a
}

// save writes the file where it does not hold what is known.
func (b *Book) save() error {
	if b.config.File == "" {
		return nil
	}
	b.mu.Lock()
	forget(b.all, b.config.Now())
	data, before := encode(b.all), b.failed
	b.mu.Unlock()
	if before == nil && bytes.Equal(data, b.onDisk) {
		return nil
	}
	err := writeFile(b.config.File, data)
	if err == nil {
		b.onDisk = data
	} else if before == nil {
		b.config.Logger.Error("incidents are not in the state file", "error", err)
	}
	b.mu.Lock()
	b.failed = err
	b.mu.Unlock()
	return err
}

// Where what was done is kept.
const (
	InStore   = "store"   // for all servers and over a restart
	InFile    = "file"    // over a restart
	InProcess = "process" // until the server ends
)

// Kept is where a server without faults keeps what is done.
func (b *Book) Kept() string {
	switch {
	case b.config.Shared != nil:
		return InStore
	case b.config.File != "":
		return InFile
	}
	return InProcess
}

// Done says what an action did.
type Done struct {
	Incident Incident
	// Pending is why it is not kept where it should be yet: it is in force on this server, which tries again. Nil: it is kept.
	Pending error
}

// Do puts an incident in force on this server, or undoes it, and then tells the others. An error is a *Refused, and changes nothing.
func (b *Book) Do(ctx context.Context, a Action) (Done, error) {
	wanted, undo, err := a.incident(b.config.Now().UTC().Round(0))
	if err != nil {
		return Done{}, err
	}
	if !b.isAway() {
		_ = b.sync(ctx) // what others did counts
	}
	done, err := b.put(wanted, undo)
	if err != nil {
		return Done{}, err
	}
	b.apply()
	return Done{done, b.sync(ctx)}, nil
}

// put takes over what was done here.
func (b *Book) put(wanted Incident, undo bool) (Incident, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.config.Now()
	key := wanted.key()
	before, known := b.all[key]
	inForce := 0
	for _, i := range b.all {
		if i.InForce(now) {
			inForce++
		}
	}
	known = known && before.InForce(now)
	switch {
	case undo && !known:
		return wanted, refuse("not_in_force", "'hookauthz incidents' lists what is in force", "there is no %s of %s in force", wanted.Kind, wanted.What())
	case !undo && !known && inForce >= MaxInForce:
		return wanted, refuse("too_many", "undo some, or write them in the policy files", "%d incidents are in force, the most that there may be", inForce)
	}
	changed := wanted.Changed
	if undo {
		wanted = before
		wanted.Undone = true
	}
	// It counts as later than what it replaces, even where the clock of another server is ahead.
	if wanted.Changed = changed; !changed.After(b.all[key].Changed) {
		wanted.Changed = b.all[key].Changed.Add(time.Microsecond)
	}
	b.all[key] = wanted
	b.changes++
	return wanted, nil
}

// List is what is in force, sorted by kind and by what it is about.
func (b *Book) List() []Incident {
	now := b.config.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Incident
	for _, key := range slices.Sorted(maps.Keys(b.all)) {
		if i := b.all[key]; i.InForce(now) {
			list = append(list, i)
		}
	}
	return list
}

// Pending is why the incidents known here are not all kept where they should be; nil where they are.
func (b *Book) Pending() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return cmp.Or(b.away, b.failed)
}

func (b *Book) isAway() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.away != nil
}
