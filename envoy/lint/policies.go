package lint

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	loggerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/hookauthz/hookauthz/policy"
)

// policyFacts is what the rules ask of the policies.
type policyFacts struct {
	given   bool
	byName  map[string]policy.EndpointInfo
	all     []policy.EndpointInfo
	headers []string // that some scheme reads
}

func factsOf(set *policy.Set) policyFacts {
	p := policyFacts{byName: make(map[string]policy.EndpointInfo)}
	if set == nil {
		return p
	}
	p.given, p.all = true, set.Endpoints()
	for _, e := range p.all {
		p.byName[e.Name] = e
		p.headers = append(p.headers, e.Headers...)
	}
	slices.Sort(p.headers)
	p.headers = slices.Compact(p.headers)
	return p
}

func (p policyFacts) usesClientHeader(endpoints []policy.EndpointInfo) bool {
	return slices.ContainsFunc(endpoints, func(e policy.EndpointInfo) bool { return e.ClientHeader == clientHeader })
}

// underscores says whether a scheme reads a header whose name has an underscore, so that such headers must pass.
func (p policyFacts) underscores() bool {
	return slices.ContainsFunc(p.headers, func(name string) bool { return strings.Contains(name, "_") })
}

// endpointsOf are the policies that decide on some ways.
func (l *linter) endpointsOf(ways []*way) []policy.EndpointInfo {
	seen := make(map[string]bool)
	var found []policy.EndpointInfo
	for _, w := range ways {
		for _, e := range l.endpointsOn(w) {
			if !seen[e.Name] {
				seen[e.Name] = true
				found = append(found, e)
			}
		}
	}
	return found
}

// endpointsOn are the policies that can decide on a way: the one that it names, else those for its hosts and paths.
func (l *linter) endpointsOn(w *way) []policy.EndpointInfo {
	if z := l.guards(w); z != nil {
		if name, ok := l.settingsFor(w, z.filter.GetName()).context[endpointKey]; ok && !l.redacted(name) {
			if e, ok := l.policies.byName[name]; ok {
				return []policy.EndpointInfo{e}
			}
			return nil
		}
	}
	var found []policy.EndpointInfo
	for _, e := range l.policies.all {
		if len(e.Paths) > 0 && meets(e, w) {
			found = append(found, e)
		}
	}
	return found
}

// redacted says whether Envoy has left a value out of a dump: it takes context extensions for secrets.
func (l *linter) redacted(value string) bool { return l.source.dump && value == "[redacted]" }

// meets says whether a request of a way can be what a policy is for.
func meets(e policy.EndpointInfo, w *way) bool {
	return meetsHosts(e.Hosts, w.host.GetDomains()) && meetsPaths(e.Paths, w.route.GetMatch())
}

func meetsHosts(patterns, domains []string) bool {
	if len(patterns) == 0 || len(domains) == 0 {
		return true
	}
	for _, p := range patterns {
		for _, d := range domains {
			if hostsMeet(strings.ToLower(p), strings.ToLower(withoutPort(d))) {
				return true
			}
		}
	}
	return false
}

func withoutPort(domain string) string {
	if i := strings.LastIndexByte(domain, ':'); i >= 0 && !strings.HasSuffix(domain, "]") {
		return domain[:i]
	}
	return domain
}

// hostsMeet says whether a host can match both patterns; a domain of Envoy may also end in *.
func hostsMeet(pattern, domain string) bool {
	p, wild := strings.CutPrefix(pattern, "*")
	switch {
	case domain == "*" || domain == pattern:
		return true
	case strings.HasPrefix(domain, "*"):
		return strings.HasSuffix(p, domain[1:]) || wild && strings.HasSuffix(domain[1:], p)
	case strings.HasSuffix(domain, "*"):
		return wild || strings.HasPrefix(p, domain[:len(domain)-1])
	}
	return wild && len(domain) > len(p) && strings.HasSuffix(domain, p)
}

func meetsPaths(patterns []string, m *routev3.RouteMatch) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, pattern := range patterns {
		if pathsMeet(pattern, m) {
			return true
		}
	}
	return false
}

func pathsMeet(pattern string, m *routev3.RouteMatch) bool {
	begin, wild := strings.CutSuffix(pattern, "*")
	fold := func(s string) string { return s }
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
		fold = strings.ToLower
	}
	switch {
	case m.GetPath() != "":
		return fold(m.GetPath()) == fold(begin) && !wild || wild && strings.HasPrefix(fold(m.GetPath()), fold(begin))
	case m.GetPathSeparatedPrefix() != "":
		p := fold(m.GetPathSeparatedPrefix())
		return fold(begin) == p || strings.HasPrefix(fold(begin), p+"/") || wild && strings.HasPrefix(p+"/", fold(begin))
	case m.GetPrefix() != "":
		return strings.HasPrefix(fold(begin), fold(m.GetPrefix())) || wild && strings.HasPrefix(fold(m.GetPrefix()), fold(begin))
	case m.GetSafeRegex() != nil && !wild:
		return matchesRegex(m.GetSafeRegex(), begin)
	}
	return true // what cannot be told is no finding
}

// judgePolicies holds hook routes against the policies.
func (l *linter) judgePolicies(c *chain, ways []*way) {
	for _, w := range ways {
		z := l.guards(w)
		s := l.settingsFor(w, z.filter.GetName())
		for key := range s.context {
			if key != endpointKey && strings.HasPrefix(key, "hookauthz.") {
				l.reportf(ruleUnknownEndpoint, s.contextAt[key], "hookauthz knows no context extension %q", key)
			}
		}
		if l.policies.given {
			l.judgePolicy(w, z, s)
		}
	}
	if !l.policies.given {
		return
	}
	endpoints := l.endpointsOf(ways)
	for _, z := range c.authz {
		if z.ours {
			l.judgeHeaders(z, endpoints)
		}
	}
	for _, w := range ways {
		for _, f := range c.http {
			if _, off := l.off(w, f); !off {
				l.judgeLimit(w, f)
			}
		}
	}
	for _, e := range endpoints {
		if slices.Contains(e.Headers, "x-request-id") && !c.hcm.GetPreserveExternalRequestId() && c.hcm.GetUseRemoteAddress().GetValue() {
			l.reportf(ruleRequestID, l.at(c.hcm, "preserve_external_request_id"), "the scheme of %q reads x-request-id", e.Name)
		}
		if at, ok := l.logsOutcomes(c); e.Reservation > 0 && !ok {
			l.reportf(ruleOutcomeLog, at, "%q has confirm: outcome", e.Name)
		}
	}
}

// defaultRouteTimeout is what Envoy takes where a route says nothing.
const defaultRouteTimeout = 15 * time.Second

// judgePolicy holds one route against the policy that it names.
func (l *linter) judgePolicy(w *way, z *authz, s settings) {
	name, named := s.context[endpointKey]
	e, known := l.policies.byName[name]
	switch {
	case l.redacted(name): // the policy may be one without a match
	case named && !known:
		l.reportf(ruleUnknownEndpoint, s.contextAt[endpointKey], "there is no policy %q", name)
		return
	case w.route.GetRoute() == nil: // answered by Envoy, whatever the Check says
		return
	case named && !meets(e, w):
		l.reportf(ruleNoPolicy, l.at(w.route, "match"), "the match of policy %q does not hold here", name)
		return
	case !named && len(l.endpointsOn(w)) == 0:
		l.report(ruleNoPolicy, l.at(w.route, "match"), "no policy has a match for this route")
		return
	}
	body, at := z.config.GetWithRequestBody(), l.at(z.config, "with_request_body", "max_request_bytes")
	if own := s.checks.GetWithRequestBody(); own != nil {
		body, at = own, l.at(own, "max_request_bytes")
	}
	for _, e := range l.endpointsOn(w) {
		if body != nil && int64(body.GetMaxRequestBytes()) < e.MaxBytes {
			l.reportf(ruleSmallBody, at, "%d bytes are less than the %d of policy %q", body.GetMaxRequestBytes(), e.MaxBytes, e.Name)
		}
		if action := w.route.GetRoute(); action != nil && e.Reservation > 0 {
			timeout := defaultRouteTimeout
			if d := action.GetTimeout(); d != nil {
				timeout = d.AsDuration()
			}
			if timeout == 0 || timeout > e.Reservation {
				l.reportf(ruleReservation, l.at(action, "timeout"), "the application may take longer than the reservation of %q, %v", e.Name, e.Reservation)
			}
		}
	}
	if most := l.config.MaxBody; most > 0 && int64(body.GetMaxRequestBytes()) > most {
		l.reportf(ruleLargeBody, at, "%d bytes are more than the server takes, %d", body.GetMaxRequestBytes(), most)
	}
}

// judgeHeaders reports lists that keep a scheme's headers away.
func (l *linter) judgeHeaders(z *authz, endpoints []policy.EndpointInfo) {
	for _, e := range endpoints {
		for _, name := range e.Headers {
			if at, hidden := l.hidden(z.config, name); hidden && !slices.Contains(needed, name) {
				l.reportf(ruleHeadersDropped, at, "the scheme of %q reads %s", e.Name, name)
			}
		}
	}
}

// judgeLimit reports a filter that refuses bodies which the policies of a way allow.
func (l *linter) judgeLimit(w *way, f *hcmv3.HttpFilter) {
	most, at := int64(-1), spot{}
	for _, m := range append([]proto.Message{l.httpConfig(f)}, l.perRoute([]*way{w}, f.GetName())...) {
		if p, ok := m.(*bufferv3.BufferPerRoute); ok {
			m = p.GetBuffer()
		}
		if m, ok := m.(interface {
			proto.Message
			GetMaxRequestBytes() *wrapperspb.UInt32Value
		}); ok && m.GetMaxRequestBytes() != nil {
			most, at = int64(m.GetMaxRequestBytes().GetValue()), l.at(m, "max_request_bytes")
		}
	}
	for _, e := range l.endpointsOn(w) {
		if most > 0 && most < e.MaxBytes {
			l.reportf(ruleSmallBody, at, "%q takes %d bytes, less than the %d of policy %q", f.GetName(), most, e.MaxBytes, e.Name)
		}
	}
}

// logsOutcomes says whether an access log goes to the authorizer of a chain, with every outcome. Where it does not, at is what is wrong.
func (l *linter) logsOutcomes(c *chain) (at spot, ok bool) {
	at = l.at(c.hcm, "access_log")
	for _, log := range c.hcm.GetAccessLog() {
		g, ok := opened[*loggerv3.HttpGrpcAccessLogConfig](l, log.GetTypedConfig())
		if !ok {
			continue
		}
		service := g.GetCommonConfig().GetGrpcService()
		for _, z := range c.authz {
			own := z.config.GetGrpcService()
			if z.ours && (service.GetEnvoyGrpc().GetClusterName() == own.GetEnvoyGrpc().GetClusterName() && service.GetEnvoyGrpc() != nil ||
				service.GetGoogleGrpc() != nil && service.GetGoogleGrpc().GetTargetUri() == own.GetGoogleGrpc().GetTargetUri()) {
				if everyOutcome(log.GetFilter()) {
					return spot{}, true
				}
				at = l.at(log, "filter")
			}
		}
	}
	return at, false
}

// everyOutcome says whether a filter of an access log lets every answer of the application through. An extension is taken to.
func everyOutcome(f *accesslogv3.AccessLogFilter) bool {
	none := func(inner *accesslogv3.AccessLogFilter) bool { return !everyOutcome(inner) }
	switch {
	case f.GetAndFilter() != nil:
		return !slices.ContainsFunc(f.GetAndFilter().GetFilters(), none)
	case f.GetOrFilter() != nil:
		return slices.ContainsFunc(f.GetOrFilter().GetFilters(), everyOutcome)
	}
	return f == nil || f.GetMetadataFilter() != nil || f.GetNotHealthCheckFilter() != nil || f.GetExtensionFilter() != nil
}
