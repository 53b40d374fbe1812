package store_test

import (
	"testing"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) policy.Store { return store.NewMemory(store.MemoryConfig{}) })
}
