package store_test

import (
	"os"
	"testing"

	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	redistest.StopShared()
	os.Exit(code)
}
