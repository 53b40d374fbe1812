package lint

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// chain is one list of HTTP filters that requests can run through.
type chain struct {
	listener *listenerv3.Listener
	filters  *listenerv3.FilterChain
	hcm      *hcmv3.HttpConnectionManager
	http     []*hcmv3.HttpFilter
	httpAt   spot // of the list
	// upgrade is the kind of upgrade that has this chain of its own; "" is everybody's chain.
	upgrade string
	authz   []*authz
	routes  []*routev3.RouteConfiguration
	blind   bool // its routes are not here
}

func (c *chain) name() string {
	name := c.listener.GetName()
	if name == "" {
		name = c.hcm.GetStatPrefix()
	}
	return name
}

// authz is one ext_authz filter of a chain.
type authz struct {
	filter      *hcmv3.HttpFilter
	config      *extauthzv3.ExtAuthz
	position    int // in the chain
	conditional bool
	ours        bool
}

// way is one thing that can become of a request: a chain, a route, and a cluster.
type way struct {
	chain   *chain
	config  *routev3.RouteConfiguration
	host    *routev3.VirtualHost
	route   *routev3.Route
	weight  *routev3.WeightedCluster_ClusterWeight // nil: no choice of clusters
	cluster string                                 // "": no upstream
	any     string                                 // how the client chooses the cluster; "": it does not
	at      spot                                   // where the cluster is named
	guarded bool
}

// levels are the places of per-filter settings, the least specific first.
func (w *way) levels() []level {
	levels := []level{{w.config, w.config.GetTypedPerFilterConfig()}, {w.host, w.host.GetTypedPerFilterConfig()}, {w.route, w.route.GetTypedPerFilterConfig()}}
	if w.weight != nil {
		levels = append(levels, level{w.weight, w.weight.GetTypedPerFilterConfig()})
	}
	return levels
}

type level struct {
	owner    proto.Message
	settings map[string]*anypb.Any
}

// settings is what holds for a filter on a way, put together from all levels.
type settings struct {
	mentioned bool // some level has an entry
	disabled  bool
	at        spot // of the entry that disables
	context   map[string]string
	contextAt map[string]spot
	checks    *extauthzv3.CheckSettings
}

// settingsFor follows the levels of a way for the filter of this name.
func (l *linter) settingsFor(w *way, filter string) settings {
	s := settings{context: make(map[string]string), contextAt: make(map[string]spot)}
	for _, level := range w.levels() {
		a := level.settings[filter]
		if a == nil {
			continue
		}
		s.mentioned, s.disabled = true, false
		where := l.at(a)
		m := l.inner[a]
		if f, ok := m.(*routev3.FilterConfig); ok {
			if f.GetDisabled() {
				s.disabled, s.at = true, l.at(f, "disabled")
				continue
			}
			m = l.inner[f.GetConfig()]
			if f.GetConfig() != nil {
				where = l.at(f.GetConfig())
			}
		}
		p, ok := m.(*extauthzv3.ExtAuthzPerRoute)
		if !ok {
			continue
		}
		if p.GetDisabled() {
			s.disabled, s.at = true, where.at("disabled")
			continue
		}
		s.checks = p.GetCheckSettings()
		for k, v := range s.checks.GetContextExtensions() {
			s.context[k] = v
			s.contextAt[k] = where.at("check_settings", "context_extensions", k)
		}
	}
	return s
}

// off says whether a filter does not run on a way, and where that is said.
func (l *linter) off(w *way, f *hcmv3.HttpFilter) (spot, bool) {
	s := l.settingsFor(w, f.GetName())
	switch {
	case s.disabled:
		return s.at, true
	case !s.mentioned && f.GetDisabled():
		return l.at(f, "disabled"), true
	}
	return spot{}, false
}

// endpointKey is the context extension that names a policy.
const endpointKey = "hookauthz.endpoint"

// follow finds every chain and every way.
func (l *linter) follow() {
	for _, ln := range l.listeners {
		for _, m := range l.managersOf(ln) {
			l.addChain(ln, m.chain, m.hcm)
		}
	}
	for _, c := range l.chains {
		for _, rc := range c.routes {
			for _, vh := range rc.GetVirtualHosts() {
				for _, r := range l.routesOf(vh) {
					l.addWays(c, rc, vh, r)
				}
			}
		}
	}
	l.recognize()
	for _, w := range l.ways {
		w.guarded = l.guards(w) != nil
	}
}

type manager struct {
	chain *listenerv3.FilterChain
	hcm   *hcmv3.HttpConnectionManager
}

func chainsOf(ln *listenerv3.Listener) []*listenerv3.FilterChain {
	chains := slices.Clone(ln.GetFilterChains())
	if c := ln.GetDefaultFilterChain(); c != nil {
		chains = append(chains, c)
	}
	return chains
}

// managersOf are the HTTP connection managers of a listener.
func (l *linter) managersOf(ln *listenerv3.Listener) []manager {
	var found []manager
	for _, fc := range chainsOf(ln) {
		for _, f := range fc.GetFilters() {
			if hcm, ok := opened[*hcmv3.HttpConnectionManager](l, l.networkConfig(f)); ok {
				found = append(found, manager{fc, hcm})
			}
		}
	}
	if a := ln.GetApiListener().GetApiListener(); a != nil {
		if hcm, ok := opened[*hcmv3.HttpConnectionManager](l, a); ok {
			found = append(found, manager{new(listenerv3.FilterChain), hcm})
		}
	}
	return found
}

// networkConfig is the configuration of a network filter, wherever it comes from.
func (l *linter) networkConfig(f *listenerv3.Filter) *anypb.Any {
	if d := f.GetConfigDiscovery(); d != nil {
		return l.discovered(f.GetName(), d, l.at(f, "config_discovery"))
	}
	return f.GetTypedConfig()
}

// discovered is the configuration of an extension that a control plane delivers.
func (l *linter) discovered(name string, d *corev3.ExtensionConfigSource, at spot) *anypb.Any {
	if c := l.view.filters[name]; c != nil {
		return c.GetTypedConfig()
	}
	if d.GetDefaultConfig() != nil {
		return d.GetDefaultConfig()
	}
	l.reportf(ruleElsewhere, at, "the filter %q is delivered by a control plane and is not here", name)
	return nil
}

func (l *linter) addChain(ln *listenerv3.Listener, fc *listenerv3.FilterChain, hcm *hcmv3.HttpConnectionManager) {
	routes, blind := l.routeConfigs(hcm)
	add := func(upgrade string, filters []*hcmv3.HttpFilter, at spot) {
		c := &chain{listener: ln, filters: fc, hcm: hcm, http: filters, httpAt: at, upgrade: upgrade, routes: routes, blind: blind}
		for i, f := range filters {
			c.authz = append(c.authz, l.authzOf(f, i)...)
		}
		l.chains = append(l.chains, c)
	}
	add("", hcm.GetHttpFilters(), l.at(hcm, "http_filters"))
	for _, u := range hcm.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 {
			add(u.GetUpgradeType(), u.GetFilters(), l.at(u, "filters"))
		}
	}
}

// authzOf are the ext_authz filters that one entry of a chain holds.
func (l *linter) authzOf(f *hcmv3.HttpFilter, position int) []*authz {
	m := l.httpConfig(f)
	if c, ok := m.(*extauthzv3.ExtAuthz); ok {
		return []*authz{{filter: f, config: c, position: position}}
	}
	// One that stands within another filter runs when that one pleases.
	var found []*authz
	l.walk(m, func(inner proto.Message) {
		if c, ok := inner.(*extauthzv3.ExtAuthz); ok {
			found = append(found, &authz{filter: f, config: c, position: position, conditional: true})
		}
	})
	return found
}

// httpConfig is the configuration of an HTTP filter, or nil.
func (l *linter) httpConfig(f *hcmv3.HttpFilter) proto.Message {
	if d := f.GetConfigDiscovery(); d != nil {
		return l.inner[l.discovered(f.GetName(), d, l.at(f, "config_discovery"))]
	}
	return l.inner[f.GetTypedConfig()]
}

// routeConfigs are the route configurations of a connection manager; blind: some are not here.
func (l *linter) routeConfigs(hcm *hcmv3.HttpConnectionManager) (found []*routev3.RouteConfiguration, blind bool) {
	missing := func(name string, at spot) {
		blind = true
		l.reportf(ruleElsewhere, at, "the routes %q are delivered by a control plane and are not here", name)
	}
	discovered := func(name string, at spot) {
		if rc := l.view.routes[name]; rc != nil {
			found = append(found, rc)
		} else {
			missing(name, at)
		}
	}
	switch {
	case hcm.GetRouteConfig() != nil:
		found = append(found, hcm.GetRouteConfig())
	case hcm.GetRds() != nil:
		discovered(hcm.GetRds().GetRouteConfigName(), l.at(hcm, "rds"))
	case hcm.GetScopedRoutes() != nil:
		s := hcm.GetScopedRoutes()
		scopes := s.GetScopedRouteConfigurationsList().GetScopedRouteConfigurations()
		if s.GetScopedRds() != nil {
			scopes = l.scopes[s.GetName()]
			if len(scopes) == 0 {
				missing(s.GetName(), l.at(hcm, "scoped_routes"))
			}
		}
		for _, scope := range scopes {
			if rc := scope.GetRouteConfiguration(); rc != nil {
				found = append(found, rc)
			} else {
				discovered(scope.GetRouteConfigurationName(), l.at(scope, "route_configuration_name"))
			}
		}
	}
	for _, rc := range found {
		if rc.GetVhds() != nil {
			missing(rc.GetName(), l.at(rc, "vhds"))
		}
	}
	return found, blind
}

// routesOf are the routes of a virtual host, those within a matcher too.
func (l *linter) routesOf(vh *routev3.VirtualHost) []*routev3.Route {
	routes := slices.Clone(vh.GetRoutes())
	if m := vh.GetMatcher(); m != nil {
		l.walk(m, func(inner proto.Message) {
			if r, ok := inner.(*routev3.Route); ok {
				routes = append(routes, r)
			}
		})
	}
	return routes
}

func (l *linter) addWays(c *chain, rc *routev3.RouteConfiguration, vh *routev3.VirtualHost, r *routev3.Route) {
	base := way{chain: c, config: rc, host: vh, route: r, at: l.at(r)}
	add := func(w way) { l.ways = append(l.ways, &w) }
	action := r.GetRoute()
	if action == nil {
		add(base)
		return
	}
	named := func(w way, owner proto.Message, field, cluster string) {
		w.cluster, w.at = cluster, l.at(owner, field)
		add(w)
	}
	chosen := func(w way, owner proto.Message, field, how string) {
		w.any, w.at = how, l.at(owner, field)
		add(w)
	}
	switch {
	case action.GetCluster() != "":
		named(base, action, "cluster", action.GetCluster())
	case action.GetClusterHeader() != "":
		chosen(base, action, "cluster_header", fmt.Sprintf("the request header %q", action.GetClusterHeader()))
	case action.GetWeightedClusters() != nil:
		for _, weight := range action.GetWeightedClusters().GetClusters() {
			w := base
			w.weight = weight
			if weight.GetClusterHeader() != "" {
				chosen(w, weight, "cluster_header", fmt.Sprintf("the request header %q", weight.GetClusterHeader()))
				continue
			}
			named(w, weight, "name", weight.GetName())
		}
	case action.GetClusterSpecifierPlugin() != "":
		chosen(base, action, "cluster_specifier_plugin", "an extension")
	case action.GetInlineClusterSpecifierPlugin() != nil:
		chosen(base, action, "inline_cluster_specifier_plugin", "an extension")
	default:
		add(base)
	}
}

// recognize says which ext_authz filters are ours: those that call what a filter with our context extension calls. Where no route has
// that extension, every filter that calls over gRPC is.
func (l *linter) recognize() {
	targets := make(map[string]bool)
	for _, w := range l.ways {
		for _, z := range w.chain.authz {
			if _, ok := l.settingsFor(w, z.filter.GetName()).context[endpointKey]; ok {
				targets[target(z.config)] = true
			}
		}
	}
	for _, c := range l.chains {
		for _, z := range c.authz {
			z.ours = targets[target(z.config)] || len(targets) == 0
		}
	}
}

// target names what an ext_authz filter calls.
func target(c *extauthzv3.ExtAuthz) string {
	g := c.GetGrpcService()
	switch {
	case g.GetEnvoyGrpc() != nil:
		return "cluster " + g.GetEnvoyGrpc().GetClusterName()
	case g.GetGoogleGrpc() != nil:
		return "google " + g.GetGoogleGrpc().GetTargetUri()
	case c.GetHttpService() != nil:
		return "http " + c.GetHttpService().GetServerUri().GetCluster()
	}
	return ""
}

// guards is the first filter of ours that runs on a way, or nil.
func (l *linter) guards(w *way) *authz {
	for _, z := range w.chain.authz {
		if !z.ours {
			continue
		}
		if _, off := l.off(w, z.filter); !off {
			return z
		}
	}
	return nil
}

// ways around

// protected are the upstreams that hook routes reach.
func (l *linter) protected() map[string]bool {
	keys := make(map[string]bool)
	add := func(w *way) { maps.Copy(keys, l.upstreams(w.cluster)) }
	for _, w := range l.ways {
		if w.guarded || l.namesEndpoint(w) {
			add(w)
		}
	}
	if len(keys) > 0 {
		return keys
	}
	// Nothing is guarded: what was meant to be is what a chain with the filter reaches.
	for _, w := range l.ways {
		for _, z := range w.chain.authz {
			if z.ours {
				add(w)
			}
		}
	}
	return keys
}

// namesEndpoint says whether a way has our context extension under any name of a filter.
func (l *linter) namesEndpoint(w *way) bool {
	for _, level := range w.levels() {
		for name := range level.settings {
			if _, ok := l.settingsFor(w, name).context[endpointKey]; ok {
				return true
			}
		}
	}
	return false
}

func overlap(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// judgeWays reports every way to a protected upstream that no Check guards.
func (l *linter) judgeWays() {
	protected := l.protected()
	for _, w := range l.ways {
		l.judgeWay(w, protected)
	}
	for _, ln := range l.listeners {
		l.judgeRaw(ln, protected)
	}
}

func (l *linter) judgeWay(w *way, protected map[string]bool) {
	if l.internal(w.chain.listener) {
		return // no client can connect to it; what its cluster reaches counts for those who route there
	}
	if w.guarded {
		return
	}
	for _, m := range l.mirrors(w) {
		if overlap(l.upstreams(m.GetCluster()), protected) {
			l.reportf(ruleMirror, l.at(m, "cluster"), "copies of unchecked requests go to %q, which webhooks reach", m.GetCluster())
		}
	}
	if w.any != "" {
		l.reportf(ruleOpenCluster, w.at, "%s chooses the cluster, on a route without a Check", w.any)
		return
	}
	c := l.clusters[w.cluster]
	if how := l.openCluster(c); how != "" {
		l.reportf(ruleOpenCluster, w.at, "cluster %q goes wherever %s says, on a route without a Check", w.cluster, how)
		return
	}
	if !overlap(l.upstreams(w.cluster), protected) {
		return
	}
	for _, z := range w.chain.authz {
		if !z.ours {
			continue
		}
		at, _ := l.off(w, z.filter)
		if l.settingsFor(w, z.filter.GetName()).disabled {
			l.reportf(ruleDisabled, at, "ext_authz is off on a route to %q, which webhooks reach", w.cluster)
		} else {
			l.reportf(ruleFilterOff, at, "ext_authz is off unless a route turns it on, and a route to %q does not", w.cluster)
		}
		return
	}
	if w.chain.upgrade != "" {
		l.reportf(ruleUpgradeChain, w.chain.httpAt, "%s upgrades run these filters only: no ext_authz on the way to %q", w.chain.upgrade, w.cluster)
		return
	}
	l.reportf(ruleNoFilter, w.chain.httpAt, "listener %q reaches %q, as webhooks do, without ext_authz", w.chain.name(), w.cluster)
}

// mirrors are the policies that copy the requests of a way: the most specific level that has some.
func (l *linter) mirrors(w *way) []*routev3.RouteAction_RequestMirrorPolicy {
	for _, m := range [][]*routev3.RouteAction_RequestMirrorPolicy{w.route.GetRoute().GetRequestMirrorPolicies(), w.host.GetRequestMirrorPolicies(), w.config.GetRequestMirrorPolicies()} {
		if len(m) > 0 {
			return m
		}
	}
	return nil
}

// judgeRaw reports filters that hand on whole connections.
func (l *linter) judgeRaw(ln *listenerv3.Listener, protected map[string]bool) {
	if l.internal(ln) {
		return
	}
	for _, fc := range chainsOf(ln) {
		for _, f := range fc.GetFilters() {
			for _, c := range l.rawClusters(f) {
				if overlap(l.upstreams(c.name), protected) {
					l.reportf(ruleRaw, c.at, "listener %q hands connections to %q, which webhooks reach", ln.GetName(), c.name)
				}
			}
		}
	}
}

type namedCluster struct {
	name string
	at   spot
}

// rawClusters are the clusters to which a network filter hands whole connections.
func (l *linter) rawClusters(f *listenerv3.Filter) []namedCluster {
	tcp, ok := opened[*tcpv3.TcpProxy](l, l.networkConfig(f))
	if !ok {
		return nil
	}
	if tcp.GetCluster() != "" {
		return []namedCluster{{tcp.GetCluster(), l.at(tcp, "cluster")}}
	}
	var found []namedCluster
	for _, w := range tcp.GetWeightedClusters().GetClusters() {
		found = append(found, namedCluster{w.GetName(), l.at(w, "name")})
	}
	return found
}

// openCluster says how a client chooses the address that a cluster goes to; "" where it cannot.
func (l *linter) openCluster(c *clusterv3.Cluster) string {
	if lb := c.GetOriginalDstLbConfig(); lb.GetUseHttpHeader() {
		name := lb.GetHttpHeaderName()
		if name == "" {
			name = "x-envoy-original-dst-host"
		}
		return fmt.Sprintf("the request header %q", name)
	}
	if _, ok := l.inner[c.GetClusterType().GetTypedConfig()].(*dfpv3.ClusterConfig); ok {
		return "the host of the request"
	}
	return ""
}

// upstreams are the addresses that a cluster reaches, and the cluster itself.
func (l *linter) upstreams(name string) map[string]bool {
	keys := make(map[string]bool)
	l.collect(name, keys)
	return keys
}

func (l *linter) collect(name string, keys map[string]bool) {
	if name == "" || keys["cluster "+name] {
		return
	}
	keys["cluster "+name] = true
	c := l.clusters[name]
	if a, ok := l.inner[c.GetClusterType().GetTypedConfig()].(*aggregatev3.ClusterConfig); ok {
		for _, member := range a.GetClusters() {
			l.collect(member, keys)
		}
	}
	if service := c.GetEdsClusterConfig().GetServiceName(); service != "" {
		keys["service "+service] = true
	}
	for _, e := range l.addresses(c) {
		if internal := e.GetEnvoyInternalAddress().GetServerListenerName(); internal != "" {
			l.collectInternal(internal, keys)
		} else if text := addressText(e); text != "" {
			keys[text] = true
		}
	}
}

// collectInternal adds what an internal listener reaches.
func (l *linter) collectInternal(name string, keys map[string]bool) {
	if keys["listener "+name] {
		return
	}
	keys["listener "+name] = true
	for _, ln := range l.listeners {
		if ln.GetName() != name {
			continue
		}
		for _, w := range l.ways {
			if w.chain.listener == ln {
				l.collect(w.cluster, keys)
			}
		}
		for _, fc := range chainsOf(ln) {
			for _, f := range fc.GetFilters() {
				for _, c := range l.rawClusters(f) {
					l.collect(c.name, keys)
				}
			}
		}
	}
}

// addresses are the addresses of a cluster's endpoints, as far as they are known.
func (l *linter) addresses(c *clusterv3.Cluster) []*corev3.Address {
	var found []*corev3.Address
	service := c.GetEdsClusterConfig().GetServiceName()
	if service == "" {
		service = c.GetName()
	}
	for _, assignment := range []*endpointv3.ClusterLoadAssignment{c.GetLoadAssignment(), l.endpoints[service]} {
		for _, locality := range assignment.GetEndpoints() {
			for _, e := range locality.GetLbEndpoints() {
				if a := e.GetEndpoint().GetAddress(); a != nil {
					found = append(found, a)
				}
				for _, more := range e.GetEndpoint().GetAdditionalAddresses() {
					found = append(found, more.GetAddress())
				}
			}
		}
	}
	return found
}

// addressText names an address; "" where it is none that can be compared.
func addressText(a *corev3.Address) string {
	if p := a.GetPipe(); p != nil {
		return "pipe " + p.GetPath()
	}
	s := a.GetSocketAddress()
	if s == nil {
		return ""
	}
	host := strings.ToLower(strings.TrimSuffix(s.GetAddress(), "."))
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if s.GetNamedPort() != "" {
		return host + ":" + s.GetNamedPort()
	}
	return fmt.Sprintf("%s:%d", host, s.GetPortValue())
}

// local says whether only this machine reaches an address.
func local(a *corev3.Address) bool {
	if a.GetPipe() != nil || a.GetEnvoyInternalAddress() != nil {
		return true
	}
	return localHost(a.GetSocketAddress().GetAddress())
}

func localHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// localListener says whether only this machine reaches a listener.
func localListener(ln *listenerv3.Listener) bool {
	for _, a := range ln.GetAdditionalAddresses() {
		if !local(a.GetAddress()) {
			return false
		}
	}
	return ln.GetApiListener() == nil && local(ln.GetAddress())
}

// internal says whether a listener takes connections from this Envoy only.
func (l *linter) internal(ln *listenerv3.Listener) bool {
	return ln.GetInternalListener() != nil || ln.GetAddress().GetEnvoyInternalAddress() != nil
}
