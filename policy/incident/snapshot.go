package incident

import (
	"net/netip"
	"time"

	"github.com/gaissmai/bart"
)

// Snapshot is what is in force, for those who decide. It never changes; nil holds nothing.
type Snapshot struct {
	paused  map[string]time.Time // by endpoint: until when
	revoked map[version]struct{}
	// Until when an address is blocked. A range knows the end of those around it as well, so that the longest match says it all.
	blocked *bart.Table[time.Time]
}

type version struct{ endpoint, name string }

// snapshot is nil where nothing is in force.
func snapshot(all map[string]Incident, now time.Time) *Snapshot {
	s := &Snapshot{paused: make(map[string]time.Time), revoked: make(map[version]struct{})}
	var blocks []Incident
	n := 0
	for _, i := range all {
		if !i.InForce(now) {
			continue
		}
		n++
		switch i.Kind {
		case Pause:
			s.paused[i.Endpoint] = i.Until
		case Revoke:
			s.revoked[version{i.Endpoint, i.Version}] = struct{}{}
		case Block:
			blocks = append(blocks, i)
		}
	}
	if n == 0 {
		return nil
	}
	if len(blocks) > 0 {
		s.blocked = new(bart.Table[time.Time])
	}
	for _, b := range blocks {
		until := b.Until
		for _, around := range blocks {
			if around.Address.Contains(b.Address.Addr()) && around.Address.Bits() <= b.Address.Bits() && around.Until.After(until) {
				until = around.Until
			}
		}
		s.blocked.Insert(b.Address, until)
	}
	return s
}

// PausedUntil is when the pause of an endpoint ends; zero where there is none.
func (s *Snapshot) PausedUntil(endpoint string) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.paused[endpoint]
}

// Revoked says whether a secret version of an endpoint is revoked.
func (s *Snapshot) Revoked(endpoint, name string) bool {
	if s == nil || len(s.revoked) == 0 {
		return false
	}
	_, is := s.revoked[version{endpoint, name}]
	return is
}

// Blocked says whether an address is blocked at a moment.
func (s *Snapshot) Blocked(a netip.Addr, now time.Time) bool {
	if s == nil || s.blocked == nil || !a.IsValid() {
		return false
	}
	until, found := s.blocked.Lookup(a.Unmap().WithZone(""))
	return found && now.Before(until)
}
