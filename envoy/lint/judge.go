package lint

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// judge applies every rule.
func (l *linter) judge() {
	l.policies = factsOf(l.config.Policies)
	l.follow()
	l.judgeVersion()
	l.judgeRuntime()
	l.judgeAdmin()
	l.judgeWays()
	l.judgeDiscovery()
	hooks := 0
	for _, c := range l.chains {
		ways := l.hookWays(c)
		if len(ways) == 0 && !(c.blind && c.checks()) {
			l.judgeStraySettings(c)
			continue
		}
		hooks++
		l.judgeChain(c, ways)
	}
	if hooks == 0 {
		l.judgeNothing()
	}
}

// checks says whether a filter of ours stands in a chain.
func (c *chain) checks() bool {
	for _, z := range c.authz {
		if z.ours {
			return true
		}
	}
	return false
}

func (l *linter) hookWays(c *chain) []*way {
	var ways []*way
	for _, w := range l.ways {
		if w.chain == c && w.guarded {
			ways = append(ways, w)
		}
	}
	return ways
}

// judgeNothing reports a configuration without a single Check.
func (l *linter) judgeNothing() {
	at, what := spot{source: l.source, value: nil}, "there is no HTTP listener"
	if s, ok := l.spots[l.bootstrap]; ok {
		at = s
	}
	for _, c := range l.chains {
		at, what = c.httpAt, "no route of this Envoy has a Check"
		break
	}
	l.report(ruleNothing, at, what)
}

// judgeChain applies what holds for a chain that hook routes run through.
func (l *linter) judgeChain(c *chain, ways []*way) {
	ours := 0
	for _, z := range c.authz {
		if !z.ours {
			continue
		}
		ours++
		if !z.elsewhere {
			l.judgeFilter(c, z, ways)
			l.judgeService(z.config)
		}
	}
	if ours > 1 && len(ways) == 0 || ours > 0 && len(c.authz) > 1 && l.shareWay(c, ways) {
		last := c.authz[len(c.authz)-1]
		l.reportf(ruleTwoChecks, l.at(last.filter), "%d ext_authz filters run on one path", len(c.authz))
	}
	l.judgeOrder(c, ways)
	l.judgeStraySettings(c)
	l.judgeManager(c)
	l.judgeUpgrades(c, ways)
	l.judgeAddress(c)
	l.judgeDownstream(c)
	l.judgeRoutes(ways)
	l.judgePolicies(c, ways)
}

// shareWay says whether two ext_authz filters run for the same request.
func (l *linter) shareWay(c *chain, ways []*way) bool {
	for _, w := range ways {
		on := make(map[*hcmv3.HttpFilter]bool) // one has two configurations while its own is on the way
		for _, z := range c.authz {
			if _, off := l.off(w, z.filter); !off {
				on[z.filter] = true
			}
		}
		if len(on) > 1 {
			return true
		}
	}
	return false
}

// judgeVersion reports releases below the floor.
func (l *linter) judgeVersion() {
	major, minor, patch, at, ok := l.version()
	if !ok || major == 0 && minor == 0 {
		return
	}
	if major > 1 || major == 1 && (minor > 39 || minor == 39 && patch >= 1) {
		return
	}
	l.reportf(ruleVersion, at, "this is Envoy %d.%d.%d", major, minor, patch)
}

// guardKeys are runtime keys of Envoy 1.40 whose default protects what a Check relies on: paths, lengths, headers and bodies.
var guardKeys = []string{
	"envoy.reloadable_features.http_reject_path_with_fragment",
	"envoy.reloadable_features.strip_dotdot_segments_with_parameters",
	"envoy.reloadable_features.strip_path_parameters_per_segment",
	"envoy.reloadable_features.filter_manager_forward_added_data_on_continue",
	"envoy.reloadable_features.http_pause_generic_upgrade_request_body",
	"envoy.reloadable_features.strict_chunk_parsing",
	"envoy.reloadable_features.http2_reject_frames_after_end_stream",
	"envoy.reloadable_features.http2_discard_host_header",
	"envoy.reloadable_features.match_headers_individually",
	"envoy.reloadable_features.rbac_match_headers_individually",
	"envoy.reloadable_features.rbac_respect_ignore_path_parameters",
}

// runtimeKey is one key that a static layer of the runtime sets.
type runtimeKey struct {
	name, value string
	at          spot
}

// runtimeKeys lists what the static layers set, nested keys joined by dots.
func (l *linter) runtimeKeys() []runtimeKey {
	var keys []runtimeKey
	var add func(prefix string, at spot, depth int)
	add = func(prefix string, at spot, depth int) {
		n := resolve(at.value)
		if n == nil || depth > maxDepth {
			return
		}
		if n.Kind == yaml.ScalarNode {
			keys = append(keys, runtimeKey{prefix, n.Value, at})
			return
		}
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			name := key.Value
			if prefix != "" {
				name = prefix + "." + name
			}
			add(name, spot{at.source, key, n.Content[i+1], join(at.path, key.Value)}, depth+1)
		}
	}
	for _, layer := range l.bootstrap.GetLayeredRuntime().GetLayers() {
		if s, ok := l.spots[layer].field("static_layer"); ok {
			s.key = nil
			add("", s, 0)
		}
	}
	return keys
}

// changeable says whether runtime can change while Envoy runs.
func (l *linter) changeable() bool {
	for _, layer := range l.bootstrap.GetLayeredRuntime().GetLayers() {
		if layer.GetAdminLayer() != nil || layer.GetRtdsLayer() != nil || layer.GetDiskLayer() != nil {
			return true
		}
	}
	return false
}

// slashesKey is the share of requests whose escaped slashes are looked for; all where it is not set.
const slashesKey = "http_connection_manager.path_with_escaped_slashes_action_enabled"

func (l *linter) judgeRuntime() {
	for _, k := range l.runtimeKeys() {
		if n, err := strconv.ParseFloat(k.value, 64); (k.name == slashesKey || k.name == slashesKey+".numerator") && (err != nil || n < 100) {
			l.reportf(ruleRuntimeGuard, k.at, "%s is %s", k.name, short(k.value))
		}
		if off := k.value == "false" || k.value == "0"; off && slices.Contains(guardKeys, k.name) {
			l.reportf(ruleRuntimeGuard, k.at, "%s is %s", k.name, k.value)
		}
	}
}

// judgeAdmin reports an admin interface that others reach: by its address, or through a route.
func (l *linter) judgeAdmin() {
	admin := l.bootstrap.GetAdmin()
	if admin.GetAddress() == nil {
		return
	}
	if !local(admin.GetAddress()) && !harmlessAdmin(admin.GetAllowPaths()) {
		l.reportf(ruleAdmin, l.at(admin.GetAddress()), "the admin interface listens on %s", addressText(admin.GetAddress()))
	}
	key := addressKey(admin.GetAddress())
	if key == "" || strings.HasSuffix(key, ":0") || harmlessAdmin(admin.GetAllowPaths()) {
		return
	}
	for _, w := range l.ways {
		if !l.internal(w.chain.listener) && l.upstreams(w.cluster)[key] && reachesAdmin(w.route) {
			l.reportf(ruleAdmin, w.at, "cluster %q is the admin interface", w.cluster)
		}
	}
	l.eachRaw(func(c namedCluster) {
		if l.upstreams(c.name)[key] {
			l.reportf(ruleAdmin, c.at, "cluster %q is the admin interface", c.name)
		}
	})
}

// adminHarm are pages of the admin interface that no stranger may have.
var adminHarm = []string{"/", "/quitquitquit", "/runtime_modify", "/config_dump", "/certs", "/healthcheck/fail", "/logging", "/drain_listeners"}

func harmlessAdmin(allow []*matcherv3.StringMatcher) bool {
	if len(allow) == 0 {
		return false
	}
	for _, m := range allow {
		for _, page := range adminHarm {
			if matches(m, page) {
				return false
			}
		}
	}
	return true
}

func reachesAdmin(r *routev3.Route) bool {
	m, action := r.GetMatch(), r.GetRoute()
	if action.GetRegexRewrite() != nil || action.GetPathRewritePolicy() != nil || action.GetPathRewrite() != "" {
		return true // what becomes of the path cannot be told
	}
	for _, page := range adminHarm {
		whole, begin := m.GetPath(), m.GetPrefix()+m.GetPathSeparatedPrefix()
		if to := action.GetPrefixRewrite(); to != "" && whole != "" {
			whole = to
		} else if to != "" {
			begin = to
		}
		switch {
		case whole != "":
			if whole == page {
				return true
			}
		case m.GetSafeRegex() != nil && action.GetPrefixRewrite() == "":
			if matchesRegex(m.GetSafeRegex(), page) {
				return true
			}
		case m.GetPathSeparatedPrefix() != "" && action.GetPrefixRewrite() == "":
			if page == begin || strings.HasPrefix(page, begin+"/") {
				return true
			}
		case strings.HasPrefix(page, begin):
			return true
		}
	}
	return false
}

// judgeDiscovery reports what a control plane delivers and a bootstrap does not hold.
func (l *linter) judgeDiscovery() {
	for _, ln := range l.listeners {
		if ln.GetFcdsConfig() != nil {
			l.reportf(ruleElsewhere, l.at(ln, "fcds_config"), "filter chains of listener %q are delivered by a control plane and are not here", ln.GetName())
		}
	}
	if l.source.dump {
		return
	}
	d := l.bootstrap.GetDynamicResources()
	if d.GetLdsConfig() != nil || d.GetLdsResourcesLocator() != "" {
		l.report(ruleElsewhere, l.at(d, "lds_config"), "listeners are delivered by a control plane and are not here")
	}
	if d.GetCdsConfig() != nil || d.GetCdsResourcesLocator() != "" {
		l.report(ruleElsewhere, l.at(d, "cds_config"), "clusters are delivered by a control plane and are not here")
	}
}

// judgeStraySettings reports per-route settings of ext_authz under names that no ext_authz filter of the chain has.
func (l *linter) judgeStraySettings(c *chain) {
	if c.upgrade != nil {
		return
	}
	names := make(map[string]bool)
	for _, other := range l.chains {
		if other.hcm != c.hcm {
			continue // filters of an upgrade's own chain are found by their names as well
		}
		for _, z := range other.authz {
			names[z.filter.GetName()] = true
		}
	}
	if len(names) == 0 && l.anyAuthz() {
		return // a filter that is not there has no name; what that means is another finding
	}
	for _, w := range l.ways {
		if w.chain != c {
			continue
		}
		for _, level := range w.levels() {
			for name, a := range level.settings {
				m := l.inner[a]
				if f, ok := m.(*routev3.FilterConfig); ok {
					m = l.inner[f.GetConfig()]
				}
				if _, ok := m.(*extauthzv3.ExtAuthzPerRoute); ok && !names[name] {
					l.reportf(ruleFilterName, l.at(level.owner, "typed_per_filter_config", name), "no ext_authz filter of this listener is named %q", name)
				}
			}
		}
	}
}

// anyAuthz says whether any chain has an ext_authz filter.
func (l *linter) anyAuthz() bool {
	return slices.ContainsFunc(l.chains, func(c *chain) bool { return len(c.authz) > 0 })
}

// named is the value of a header option.
func optionName(o *corev3.HeaderValueOption) string { return strings.ToLower(o.GetHeader().GetKey()) }

// chainAt is where a filter chain stands; the connection manager's place for one that has none.
func (l *linter) chainAt(c *chain) spot {
	if s, ok := l.spots[proto.Message(c.filters)]; ok {
		return s
	}
	return l.at(c.hcm)
}

// listenerFilters are the configurations of a listener's own filters.
func (l *linter) listenerFilters(ln *listenerv3.Listener) []proto.Message {
	var found []proto.Message
	for _, f := range ln.GetListenerFilters() {
		if m := l.inner[f.GetTypedConfig()]; m != nil {
			found = append(found, m)
		}
	}
	return found
}
