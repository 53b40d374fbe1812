package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// virtualHost is the routes of some domains. Envoy looks in one virtual host only, so each holds what holds for wider patterns too.
type virtualHost struct {
	domains []string
	routes  []route
}

// route is where requests for a path go.
type route struct {
	action   action
	pattern  string // of a policy: /a, or /a/*; of a refusal: /, or the beginning of paths and a *
	endpoint string
	timeout  time.Duration
}

type action uint8

const (
	toEndpoint action = iota
	refuse            // 404: it could be another spelling of a webhook's path
	pass              // unchecked
)

// anyHost is the domain of what holds for any host.
const anyHost = "*"

// upstreamTimeout is how long the application may take.
const upstreamTimeout = 15 * time.Second

// virtualHosts are the routes of all endpoints: within each host pattern first the paths of that pattern, then those of wider ones,
// exact before prefix, longer before shorter. That is the order in which hookauthz looks for a policy.
func virtualHosts(endpoints []policy.EndpointInfo, passOthers bool) []virtualHost {
	byHost := make(map[string][]route)
	for _, e := range endpoints {
		hosts := e.Hosts
		if len(hosts) == 0 {
			hosts = []string{anyHost}
		}
		timeout := upstreamTimeout
		if e.Reservation > 0 { // an answer that comes later than the reservation ends could not be counted
			timeout = min(timeout, e.Reservation)
		}
		for _, host := range hosts {
			for _, path := range e.Paths {
				byHost[host] = append(byHost[host], route{pattern: path, endpoint: e.Name, timeout: timeout})
			}
		}
	}
	var rest []route
	if passOthers {
		rest = others(endpoints)
		if byHost[anyHost] == nil {
			byHost[anyHost] = []route{}
		}
	}
	var out []virtualHost
	for host := range byHost {
		var routes []route
		for _, wider := range widening(host) {
			routes = append(routes, mostSpecificFirst(byHost[wider])...)
		}
		out = append(out, virtualHost{[]string{domain(host)}, append(reachable(routes), rest...)})
	}
	return merge(out)
}

// widening is a host pattern and those that hold for all its hosts, the closest first.
func widening(host string) []string {
	if host == anyHost {
		return []string{anyHost}
	}
	out := []string{host}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return append(out, anyHost)
	}
	rest := strings.TrimPrefix(host, "*.")
	for {
		_, parent, found := strings.Cut(rest, ".")
		if !found {
			return append(out, anyHost)
		}
		out, rest = append(out, "*."+parent), parent
	}
}

func mostSpecificFirst(routes []route) []route {
	return slices.SortedStableFunc(slices.Values(routes), func(a, b route) int {
		if a.prefix() != b.prefix() {
			if a.prefix() {
				return 1
			}
			return -1
		}
		if a.prefix() {
			if c := cmp.Compare(len(b.pattern), len(a.pattern)); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.pattern, b.pattern)
	})
}

func (r route) prefix() bool { return strings.HasSuffix(r.pattern, "/*") }

// covers says that every path of another route is one of this route's.
func (r route) covers(other route) bool {
	if !r.prefix() {
		return r.pattern == other.pattern
	}
	return strings.HasPrefix(other.pattern, strings.TrimSuffix(r.pattern, "*"))
}

// reachable leaves out what an earlier route takes.
func reachable(routes []route) []route {
	var out []route
	for _, r := range routes {
		if !slices.ContainsFunc(out, func(earlier route) bool { return earlier.covers(r) }) {
			out = append(out, r)
		}
	}
	return out
}

// others are the routes of what no policy is for, where it passes: first a refusal of every path that begins like a webhook's,
// whatever the host and the case, then what is left. An application that is laxer about paths or hosts than Envoy would else take
// such a request for the webhook.
func others(endpoints []policy.EndpointInfo) []route {
	var guards []string
	for _, e := range endpoints {
		for _, path := range e.Paths {
			if path != "/" && path != "/*" { // "/" begins every path
				path = strings.ToLower(strings.TrimSuffix(path, "/*")) + "*"
			}
			guards = append(guards, path)
		}
	}
	slices.Sort(guards)
	var out []route
	for _, g := range slices.Compact(guards) {
		covered := func(r route) bool {
			beginning, open := strings.CutSuffix(r.pattern, "*")
			return open && strings.HasPrefix(g, beginning)
		}
		if !slices.ContainsFunc(out, covered) {
			out = append(out, route{action: refuse, pattern: g})
		}
	}
	return append(out, route{action: pass})
}

// domain is a host pattern as Envoy writes it.
func domain(host string) string {
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && ip.Is6() {
		return "[" + strings.Trim(host, "[]") + "]"
	}
	return host
}

// merge joins virtual hosts that have the same routes, in the order of their first domains; any host comes last.
func merge(hosts []virtualHost) []virtualHost {
	slices.SortFunc(hosts, func(a, b virtualHost) int { return compareDomains(a.domains[0], b.domains[0]) })
	var out []virtualHost
	for _, h := range hosts {
		same := slices.IndexFunc(out, func(o virtualHost) bool { return slices.Equal(o.routes, h.routes) })
		if same < 0 {
			out = append(out, h)
			continue
		}
		out[same].domains = append(out[same].domains, h.domains...)
	}
	return out
}

func compareDomains(a, b string) int {
	if (a == anyHost) != (b == anyHost) {
		if a == anyHost {
			return 1
		}
		return -1
	}
	return cmp.Compare(a, b)
}
