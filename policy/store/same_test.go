package store_test

import (
	"testing"

	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
	"github.com/hookauthz/hookauthz/policy/store/storetest"
)

// The embedded and the shared store are one law.
func TestRedisIsLikeMemory(t *testing.T) {
	storetest.Same(t, open(t, redistest.Shared(t).URL(), (*store.RedisConfig).GoByCallersClock), store.NewMemory(store.MemoryConfig{}))
}
