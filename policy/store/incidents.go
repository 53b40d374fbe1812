package store

import (
	"context"

	"github.com/redis/rueidis"
)

// incidentsKey holds the incidents of all servers, as package incident writes them. It has no time to live.
const incidentsKey = namespace + "incidents"

// LoadIncidents gives the incidents that are kept; nil where none are. It does not go by the breaker of a Guard, nor count there.
func (r *Redis) LoadIncidents(ctx context.Context) ([]byte, error) {
	client := r.client.Load()
	if client == nil {
		return nil, errNotConnected
	}
	kept, err := client.Do(ctx, client.B().Get().Key(incidentsKey).Build()).AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return kept, failure(err)
}

// SwapIncidents keeps next if what is kept is still last, and reports whether it was.
func (r *Redis) SwapIncidents(ctx context.Context, last, next []byte) (bool, error) {
	client := r.client.Load()
	if client == nil {
		return false, errNotConnected
	}
	swapped, err := r.scripts.swap.Exec(ctx, client, []string{incidentsKey}, []string{string(last), string(next)}).AsInt64()
	return swapped == 1, failure(err)
}
