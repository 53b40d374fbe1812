package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/reload"
)

// policies keeps the policies of a server in force. A load that fails keeps the last good set and says so; secrets are read again
// all the same, so that a key that was deleted stops.
type policies struct {
	dir     string
	options policy.LoadOptions
	metrics reloadMetrics
	logger  *slog.Logger
	now     func() time.Time

	engine *policy.Engine
	audit  *auditing // nil: there is no file
	// What was logged last, so that a fault that stays is logged once.
	failure, secretFailure, secretWarning string
	// The last load failed although the files may be all right.
	unread bool

	reload atomic.Pointer[admin.Reload]
}

// reloadMetrics is what a server's metrics take about its policies.
type reloadMetrics interface {
	// SetPolicies shows a set that came into force.
	SetPolicies(set *policy.Set, now time.Time)
	// Reloaded counts a load of the policy folder.
	Reloaded(good bool, now time.Time)
	// PolicyFaults shows how many faults the policy files have.
	PolicyFaults(n int)
}

// start loads the policies for the first time and makes the engine that decides by them.
func (s *policies) start(c policy.EngineConfig) error {
	set, err := policy.Load(s.dir, s.options)
	if err != nil {
		return err
	}
	s.engine = policy.NewEngine(set, c)
	s.accepted(set)
	return nil
}

// secretFiles are the files to watch besides the policy files.
func (s *policies) secretFiles() []string { return s.engine.Set().SecretFiles() }

// lastReload says how the last load went.
func (s *policies) lastReload() admin.Reload { return *s.reload.Load() }

// changed brings what has changed into force. It reports false where something could not be read that may be readable soon.
func (s *policies) changed(_ context.Context, c reload.Change) bool {
	if !c.Policies && !s.unread {
		return s.reread(c)
	}
	set, err := policy.Load(s.dir, s.options)
	if err != nil {
		s.rejected(err)
		complete := s.reread(c)
		return complete && !s.unread
	}
	before := s.engine.Set()
	s.engine.Swap(set)
	s.logger.Info("policies reloaded", "policy_revision", set.Revision(), "previous_revision", before.Revision(), "webhooks", set.Len())
	s.accepted(set)
	return !set.Unread()
}

// accepted reports a set that has come into force.
func (s *policies) accepted(set *policy.Set) {
	s.failure, s.unread = "", false
	now := s.now()
	s.metrics.Reloaded(true, now)
	s.metrics.PolicyFaults(0)
	s.reload.Store(&admin.Reload{Success: true, At: now})
	for _, w := range set.Warnings() {
		s.logFault(slog.LevelWarn, "policy warning", w)
	}
	s.secretsRead(set)
}

// rejected reports a load that failed. Each failure is logged once, however often the same files are tried.
func (s *policies) rejected(err error) {
	now := s.now()
	s.metrics.Reloaded(false, now)
	var faults policy.Faults
	s.unread = !errors.As(err, &faults)
	s.metrics.PolicyFaults(max(len(faults), 1))
	last := admin.Reload{At: now, Faults: faults}
	if s.unread {
		last.Error = err.Error()
	}
	s.reload.Store(&last)
	if err.Error() == s.failure {
		return
	}
	s.failure = err.Error()
	kept := s.engine.Set().Revision()
	s.audit.reloaded(kept, len(faults), false)
	if s.unread {
		s.logger.Error("policies not reloaded: the last good ones stay in force", "error", err, "policy_revision", kept)
		return
	}
	for _, f := range faults {
		s.logFault(slog.LevelError, "policy fault", f)
	}
	s.logger.Error("policies not reloaded: the last good ones stay in force", "faults", len(faults), "policy_revision", kept)
}

// reread reads the secrets of the policies in force again.
func (s *policies) reread(c reload.Change) bool {
	set := s.engine.Set().Reread()
	s.engine.Swap(set)
	if c.Secrets {
		s.logger.Info("secrets read again", "policy_revision", set.Revision(), "unavailable", len(set.SecretFaults()))
	}
	s.secretsRead(set)
	return !set.Unread()
}

// secretsRead reports which secrets are there. Those that are not, and those that are weak, are logged when that changes.
func (s *policies) secretsRead(set *policy.Set) {
	s.metrics.SetPolicies(set, s.now())
	report := func(faults policy.Faults, said *string, level slog.Level, message string) {
		var text strings.Builder
		for _, f := range faults {
			text.WriteString(f.String() + "\n")
		}
		if text.String() == *said {
			return
		}
		*said = text.String()
		for _, f := range faults {
			s.logFault(level, message, f)
		}
	}
	report(set.SecretFaults(), &s.secretFailure, slog.LevelError, "secret unavailable")
	report(set.SecretWarnings(), &s.secretWarning, slog.LevelWarn, "policy warning")
}

func (s *policies) logFault(level slog.Level, message string, f policy.Fault) {
	s.logger.Log(context.Background(), level, message,
		"file", f.File, "line", f.Line, "column", f.Column, "endpoint", f.Webhook, "problem", f.Problem, "fix", f.Fix)
}
