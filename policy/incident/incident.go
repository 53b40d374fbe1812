// Package incident holds what the people on call put in force beside the policy files, for the minutes in which a change of the files is too
// slow: endpoints that are paused, secret versions that are revoked, addresses that are blocked. Each is bounded in time or can be undone,
// names who did it and why, and is kept where all servers and a restart find it.
package incident

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hookauthz/hookauthz/policy/source"
)

// Kind is what an incident does.
type Kind string

const (
	Pause  Kind = "pause"  // every delivery to an endpoint gets 503
	Revoke Kind = "revoke" // a secret version of an endpoint counts as revoked
	Block  Kind = "block"  // every delivery from an address is denied
)

// Kinds are all there are.
var Kinds = []Kind{Pause, Revoke, Block}

// Incident is one thing that is, or was, in force.
type Incident struct {
	Kind     Kind         `json:"kind"`
	Endpoint string       `json:"endpoint,omitempty"` // of a pause or revocation
	Version  string       `json:"version,omitempty"`  // of a revocation
	Address  netip.Prefix `json:"address,omitzero"`   // of a block
	Since    time.Time    `json:"since"`
	Until    time.Time    `json:"until,omitzero"` // zero for a revocation, which lasts until it is undone
	By       string       `json:"by"`             // who says to have done it
	Token    string       `json:"token"`          // the name of the token that it was done with
	Why      string       `json:"why"`
	// Changed is when this was written. Of two records of one thing the later one counts.
	Changed time.Time `json:"changed"`
	// Undone says that it is not in force any more. Others must hear of that, so the record stays for a while.
	Undone bool `json:"undone,omitempty"`
}

// Bounds of an incident.
const (
	// MaxLength is how long a pause or a block may last: what is meant for longer belongs in the policy files.
	MaxLength = 30 * 24 * time.Hour
	// MaxInForce is how many there may be at once.
	MaxInForce = 500

	maxName = 253
	maxWhy  = 500
	maxBy   = 128
)

// key is what the incident is about. There is one record of each.
func (i *Incident) key() string {
	return strings.Join([]string{string(i.Kind), i.Endpoint, i.Version, textOf(i.Address)}, "\x00")
}

// InForce says whether it is in force at a moment.
func (i *Incident) InForce(now time.Time) bool {
	return !i.Undone && (i.Until.IsZero() || now.Before(i.Until))
}

// What names what it is about: "github", "version 1 of github" or "203.0.113.7".
func (i *Incident) What() string {
	switch i.Kind {
	case Revoke:
		return fmt.Sprintf("version %q of %s", i.Version, i.Endpoint)
	case Block:
		return textOf(i.Address)
	}
	return i.Endpoint
}

// textOf writes an address as people do: alone, or as a range.
func textOf(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// Refused is why an action, or a record that was read, is not taken.
type Refused struct {
	Code    string // for machines: field names, or not_in_force, too_many
	Problem string
	Fix     string // what to do; may be empty
}

func (r *Refused) Error() string {
	if r.Fix == "" {
		return r.Problem
	}
	return r.Problem + "; " + r.Fix
}

func refuse(code, fix, problem string, args ...any) error {
	return &Refused{code, fmt.Sprintf(problem, args...), fix}
}

// check says what is wrong with a record, whoever wrote it.
func (i *Incident) check() error {
	name := func(what, value string, wanted bool) error {
		switch {
		case wanted && value == "":
			return refuse(what, "", "the %s is missing", what)
		case !wanted && value != "":
			return refuse(what, "leave it out", "a %s has no %s", i.Kind, what)
		}
		return text(what, value, maxName)
	}
	switch i.Kind {
	case Pause, Revoke, Block:
	default:
		return refuse("kind", "there are pause, revoke and block", "there is no kind %q", clip(string(i.Kind)))
	}
	var address error
	switch {
	case (i.Kind == Block) != i.Address.IsValid():
		address = refuse("address", "", "a block has an address, and nothing else has")
	case i.Kind == Block:
		address = checkAddress(i.Address)
	}
	var until error
	switch {
	case i.Kind == Revoke && !i.Until.IsZero():
		until = refuse("until", "", "a revocation has no end")
	case i.Kind != Revoke && !i.Until.After(i.Since):
		until = refuse("until", "", "it ends before it begins")
	case i.Kind != Revoke && i.Until.Sub(i.Since) > MaxLength:
		until = refuse("until", "", "it lasts longer than %d days", MaxLength/(24*time.Hour))
	}
	var moment error
	if i.Since.IsZero() || i.Changed.Before(i.Since) {
		moment = refuse("changed", "", "it was changed before it began")
	}
	return cmp.Or(
		name("endpoint", i.Endpoint, i.Kind != Block),
		name("version", i.Version, i.Kind == Revoke),
		address, until, moment,
		text("why", i.Why, maxWhy), text("by", i.By, maxBy), text("token", i.Token, maxBy))
}

// text checks what people wrote: it comes out again in logs and on terminals.
func text(what, value string, most int) error {
	if len(value) > most || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return refuse(what, "", "the %s has more than %d bytes, or what cannot be printed", what, most)
	}
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// Least lengths of a range: what is larger is no sender.
const (
	leastBits4 = 8
	leastBits6 = 16
)

func checkAddress(p netip.Prefix) error {
	const pause = "pause the webhooks instead"
	switch {
	case p.Masked() != p || p.Addr().Is4In6() || p.Addr().Zone() != "":
		return refuse("address", "", "the address is not written as this program writes it")
	case p.Bits() == 0:
		return refuse("address", pause, "%s is every address", p)
	case p.Addr().Is4() && p.Bits() < leastBits4:
		return refuse("address", pause, "%s has more addresses than a /%d", p, leastBits4)
	case p.Addr().Is6() && p.Bits() < leastBits6:
		return refuse("address", pause, "%s has more addresses than a /%d", p, leastBits6)
	}
	return nil
}

// ParseAddress reads what is to be blocked: an address, or a range without host bits.
func ParseAddress(s string) (netip.Prefix, error) {
	p, err := source.ParsePrefix(s)
	if err != nil {
		return p, refuse("address", "write it as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32", "%v", err)
	}
	return p, checkAddress(p)
}

// Action is what somebody on call wants.
type Action struct {
	Do       string       // pause, unpause, revoke, restore, block or unblock
	Endpoint string       // of all but block and unblock
	Version  string       // of revoke and restore
	Address  netip.Prefix // of block and unblock
	For      time.Duration
	Why      string // wanted where something is put in force
	By       string
	Token    string
}

// Actions are all there are, with what they are about.
var Actions = []string{"pause", "unpause", "revoke", "restore", "block", "unblock"}

// kind says what an action is about, and whether it puts that in force or undoes it.
func (a *Action) kind() (k Kind, undo bool, err error) {
	switch a.Do {
	case "pause", "unpause":
		return Pause, a.Do == "unpause", nil
	case "revoke", "restore":
		return Revoke, a.Do == "restore", nil
	case "block", "unblock":
		return Block, a.Do == "unblock", nil
	}
	return "", false, refuse("action", "there are "+strings.Join(Actions, ", "), "there is no action %q", clip(a.Do))
}

// incident is what the action puts in force, or undoes.
func (a *Action) incident(now time.Time) (i Incident, undo bool, err error) {
	kind, undo, err := a.kind()
	if err != nil {
		return i, undo, err
	}
	i = Incident{Kind: kind, Endpoint: a.Endpoint, Version: a.Version, Address: a.Address, Since: now, By: a.By, Token: a.Token, Why: strings.TrimSpace(a.Why), Changed: now, Undone: undo}
	lasts := kind != Revoke && !undo
	switch {
	case !lasts && a.For != 0:
		return i, undo, refuse("for", "leave it out", "%s takes no time", a.Do)
	case lasts && a.For == 0:
		return i, undo, refuse("for", "write how long it lasts, such as 1h", "the time is missing")
	case lasts && (a.For < time.Second || a.For > MaxLength):
		return i, undo, refuse("for", "give 1s to 30d; what is meant for longer belongs in the policy files", "%s is too short or too long", a.For)
	case !undo && i.Why == "":
		return i, undo, refuse("why", "write a line for those who find it later", "the reason is missing")
	}
	if lasts {
		i.Until = now.Add(a.For)
	} else if kind != Revoke {
		i.Until = now.Add(time.Second) // of a record that says no more than that it is undone
	}
	return i, undo, i.check()
}

// IsRefused is the Refused in an error, if there is one.
func IsRefused(err error) (*Refused, bool) {
	var r *Refused
	ok := errors.As(err, &r)
	return r, ok
}
