package lint

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	mcprouterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/mcp_router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	luaclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/lua/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// chain is one list of HTTP filters that requests can run through.
type chain struct {
	listener *listenerv3.Listener
	filters  *listenerv3.FilterChain
	hcm      *hcmv3.HttpConnectionManager
	http     []*hcmv3.HttpFilter
	httpAt   spot // of the list
	// upgrade is the kind of upgrade that has this chain of its own; nil: it is everybody's.
	upgrade *hcmv3.HttpConnectionManager_UpgradeConfig
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
	elsewhere   bool // its configuration is not here: it is taken for ours, and not judged
	ours        bool
}

// anExtension is the chooser of clusters that no client is known to sway.
const anExtension = "an extension"

// way is one thing that can become of a request: a chain, a route, and a cluster.
type way struct {
	chain   *chain
	config  *routev3.RouteConfiguration
	host    *routev3.VirtualHost
	route   *routev3.Route
	weight  *routev3.WeightedCluster_ClusterWeight // nil: no choice of clusters
	cluster string                                 // "": no upstream
	chooser string                                 // what names the cluster in its stead: a header, or an extension; "": nothing
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
			if saysDisabled(m) {
				s.disabled, s.at = true, where.at("disabled")
			}
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

// saysDisabled says whether the settings of some filter turn it off.
func saysDisabled(m proto.Message) bool {
	if m == nil {
		return false
	}
	fd := m.ProtoReflect().Descriptor().Fields().ByName("disabled")
	return fd != nil && fd.Kind() == protoreflect.BoolKind && m.ProtoReflect().Get(fd).Bool()
}

// perRoute are the settings that some ways have for a filter, at every level.
func (l *linter) perRoute(ways []*way, filter string) []proto.Message {
	var found []proto.Message
	for _, w := range ways {
		for _, level := range w.levels() {
			m := l.inner[level.settings[filter]]
			if f, ok := m.(*routev3.FilterConfig); ok {
				m = l.inner[f.GetConfig()]
			}
			if m != nil {
				found = append(found, m)
			}
		}
	}
	return found
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
				if vh.GetRequireTls() == routev3.VirtualHost_ALL && l.knownPlain(c) {
					continue // everything is redirected
				}
				for _, r := range l.routesOf(vh) {
					if c.upgrade == nil || upgrades(c.upgrade, r) {
						l.addWays(c, rc, vh, r)
						l.addRouters(way{chain: c, config: rc, host: vh, route: r})
					}
				}
			}
		}
	}
	l.recognize()
	for _, w := range l.ways {
		w.guarded = l.guards(w) != nil
	}
}

// knownPlain says whether every request of a chain counts as plain text: it is, and no client can say otherwise.
func (l *linter) knownPlain(c *chain) bool {
	socket := c.filters.GetTransportSocket()
	if _, raw := firstWithin[*rawv3.RawBuffer](l, socket); socket != nil && !raw || l.internal(c.listener) {
		return false
	}
	h := c.hcm
	return h.GetUseRemoteAddress().GetValue() && h.GetXffNumTrustedHops() == 0 && len(h.GetEarlyHeaderMutationExtensions()) == 0 && h.GetForwardProtoConfig() == nil
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
	l.reportf(ruleElsewhere, at, "the filter %q is delivered by a control plane and is not here", name)
	return d.GetDefaultConfig()
}

func (l *linter) addChain(ln *listenerv3.Listener, fc *listenerv3.FilterChain, hcm *hcmv3.HttpConnectionManager) {
	routes, blind := l.routeConfigs(hcm)
	add := func(upgrade *hcmv3.HttpConnectionManager_UpgradeConfig, filters []*hcmv3.HttpFilter, at spot) {
		c := &chain{listener: ln, filters: fc, hcm: hcm, http: filters, httpAt: at, upgrade: upgrade, routes: routes, blind: blind}
		for i, f := range filters {
			c.authz = append(c.authz, l.authzOf(f, i)...)
		}
		l.chains = append(l.chains, c)
	}
	add(nil, hcm.GetHttpFilters(), l.at(hcm, "http_filters"))
	for _, u := range hcm.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 {
			add(u, u.GetFilters(), l.at(u, "filters"))
		}
	}
}

// authzOf are the ext_authz filters that one entry of a chain holds.
func (l *linter) authzOf(f *hcmv3.HttpFilter, position int) []*authz {
	var found []*authz
	for _, m := range l.httpConfigs(f) {
		if c, ok := m.(*extauthzv3.ExtAuthz); ok {
			found = append(found, &authz{filter: f, config: c, position: position})
			continue
		}
		// One that stands within another filter runs when that one pleases.
		l.walk(m, func(inner proto.Message) {
			if c, ok := inner.(*extauthzv3.ExtAuthz); ok {
				found = append(found, &authz{filter: f, config: c, position: position, conditional: true})
			}
		})
	}
	if d := f.GetConfigDiscovery(); d != nil && len(found) == 0 && slices.ContainsFunc(d.GetTypeUrls(), isAuthz) && l.view.filters[f.GetName()] == nil {
		found = append(found, &authz{filter: f, config: new(extauthzv3.ExtAuthz), position: position, elsewhere: true})
	}
	return found
}

func isAuthz(typeURL string) bool {
	return typeName(typeURL) == string(new(extauthzv3.ExtAuthz).ProtoReflect().Descriptor().FullName())
}

// httpConfig is the configuration of an HTTP filter, or nil.
func (l *linter) httpConfig(f *hcmv3.HttpFilter) proto.Message {
	if configs := l.httpConfigs(f); len(configs) > 0 {
		return configs[0]
	}
	return nil
}

// httpConfigs are the configurations that an HTTP filter can have: one that is delivered, and the one until then.
func (l *linter) httpConfigs(f *hcmv3.HttpFilter) []proto.Message {
	all := []*anypb.Any{f.GetTypedConfig()}
	if d := f.GetConfigDiscovery(); d != nil {
		all = []*anypb.Any{l.discovered(f.GetName(), d, l.at(f, "config_discovery")), d.GetDefaultConfig()}
	}
	var found []proto.Message
	for _, a := range all {
		if m := l.inner[a]; m != nil && !slices.Contains(found, m) {
			found = append(found, m)
		}
	}
	return found
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
	chosen := func(w way, owner proto.Message, field, by string) {
		w.chooser, w.at = by, l.at(owner, field)
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
		var plugin *routev3.ClusterSpecifierPlugin
		for _, p := range rc.GetClusterSpecifierPlugins() {
			if p.GetExtension().GetName() == action.GetClusterSpecifierPlugin() {
				plugin = p
			}
		}
		l.addPlugin(base, plugin, l.at(action, "cluster_specifier_plugin"))
	case action.GetInlineClusterSpecifierPlugin() != nil:
		l.addPlugin(base, action.GetInlineClusterSpecifierPlugin(), l.at(action, "inline_cluster_specifier_plugin"))
	default:
		add(base)
	}
}

// addRouters adds the ways of filters that stand in the place of the router and go to clusters of their own.
func (l *linter) addRouters(base way) {
	for _, f := range base.chain.http {
		m, ok := l.httpConfig(f).(*mcprouterv3.McpRouter)
		if !ok {
			continue
		}
		for _, c := range l.clustersNamed(m) {
			w := base
			w.cluster, w.at = c.name, c.at
			l.ways = append(l.ways, &w)
		}
	}
}

// addPlugin adds a way to each cluster that the choice of an extension can fall on. Code may choose any.
func (l *linter) addPlugin(base way, p *routev3.ClusterSpecifierPlugin, at spot) {
	m := l.inner[p.GetExtension().GetTypedConfig()]
	named := l.clustersNamed(m)
	for _, c := range named {
		w := base
		w.cluster, w.at = c.name, c.at
		l.ways = append(l.ways, &w)
	}
	_, script := m.(*luaclusterv3.LuaConfig)
	if script || len(named) == 0 {
		w := base
		w.chooser, w.at = anExtension, at
		l.ways = append(l.ways, &w)
	}
}

// recognize says which ext_authz filters are ours: those that call what a filter with our context extension calls. Where no route has
// that extension, every filter that calls over gRPC is.
func (l *linter) recognize() {
	targets := make(map[string]bool)
	for _, w := range l.ways {
		for _, z := range w.chain.authz {
			if _, ok := l.settingsFor(w, z.filter.GetName()).context[endpointKey]; ok && !z.elsewhere {
				targets[target(z.config)] = true
			}
		}
	}
	known := make(map[string]bool) // what they call, by whatever name
	for _, c := range l.chains {
		for _, z := range c.authz {
			if targets[target(z.config)] {
				maps.Copy(known, l.upstreams(z.config.GetGrpcService().GetEnvoyGrpc().GetClusterName()))
			}
		}
	}
	for _, c := range l.chains {
		for _, z := range c.authz {
			z.ours = targets[target(z.config)] || len(targets) == 0 || z.elsewhere || overlap(known, l.upstreams(z.config.GetGrpcService().GetEnvoyGrpc().GetClusterName()))
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
