package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/incident"
)

// incidentDesk takes the actions of the people on call, as far as they fit the policies in force.
type incidentDesk struct {
	book   *incident.Book
	engine *policy.Engine
	audit  *auditing // nil: there is no file
	logger *slog.Logger
	now    func() time.Time
}

// openIncidents reads what is in force and puts it there. Where the store must be there what it holds must be known, too: a server that does
// not know of a revocation lets in what others deny.
func openIncidents(engine *policy.Engine, shared *sharedStore, required bool, file string, logger *slog.Logger, now func() time.Time) (*incidentDesk, error) {
	c := incident.Config{Apply: engine.Hold, File: file, Logger: logger, Now: now}
	if shared != nil {
		c.Shared = shared.redis
	}
	book, err := incident.Open(context.Background(), c)
	if err != nil {
		return nil, failed("mend it, or move it away: what it held is then not in force any more", "--state: %w", err)
	}
	if pending := book.Pending(); pending != nil && shared != nil && required {
		return nil, failed("mend the store; or start without knowing what is paused, revoked and blocked: --store-required=false", "incidents: %w", pending)
	}
	return &incidentDesk{book: book, engine: engine, logger: logger, now: now}, nil
}

// List implements admin.Incidents. What stands in the policy files is listed as well.
func (d *incidentDesk) List() ([]admin.Incident, admin.Kept) {
	set := d.engine.Set()
	versions := versionsOf(set)
	var list []admin.Incident
	for _, i := range d.book.List() {
		list = append(list, d.shown(i, versions))
	}
	now := d.now()
	for _, e := range set.Endpoints() {
		if now.Before(e.PausedUntil) {
			list = append(list, admin.Incident{Kind: string(incident.Pause), Endpoint: e.Name, Until: e.PausedUntil, State: "policy"})
		}
		for _, v := range e.Versions {
			if v.Revoked {
				list = append(list, admin.Incident{Kind: string(incident.Revoke), Endpoint: e.Name, Version: v.Name, State: "policy"})
			}
		}
	}
	slices.SortFunc(list, func(a, b admin.Incident) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Address, b.Address), cmp.Compare(a.State, b.State))
	})
	return list, d.kept(d.book.Pending())
}

func (d *incidentDesk) kept(pending error) admin.Kept {
	k := admin.Kept{Kept: d.book.Kept()}
	if pending != nil {
		k.Pending = pending.Error()
	}
	return k
}

// versionsOf names the secret versions of each endpoint.
func versionsOf(set *policy.Set) map[string][]string {
	all := make(map[string][]string)
	for _, e := range set.Endpoints() {
		names := []string{}
		for _, v := range e.Versions {
			names = append(names, v.Name)
		}
		all[e.Name] = names
	}
	return all
}

// shown is an incident as the API has it.
func (d *incidentDesk) shown(i incident.Incident, versions map[string][]string) admin.Incident {
	s := admin.Incident{
		Kind: string(i.Kind), Endpoint: i.Endpoint, Version: i.Version, Since: i.Since, Until: i.Until,
		By: i.By, Token: i.Token, Why: i.Why, State: "in_force",
	}
	if i.Kind == incident.Block {
		s.Address = i.What()
		return s
	}
	names, known := versions[i.Endpoint]
	if !known || i.Kind == incident.Revoke && !slices.Contains(names, i.Version) {
		s.State = "dormant"
	}
	return s
}

// Do implements admin.Incidents.
func (d *incidentDesk) Do(ctx context.Context, who admin.Person, a admin.Action) (admin.Done, error) {
	action, err := d.read(who, a)
	if err != nil {
		return admin.Done{}, refusal(err)
	}
	// It is written also where the caller hangs up.
	done, err := d.book.Do(context.WithoutCancel(ctx), action)
	if err != nil {
		return admin.Done{}, refusal(err)
	}
	d.logger.Warn("incident action", "action", a.Action, "what", done.Incident.What(), "by", a.By, "token", who.Name, "why", a.Why)
	set := d.engine.Set()
	did := admin.Done{
		Action: a.Action, Incident: d.shown(done.Incident, versionsOf(set)), Kept: d.kept(done.Pending), Notes: d.notes(set, a.Action, done.Incident),
	}
	if err := d.audit.acted(who, &did, a.By); err != nil { // it is in force all the same
		did.Notes = append(did.Notes, "it is not in the audit file: "+err.Error())
	}
	return did, nil
}

// read reads an action and checks it against the policies. What is to be undone need not be in them any more.
func (d *incidentDesk) read(who admin.Person, a admin.Action) (incident.Action, error) {
	action := incident.Action{Do: a.Action, Endpoint: a.Endpoint, Version: a.Version, Why: a.Why, By: a.By, Token: who.Name}
	var err error
	if a.For != "" {
		if action.For, err = policy.ParseDuration(a.For); err != nil {
			return action, &incident.Refused{Code: "for", Problem: fmt.Sprintf("%.32q is no time", a.For), Fix: "write it as 90s, 1h or 2d"}
		}
	}
	if a.Address != "" {
		if action.Address, err = incident.ParseAddress(a.Address); err != nil {
			return action, err
		}
	}
	set := d.engine.Set()
	switch a.Action {
	case "pause", "revoke":
		return action, known(versionsOf(set), a)
	case "block":
		return action, apartFromProxies(set, action.Address)
	}
	return action, nil
}

// known refuses names that are not in the policies.
func known(versions map[string][]string, a admin.Action) error {
	near := func(name string, names []string) string {
		slices.Sort(names)
		if n := policy.Nearest(name, names); n != "" {
			return fmt.Sprintf("did you mean %q?", n)
		}
		if len(names) > 10 {
			return fmt.Sprintf("there are %d", len(names))
		}
		return "there are: " + strings.Join(names, ", ")
	}
	names, there := versions[a.Endpoint]
	if !there && a.Endpoint != "" {
		var all []string
		for name := range versions {
			all = append(all, name)
		}
		return &admin.Error{Status: http.StatusNotFound, Code: "unknown_endpoint", Message: fmt.Sprintf("no webhook is named %.128q", a.Endpoint), Hint: near(a.Endpoint, all)}
	}
	if a.Action == "revoke" && a.Version != "" && !slices.Contains(names, a.Version) {
		return &admin.Error{Status: http.StatusNotFound, Code: "unknown_version", Message: fmt.Sprintf("%s has no secret version %.128q", a.Endpoint, a.Version), Hint: near(a.Version, names)}
	}
	return nil
}

// apartFromProxies refuses to block the proxies that client addresses are taken from: it would block every client behind them.
func apartFromProxies(set *policy.Set, p netip.Prefix) error {
	for _, e := range set.Endpoints() {
		for _, proxy := range e.TrustedProxies {
			if p.IsValid() && p.Overlaps(proxy) {
				return &incident.Refused{Code: "address", Problem: fmt.Sprintf("%s is among the trusted proxies of %s (%s)", p, e.Name, proxy),
					Fix: "block the address of the sender, as the log has it in client_address"}
			}
		}
	}
	return nil
}

// notes are what else somebody on call should know.
func (d *incidentDesk) notes(set *policy.Set, action string, i incident.Incident) (notes []string) {
	now := d.now()
	if action == "block" && i.Address.Addr().IsLoopback() {
		notes = append(notes, "this is the machine of Envoy itself: whoever sends from there is blocked, and everybody behind a proxy there that no policy trusts")
	}
	if action == "unblock" {
		for _, other := range d.book.List() {
			if other.Kind == incident.Block && other.Address.Overlaps(i.Address) {
				notes = append(notes, "the block of "+other.What()+" stays in force")
			}
		}
	}
	for _, e := range set.Endpoints() {
		if e.Name != i.Endpoint {
			continue
		}
		if action == "unpause" && now.Before(e.PausedUntil) {
			notes = append(notes, "its policy pauses it until "+stamp(e.PausedUntil))
		}
		others := slices.ContainsFunc(e.Versions, func(v policy.VersionInfo) bool {
			return v.Available && !v.Revoked && !v.Decoy && !now.Before(v.NotBefore) && (v.NotAfter.IsZero() || now.Before(v.NotAfter)) && !d.isRevoked(e.Name, v.Name)
		})
		if action == "revoke" && !others {
			notes = append(notes, "no other version of "+e.Name+" is in force: every delivery to it is refused")
		}
		for _, v := range e.Versions {
			switch {
			case action != "restore" || v.Name != i.Version || v.Decoy:
			case v.Revoked:
				notes = append(notes, "its policy says revoked: true, so it stays revoked")
			case v.Available && (v.NotAfter.IsZero() || now.Before(v.NotAfter)):
				notes = append(notes, "its secret is still there, and good again: if it leaked, revoke it until no server lists it any more (hookauthz secrets status)")
			}
		}
	}
	return notes
}

func (d *incidentDesk) isRevoked(endpoint, version string) bool {
	return slices.ContainsFunc(d.book.List(), func(i incident.Incident) bool {
		return i.Kind == incident.Revoke && i.Endpoint == endpoint && i.Version == version
	})
}

// refusal is an error as the API tells it.
func refusal(err error) error {
	r, ok := incident.IsRefused(err)
	if !ok {
		return err
	}
	e := &admin.Error{Status: http.StatusBadRequest, Code: r.Code, Message: r.Problem, Hint: r.Fix}
	switch r.Code {
	case "not_in_force":
		e.Status = http.StatusNotFound
	case "too_many":
		e.Status = http.StatusConflict
	}
	return e
}
