package lint

import (
	"net/netip"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	customv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
)

// judgeManager judges the connection manager of hook routes: paths, headers and time.
func (l *linter) judgeManager(c *chain) {
	h := c.hcm
	if !h.GetNormalizePath().GetValue() {
		l.report(ruleNormalize, l.at(h, "normalize_path"), "paths are not normalized")
	}
	const slashes = "path_with_escaped_slashes_action"
	switch h.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT, hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		l.reportf(ruleSlashesMoved, l.at(h, slashes), "%v", h.GetPathWithEscapedSlashesAction())
	default:
		l.report(ruleSlashesKept, l.at(h, slashes), "escaped slashes pass")
	}
	if h.GetMergeSlashes() {
		l.report(ruleMergeSlashes, l.at(h, "merge_slashes"), "adjacent slashes are merged")
	}
	common := h.GetCommonHttpProtocolOptions()
	if common.GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_ALLOW && !l.policies.underscores() {
		l.report(ruleUnderscores, l.at(h, "common_http_protocol_options", "headers_with_underscores_action"), "headers with underscores pass")
	}
	if h.GetHttpProtocolOptions().GetAllowChunkedLength() {
		l.report(ruleChunkedLength, l.at(h, "http_protocol_options", "allow_chunked_length"), "allow_chunked_length is true")
	}
	if h.GetHttp2ProtocolOptions().GetAllowConnect() {
		l.report(ruleConnect, l.at(h, "http2_protocol_options", "allow_connect"), "HTTP/2 CONNECT is allowed")
	}
	if h.GetHttp3ProtocolOptions().GetAllowExtendedConnect() {
		l.report(ruleConnect, l.at(h, "http3_protocol_options", "allow_extended_connect"), "HTTP/3 CONNECT is allowed")
	}
	if h.GetProxy_100Continue() {
		l.report(ruleContinue, l.at(h, "proxy_100_continue"), "Envoy does not answer Expect: 100-continue itself")
	}
	l.judgeTimeouts(h)
	for _, m := range h.GetLocalReplyConfig().GetMappers() {
		if code := m.GetStatusCode(); code != nil && mayBeOurs(m.GetFilter()) {
			l.reportf(ruleLocalReply, l.at(m, "status_code"), "replies of the filters are turned into %d", code.GetValue())
		}
	}
}

func (l *linter) judgeTimeouts(h *hcmv3.HttpConnectionManager) {
	if h.GetRequestTimeout().AsDuration() == 0 && h.GetCommonHttpProtocolOptions().GetMaxStreamDuration().AsDuration() == 0 {
		l.report(ruleRequestTimeout, l.at(h, "request_timeout"), "no request_timeout")
	}
	if h.GetRequestHeadersTimeout().AsDuration() == 0 {
		l.report(ruleHeadersTimeout, l.at(h, "request_headers_timeout"), "no request_headers_timeout")
	}
	if d := h.GetStreamIdleTimeout(); d != nil && d.AsDuration() == 0 {
		l.report(ruleIdleTimeout, l.at(h, "stream_idle_timeout"), "stream_idle_timeout is off")
	}
}

// mayBeOurs says whether a filter of local replies can meet a denial.
func mayBeOurs(f *accesslogv3.AccessLogFilter) bool {
	switch {
	case f.GetStatusCodeFilter() != nil:
		c := f.GetStatusCodeFilter().GetComparison()
		if c.GetOp() != accesslogv3.ComparisonFilter_EQ {
			return true
		}
		switch c.GetValue().GetDefaultValue() {
		case 400, 401, 403, 405, 409, 413, 415, 429, 500, 503:
			return true
		}
		return false
	case f.GetResponseFlagFilter() != nil && len(f.GetResponseFlagFilter().GetFlags()) > 0:
		for _, flag := range f.GetResponseFlagFilter().GetFlags() {
			if flag == "UAEX" {
				return true
			}
		}
		return false
	}
	return true
}

// judgeUpgrades reports upgrades that hook routes take.
func (l *linter) judgeUpgrades(c *chain, ways []*way) {
	for _, u := range c.hcm.GetUpgradeConfigs() {
		mine := c.upgrade == u || c.upgrade == nil && len(u.GetFilters()) == 0
		on := len(ways) == 0 && said(u)
		for _, w := range ways {
			on = on || upgrades(u, w.route)
		}
		if on && mine {
			l.upgrade(u.GetUpgradeType(), l.at(u))
		}
	}
	for _, w := range ways {
		for _, u := range w.route.GetRoute().GetUpgradeConfigs() {
			if said(u) {
				l.upgrade(u.GetUpgradeType(), l.at(u))
			}
		}
	}
}

// said says whether an upgrade is on by what is said about it alone.
func said(u interface{ GetEnabled() *wrapperspb.BoolValue }) bool {
	return u.GetEnabled() == nil || u.GetEnabled().GetValue()
}

// upgrades says whether a route takes an upgrade of the connection manager.
func upgrades(u *hcmv3.HttpConnectionManager_UpgradeConfig, r *routev3.Route) bool {
	for _, own := range r.GetRoute().GetUpgradeConfigs() {
		if strings.EqualFold(own.GetUpgradeType(), u.GetUpgradeType()) {
			return said(own)
		}
	}
	return said(u)
}

func (l *linter) upgrade(kind string, at spot) {
	if strings.HasPrefix(strings.ToUpper(kind), "CONNECT") {
		l.reportf(ruleConnect, at, "hook routes take %s", kind)
		return
	}
	l.reportf(ruleUpgrade, at, "hook routes take %s upgrades", kind)
}

// judgeAddress judges where the client's address comes from.
func (l *linter) judgeAddress(c *chain) {
	h := c.hcm
	limited := l.limited(c, false)
	switch {
	case len(h.GetOriginalIpDetectionExtensions()) > 0:
		l.judgeDetection(c, limited)
	case !h.GetUseRemoteAddress().GetValue() && !l.behindManager(c.listener):
		l.report(ruleRemoteAddress, l.at(h, "use_remote_address"), "use_remote_address is not true")
	case h.GetXffNumTrustedHops() > 0 && !limited:
		l.reportf(ruleHops, l.at(h, "xff_num_trusted_hops"), "the address is what stands %d from the right in x-forwarded-for", h.GetXffNumTrustedHops())
	}
	if h.GetUseRemoteAddress().GetValue() && h.GetSkipXffAppend() {
		l.report(ruleSkipAppend, l.at(h, "skip_xff_append"), "skip_xff_append is true")
	}
	for i, r := range h.GetInternalAddressConfig().GetCidrRanges() {
		if p, ok := prefixOf(r); ok && wide(p) {
			l.reportf(ruleInternalAddrs, l.at(h, "internal_address_config", "cidr_ranges", i), "%v counts as internal", p)
		}
	}
	for _, f := range l.listenerFilters(c.listener) {
		p, ok := f.(*proxyv3.ProxyProtocol)
		if !ok {
			continue
		}
		if p.GetAllowRequestsWithoutProxyProtocol() {
			l.report(ruleProxyOptional, l.at(p, "allow_requests_without_proxy_protocol"), "connections without the PROXY protocol pass")
		}
		if c.listener.GetContinueOnListenerFiltersTimeout() {
			l.report(ruleProxyOptional, l.at(c.listener, "continue_on_listener_filters_timeout"), "connections that wait pass without the PROXY protocol")
		}
		if !l.limited(c, true) {
			l.reportf(ruleProxyAnyone, l.at(p), "any peer of listener %q may say who the client is", c.name())
		}
	}
}

// behindManager says whether all that reaches an internal listener has passed a connection manager, which settles the address.
func (l *linter) behindManager(ln *listenerv3.Listener) bool {
	raw := false
	l.eachRaw(func(c namedCluster) { raw = raw || l.upstreams(c.name)["listener "+ln.GetName()] })
	return l.internal(ln) && !raw
}

// limited says whether something limits which peers reach a chain. direct asks for a limit on the address that connects, and not on
// one that the PROXY protocol tells.
func (l *linter) limited(c *chain, direct bool) bool {
	if l.internal(c.listener) {
		return true
	}
	m := c.filters.GetFilterChainMatch()
	ranges := [][]*corev3.CidrRange{m.GetDirectSourcePrefixRanges()}
	if !direct {
		ranges = append(ranges, m.GetSourcePrefixRanges())
	}
	for _, list := range ranges {
		narrow := len(list) > 0
		for _, r := range list {
			p, ok := prefixOf(r)
			narrow = narrow && ok && !wide(p)
		}
		if narrow {
			return true
		}
	}
	for _, f := range c.filters.GetFilters() {
		if r, ok := opened[*rbacv3.RBAC](l, f.GetTypedConfig()); ok && (r.GetMatcher() != nil || l.namesPeers(r.GetRules(), direct)) {
			return true
		}
	}
	for _, f := range c.http {
		switch m := l.httpConfig(f).(type) {
		case *extauthzv3.ExtAuthz:
			return false // what stands behind it is too late
		case *httprbacv3.RBAC:
			if l.namesPeers(m.GetRules(), true) {
				return true
			}
		}
	}
	return false
}

// namesPeers says whether rules ask who connects.
func (l *linter) namesPeers(rules *rbacconfigv3.RBAC, direct bool) bool {
	found := false
	l.walk(rules, func(inner proto.Message) {
		if p, ok := inner.(*rbacconfigv3.Principal); ok {
			found = found || p.GetDirectRemoteIp() != nil || p.GetAuthenticated() != nil || !direct && p.GetRemoteIp() != nil
		}
	})
	return found && rules.GetAction() == rbacconfigv3.RBAC_ALLOW
}

func (l *linter) judgeDetection(c *chain, limited bool) {
	for _, e := range c.hcm.GetOriginalIpDetectionExtensions() {
		switch m := l.inner[e.GetTypedConfig()].(type) {
		case *customv3.CustomHeaderConfig:
			if !limited {
				l.reportf(ruleDetection, l.at(e), "the address is what stands in %s", m.GetHeaderName())
			}
		case *xffv3.XffConfig:
			trusted := m.GetXffTrustedCidrs().GetCidrs()
			if len(trusted) == 0 && !limited {
				l.reportf(ruleDetection, l.at(e), "the address is what stands %d from the right in x-forwarded-for", m.GetXffNumTrustedHops()+1)
			}
			for i, r := range trusted {
				if p, ok := prefixOf(r); ok && wide(p) {
					l.reportf(ruleDetection, l.at(m, "xff_trusted_cidrs", "cidrs", i), "%v is trusted to say who the client is", p)
				}
			}
		}
	}
}

func prefixOf(r *corev3.CidrRange) (netip.Prefix, bool) {
	ip, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(ip.WithZone(""), int(r.GetPrefixLen().GetValue()))
	return p.Masked(), p.IsValid()
}

// private are the ranges that nobody else's machines have.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// wide says whether a prefix holds more public addresses than one organization has.
func wide(p netip.Prefix) bool {
	for _, own := range private {
		if own.Bits() <= p.Bits() && own.Contains(p.Addr()) {
			return false
		}
	}
	if p.Addr().Is4() {
		return p.Bits() < 12
	}
	return p.Bits() < 24
}

// judgeRoutes judges hook routes themselves.
func (l *linter) judgeRoutes(ways []*way) {
	routerHeaders(ways, func(h *corev3.HeaderValueOption) {
		if tellsVerified(optionName(h)) {
			l.reportf(ruleVerified, l.at(h), "the router sets %s", optionName(h))
		}
	})
	for _, w := range ways {
		l.judgeTarget(w.route.GetRoute())
		if w.config.GetIgnorePathParametersInPathMatching() {
			l.report(rulePathParams, l.at(w.config, "ignore_path_parameters_in_path_matching"), "path parameters are left out of the match")
		}
		if p := w.route.GetRoute().GetInternalRedirectPolicy(); p != nil {
			l.report(ruleRedirect, l.at(w.route.GetRoute(), "internal_redirect_policy"), "redirects of the application are followed by Envoy")
		}
		if w.route.GetMatch().GetConnectMatcher() != nil {
			l.report(ruleConnect, l.at(w.route.GetMatch(), "connect_matcher"), "the route takes CONNECT")
		}
	}
}

// judgeTarget reports a host or path that the application sees and a client chooses.
func (l *linter) judgeTarget(r *routev3.RouteAction) {
	if name := r.GetHostRewriteHeader(); name != "" {
		l.reportf(ruleTarget, l.at(r, "host_rewrite_header"), "the request header %q is the host that the application sees", name)
	}
	if s := r.GetHostRewrite(); fromRequest(s) {
		l.reportf(ruleTarget, l.at(r, "host_rewrite"), "the host that the application sees is %q", short(s))
	}
	if s := r.GetPathRewrite(); fromRequest(s) {
		l.reportf(ruleTarget, l.at(r, "path_rewrite"), "the path that the application sees is %q", short(s))
	}
}

// requestParts match what a format takes from the unsigned part of a request; its own path and host are what was checked.
var requestParts = regexp.MustCompile(`%(REQ(_WITHOUT_QUERY)?\((:METHOD\b|[^:])|QUERY_PARAMS?\b)`)

func fromRequest(format string) bool { return requestParts.MatchString(format) }
