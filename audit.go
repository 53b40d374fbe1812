package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
)

// auditing writes the audit file of a server. A nil *auditing writes nothing.
type auditing struct {
	log *audit.Log
	now func() time.Time
}

// openAudit opens the file; nil where there is none.
func openAudit(file string, metrics *extauthz.Metrics, logger *slog.Logger, now func() time.Time) (*auditing, error) {
	if file == "" {
		return nil, nil
	}
	m := metrics.Audit()
	l, err := audit.Open(audit.Config{Path: file, Now: now, Failed: m.Failed, Lost: m.Lost, Logger: logger})
	if err != nil {
		return nil, failed("give another --audit file, or end the server that writes to it", "%w", err)
	}
	return &auditing{l, now}, nil
}

// file is what the admin listener reads; nil where there is none.
func (a *auditing) file() *audit.Log {
	if a == nil {
		return nil
	}
	return a.log
}

// decisions takes those that policies want audited; nil where there is no file.
func (a *auditing) decisions() func(audit.Entry) {
	if a == nil {
		return nil
	}
	return a.log.Note
}

// note has an entry written soon.
func (a *auditing) note(e audit.Entry) {
	if a != nil {
		e.Time = a.now()
		a.log.Note(e)
	}
}

// auditPatience is how long an action waits for the disk before it is answered all the same.
const auditPatience = 2 * time.Second

// acted has an action on the disk when it returns nil.
func (a *auditing) acted(who admin.Person, d *admin.Done, by string) error {
	if a == nil {
		return nil
	}
	i := &d.Incident
	ctx, cancel := context.WithTimeout(context.Background(), auditPatience)
	defer cancel()
	return a.log.Record(ctx, audit.Entry{
		Time: a.now(), Kind: audit.Action, Action: d.Action, Endpoint: i.Endpoint, SecretVersion: i.Version, Address: i.Address, Until: i.Until,
		By: by, Token: who.Name, Why: i.Why,
	})
}

// loginsRefused notes refused tokens.
func (a *auditing) loginsRefused(count int, lastFrom string) {
	a.note(audit.Entry{Kind: audit.Login, Count: count, From: lastFrom})
}

// reloaded notes a load of the policies; faults is 0 where it was good.
func (a *auditing) reloaded(revision string, faults int, good bool) {
	result := "good"
	if !good {
		result = "bad"
	}
	a.note(audit.Entry{Kind: audit.Reload, Result: result, PolicyRevision: revision, Faults: faults})
}

// run writes until ctx ends, and then what still waits.
func (a *auditing) run(ctx context.Context, logger *slog.Logger) {
	if a == nil {
		return
	}
	a.log.Run(ctx)
	head := a.log.Head()
	logger.Info("audit file closed", "file", a.log.Path(), "seq", head.Seq, "head", head.Hash)
}

// reopen goes on in a new file where the one before was moved away.
func (a *auditing) reopen() {
	if a != nil {
		a.log.Reopen()
	}
}
