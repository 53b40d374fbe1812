//go:build !race

package signature

import "testing"

// TestNoAllocation does not run under the race detector, where sync.Pool drops what it holds at random.
func TestNoAllocation(t *testing.T) {
	for _, name := range benched {
		s, k, d := prepare(t, name, 2048)
		var v Verification
		if allocs := testing.AllocsPerRun(200, func() {
			if !verify(&v, s, k, d) {
				t.Fatal("not valid")
			}
		}); allocs >= 1 { // a garbage collection may empty a pool
			t.Errorf("%s: %v allocations for one verification", name, allocs)
		}
	}
}
