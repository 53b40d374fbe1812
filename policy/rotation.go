package policy

import (
	"fmt"
	"time"
)

// VersionState says whether a signature made with a secret version is good.
type VersionState string

// The states of a secret version.
const (
	VersionInForce     VersionState = "in_force"
	VersionNotYet      VersionState = "not_yet"     // before its notBefore
	VersionExpired     VersionState = "expired"     // from its notAfter on
	VersionRevoked     VersionState = "revoked"     // by the policy, or by an incident
	VersionDecoy       VersionState = "decoy"       // never handed out
	VersionUnavailable VersionState = "unavailable" // its key cannot be read
)

// SecretStatus says where a secret version is in its life.
type SecretStatus struct {
	Endpoint string `json:"endpoint"`
	// Version is its name; "dir PATH" stands for a folder that no version could be read from.
	Version   string       `json:"version"`
	Scheme    string       `json:"scheme"`
	State     VersionState `json:"state"`
	NotBefore time.Time    `json:"not_before,omitzero"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	// Matches is how many deliveries this process has seen that were signed with it.
	Matches uint64 `json:"matches"`
	// LastUsed is the last of them that any process has seen; absent where none has.
	LastUsed time.Time `json:"last_used,omitzero"`
	// Current says that it is the one that the sender has used last, of those in force.
	Current bool `json:"current"`
	// EndsSoon says that it is in force and ends within RotationOptions.Soon.
	EndsSoon bool `json:"ends_soon"`
	// SafeToRemove says that no delivery that is allowed now needs it, as far as is known.
	SafeToRemove bool `json:"safe_to_remove"`
	// Note says what to do, or what to know; empty where all is well.
	Note string `json:"note,omitempty"`
}

// RotationOptions say what is known and what is meant by soon and by quiet.
type RotationOptions struct {
	Now time.Time
	// Since is when this process began to look.
	Since time.Time
	// Elsewhere is when other processes have seen versions used last. Nil: that is not known.
	Elsewhere map[VersionID]time.Time
	// Quiet is for how long another version must have been in use, and this one not, before it may go. Default: 7 days.
	Quiet time.Duration
	// Soon is how long before its end a version is told of. Default: 14 days.
	Soon time.Duration
}

// What holds where RotationOptions say nothing.
const (
	DefaultQuiet = 7 * 24 * time.Hour
	DefaultSoon  = 14 * 24 * time.Hour
)

// Rotation reports on every secret version in force, by endpoint and in the order of the policy. Versions whose key is no secret of ours,
// those of public keys, are among them.
func (e *Engine) Rotation(o RotationOptions) []SecretStatus {
	if o.Quiet <= 0 {
		o.Quiet = DefaultQuiet
	}
	if o.Soon <= 0 {
		o.Soon = DefaultSoon
	}
	f, held := e.force.Load(), e.incidents.Load()
	all := make([]SecretStatus, 0, len(f.uses))
	for _, w := range f.set.webhooks {
		r := rotation{options: &o}
		for i := range w.versions {
			v := &w.versions[i]
			u := f.uses[v.place]
			state := v.state(o.Now)
			if state == VersionInForce && held.Revoked(w.name, v.name) {
				state = VersionRevoked
			}
			r.versions = append(r.versions, SecretStatus{
				Endpoint: w.name, Version: v.name, Scheme: w.schemeName, State: state,
				NotBefore: v.window.NotBefore, NotAfter: v.window.NotAfter,
				Matches: u.matches.Load(), LastUsed: later(u.lastUsed(), o.Elsewhere[VersionID{w.name, v.name}]),
			})
		}
		all = append(all, r.judged()...)
		for _, dir := range w.empty {
			all = append(all, SecretStatus{Endpoint: w.name, Version: dir, Scheme: w.schemeName, State: VersionUnavailable,
				Note: "no secret can be read from this folder; the log of the server says why"})
		}
	}
	return all
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		a = b
	}
	if a.IsZero() {
		return a
	}
	return a.UTC()
}

// state is that of a version at t.
func (v *version) state(t time.Time) VersionState {
	switch {
	case v.decoy && v.key != nil:
		return VersionDecoy
	case v.revoked:
		return VersionRevoked
	case !v.window.NotAfter.IsZero() && !t.Before(v.window.NotAfter):
		return VersionExpired
	case v.key == nil:
		return VersionUnavailable
	case !v.window.Contains(t):
		return VersionNotYet
	}
	return VersionInForce
}

// rotation is the versions of one endpoint.
type rotation struct {
	options  *RotationOptions
	versions []SecretStatus
	current  *SecretStatus // nil: none in force has been used
}

// judged says of each version what there is to say.
func (r *rotation) judged() []SecretStatus {
	for i := range r.versions {
		if v := &r.versions[i]; v.State == VersionInForce && !v.LastUsed.IsZero() && (r.current == nil || v.LastUsed.After(r.current.LastUsed)) {
			r.current = v
		}
	}
	for i := range r.versions {
		v := &r.versions[i]
		v.Current = v == r.current
		v.EndsSoon = v.State == VersionInForce && !v.NotAfter.IsZero() && v.NotAfter.Sub(r.options.Now) <= r.options.Soon
	}
	for i := range r.versions {
		v := &r.versions[i]
		v.SafeToRemove, v.Note = r.judge(v)
	}
	return r.versions
}

func (r *rotation) judge(v *SecretStatus) (safe bool, note string) {
	now := r.options.Now
	used := !v.LastUsed.IsZero()
	switch v.State {
	case VersionDecoy:
		if used {
			return false, "this decoy was used " + ago(now, v.LastUsed) + ": whoever did so has read the place where it lies"
		}
		return false, ""
	case VersionUnavailable:
		return false, "its key cannot be read; the log of the server says why"
	case VersionNotYet:
		return false, "begins " + in(now, v.NotBefore)
	case VersionExpired, VersionRevoked:
		switch {
		case used && now.Sub(v.LastUsed) > r.options.Quiet, !used && r.knowsLong():
			return true, "remove it: it is " + string(v.State) + " and is not used"
		case !used:
			return false, "no use of it is known since " + r.options.Since.UTC().Format(time.RFC3339)
		}
		return false, fmt.Sprintf("used %s although it is %s, and denied: give the sender %s", ago(now, v.LastUsed), v.State, r.other(v))
	}
	switch {
	case v.EndsSoon && r.successor(v) == nil:
		return false, "ends " + in(now, v.NotAfter) + " and nothing follows it: add a new version and give it to the sender"
	case v.EndsSoon && v.Current:
		return false, fmt.Sprintf("ends %s and is the one in use: give the sender %s", in(now, v.NotAfter), r.other(v))
	case v.Current:
		return false, ""
	case !used && r.current == nil:
		return false, "no use of it is known since " + r.options.Since.UTC().Format(time.RFC3339)
	case !used:
		return false, fmt.Sprintf("no use of it is known since %s: the sender has not come to it yet, or has left it", r.options.Since.UTC().Format(time.RFC3339))
	case r.current.LastUsed.Sub(v.LastUsed) > r.options.Quiet:
		return true, fmt.Sprintf("remove it: last used %s, and version %q is in use", ago(now, v.LastUsed), r.current.Version)
	default:
		return false, fmt.Sprintf("used %s; version %q is the one used last", ago(now, v.LastUsed), r.current.Version)
	}
}

// knowsLong says that a use would be known, had there been one within RotationOptions.Quiet.
func (r *rotation) knowsLong() bool {
	return r.options.Elsewhere != nil || r.options.Now.Sub(r.options.Since) > r.options.Quiet
}

// successor is a version in force that outlives v; nil where there is none.
func (r *rotation) successor(v *SecretStatus) *SecretStatus {
	for i := range r.versions {
		if s := &r.versions[i]; s.State == VersionInForce && !s.EndsSoon && s != v {
			return s
		}
	}
	return nil
}

// other names a version for the sender of v.
func (r *rotation) other(v *SecretStatus) string {
	if s := r.successor(v); s != nil {
		return fmt.Sprintf("version %q", s.Version)
	}
	return "a version that is in force"
}

// ago and in write a span of time to or from now.
func ago(now, t time.Time) string { return span(now.Sub(t)) + " ago" }
func in(now, t time.Time) string  { return "in " + span(t.Sub(now)) }

// span is a duration in its largest unit.
func span(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= unit.length {
			return fmt.Sprintf("%d%s", d/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%ds", max(0, d)/time.Second)
}
