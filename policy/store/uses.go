package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/hookauthz/hookauthz/policy"
)

const (
	// usesEvery is about how often a process tells the store of uses.
	usesEvery = 5 * time.Second
	// usesKept is how long a use is remembered, and maxUses of how many versions.
	usesKept = 90 * 24 * time.Hour
	maxUses  = 1 << 16
	// usesAtOnce bounds one command.
	usesAtOnce = 512
)

// NoteUses implements Shared. It is one command for each 512 versions.
func (r *Redis) NoteUses(ctx context.Context, uses []policy.SecretUse) error {
	client := r.client.Load()
	if client == nil {
		return errNotConnected
	}
	for len(uses) > 0 {
		n := min(len(uses), usesAtOnce)
		args := append(make([]string, 0, 2+2*n), strconv.FormatInt(usesKept.Milliseconds(), 10), strconv.Itoa(maxUses))
		for _, u := range uses[:n] {
			args = append(args, strconv.FormatInt(u.LastUsed.UnixMilli(), 10), u.Endpoint+"/"+u.Version)
		}
		if err := r.scripts.uses.Exec(ctx, client, []string{usesKey}, args).Error(); err != nil {
			return failure(err)
		}
		uses = uses[n:]
	}
	return nil
}

// LastUses implements Shared.
func (r *Redis) LastUses(ctx context.Context) (map[policy.VersionID]time.Time, error) {
	client := r.client.Load()
	if client == nil {
		return nil, errNotConnected
	}
	scores, err := client.Do(ctx, client.B().Zrange().Key(usesKey).Min("0").Max(strconv.Itoa(maxUses-1)).Rev().Withscores().Build()).AsZScores()
	if err != nil {
		return nil, failure(err)
	}
	uses := make(map[policy.VersionID]time.Time, len(scores))
	for _, s := range scores {
		if endpoint, version, ok := strings.Cut(s.Member, "/"); ok { // the name of an endpoint holds no '/'
			uses[policy.VersionID{Endpoint: endpoint, Version: version}] = time.UnixMilli(int64(s.Score))
		}
	}
	return uses, nil
}

// LastUses is when each secret version was last used, as all processes that share the store have told it.
func (g *Guard) LastUses(ctx context.Context) (map[policy.VersionID]time.Time, error) {
	if g.breaker.State() != gobreaker.StateClosed {
		return nil, errAway
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return g.config.Shared.LastUses(ctx)
}

// ShareUses tells the store when secret versions were last used, as uses has it: every few seconds what has changed, and once more when ctx
// ends. No decision waits for it, and it never opens the breaker: what could not be told is told later.
func (g *Guard) ShareUses(ctx context.Context, uses func() []policy.SecretUse) {
	told := make(map[policy.VersionID]time.Time)
	failing := false
	share := func(ctx context.Context) {
		err := g.shareUses(ctx, uses(), told)
		if err != nil && !failing && !errors.Is(err, errAway) {
			g.config.Logger.Warn("the store is not told when secrets were last used", "error", err)
		}
		failing = err != nil
	}
	timer := time.NewTimer(jittered(usesEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			share(context.WithoutCancel(ctx))
			return
		case <-timer.C:
			share(ctx)
			timer.Reset(jittered(usesEvery))
		}
	}
}

// shareUses tells what is later than what was told.
func (g *Guard) shareUses(ctx context.Context, uses []policy.SecretUse, told map[policy.VersionID]time.Time) error {
	if g.breaker.State() != gobreaker.StateClosed {
		return errAway
	}
	var news []policy.SecretUse
	for _, u := range uses {
		if u.LastUsed.After(told[u.VersionID]) {
			news = append(news, u)
		}
	}
	if len(news) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := g.config.Shared.NoteUses(ctx, news); err != nil {
		return fmt.Errorf("noting uses: %w", err)
	}
	clear(told) // of versions that have left the policies nothing is kept
	for _, u := range uses {
		told[u.VersionID] = u.LastUsed
	}
	return nil
}
