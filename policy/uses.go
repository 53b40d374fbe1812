package policy

import (
	"maps"
	"sync/atomic"
	"time"
)

// VersionID names a secret version.
type VersionID struct{ Endpoint, Version string }

// SecretUse is what this process has seen of a secret version. A delivery counts whose signature and timestamp hold, and one that is denied
// because its version is not in force.
type SecretUse struct {
	VersionID
	// Matches is how many deliveries were signed with it since the version came into force here.
	Matches uint64
	// LastUsed is the moment of the last of them; zero where there was none.
	LastUsed time.Time
}

// use counts the deliveries of one version. It outlives the Set.
type use struct {
	matches atomic.Uint64
	last    atomic.Int64 // in nanoseconds since 1970; 0: never
}

// note counts a delivery. Of two at once the earlier moment may stand, which is as good.
func (u *use) note(at time.Time) {
	u.matches.Add(1)
	if n := at.UnixNano(); n > u.last.Load() {
		u.last.Store(n)
	}
}

// lastUsed is the moment of the last delivery; zero where there was none.
func (u *use) lastUsed() time.Time {
	if last := u.last.Load(); last != 0 {
		return time.Unix(0, last)
	}
	return time.Time{}
}

// inForce is a Set with what changes beside it.
type inForce struct {
	set  *Set
	uses []*use // by the place of the version
	left map[VersionID]*use
}

// maxLeft is how many versions are remembered that have left the policies: a file that is swapped may be gone for a moment.
const maxLeft = 1024

// newInForce takes over what is known of the versions that stay, or come back.
func newInForce(set *Set, before *inForce) *inForce {
	f := &inForce{set: set, uses: make([]*use, set.versions), left: map[VersionID]*use{}}
	known := map[VersionID]*use{}
	if before != nil {
		maps.Copy(known, before.left)
		before.each(func(id VersionID, u *use) { known[id] = u })
	}
	for _, w := range set.webhooks {
		for i := range w.versions {
			v := &w.versions[i]
			id := VersionID{w.name, v.name}
			u := known[id]
			if u == nil {
				u = new(use)
			}
			f.uses[v.place] = u
			delete(known, id)
		}
	}
	for id, u := range known {
		if len(f.left) == maxLeft {
			break
		}
		if u.last.Load() != 0 {
			f.left[id] = u
		}
	}
	return f
}

// each goes over the versions in the order of their places.
func (f *inForce) each(do func(VersionID, *use)) {
	for _, w := range f.set.webhooks {
		for i := range w.versions {
			v := &w.versions[i]
			do(VersionID{w.name, v.name}, f.uses[v.place])
		}
	}
}

// Uses lists what was seen of every secret version in force, by endpoint and in the order of the policy.
func (e *Engine) Uses() []SecretUse {
	f := e.force.Load()
	all := make([]SecretUse, 0, len(f.uses))
	f.each(func(id VersionID, u *use) {
		all = append(all, SecretUse{VersionID: id, Matches: u.matches.Load(), LastUsed: u.lastUsed()})
	})
	return all
}
