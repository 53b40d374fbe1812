package lint

import (
	"regexp"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"time"
)

// judgeFilter applies what holds for one ext_authz filter of ours.
func (l *linter) judgeFilter(c *chain, z *authz, ways []*way) {
	if z.conditional {
		l.report(ruleConditional, l.at(z.filter), "ext_authz stands within another filter")
	}
	if z.filter.GetIsOptional() {
		l.report(ruleOptional, l.at(z.filter, "is_optional"), "ext_authz is optional")
	}
	l.judgeSwitches(c, z)
	l.judgeBody(z, ways)
	l.judgeVisibility(z.config)
	l.judgeAnswer(z.config)
}

// judgeSwitches reports everything that turns the filter off.
func (l *linter) judgeSwitches(c *chain, z *authz) {
	f := z.config
	if f.GetFailureModeAllow() {
		l.report(ruleFailOpen, l.at(f, "failure_mode_allow"), "failure_mode_allow is true")
	}
	if f.GetShadowMode() {
		l.report(ruleShadowMode, l.at(f, "shadow_mode"), "shadow_mode is true")
	}
	if f.GetClearRouteCache() {
		l.report(ruleReroute, l.at(f, "clear_route_cache"), "clear_route_cache is true")
	} else if len(f.GetClearRouteCacheHeaders()) > 0 {
		l.report(ruleReroute, l.at(f, "clear_route_cache_headers"), "headers of the reply clear the route cache")
	}
	if l.deniesAtDisable(f) {
		return
	}
	if what := l.fraction(f); what != "" {
		l.report(ruleFraction, l.at(f, "filter_enabled"), what)
	}
	if m := f.GetFilterEnabledMetadata(); m != nil {
		if m.GetFilter() == "envoy.filters.http.rbac" && l.shadowed(c, z.position) {
			l.report(ruleMeshSwitch, l.at(f, "filter_enabled_metadata"), "Checks are made only where a shadow policy of rbac matches")
		} else {
			l.report(ruleMetadataSwitch, l.at(f, "filter_enabled_metadata"), "Checks are made only where metadata matches")
		}
	}
}

// shadowed says whether an rbac filter before a position has shadow rules.
func (l *linter) shadowed(c *chain, position int) bool {
	for _, f := range c.http[:position] {
		if r, ok := l.httpConfig(f).(*rbacv3.RBAC); ok && (r.GetShadowRules() != nil || r.GetShadowMatcher() != nil) {
			return true
		}
	}
	return false
}

// deniesAtDisable says whether requests are denied while the filter is switched off.
func (l *linter) deniesAtDisable(f *extauthzv3.ExtAuthz) bool {
	d := f.GetDenyAtDisable()
	denies := d.GetDefaultValue().GetValue()
	for _, k := range l.runtimeKeys() {
		if k.name == d.GetRuntimeKey() {
			denies = k.value != "false" && k.value != "0"
		}
	}
	return denies
}

// fraction says how filter_enabled leaves requests out; "" where it does not.
func (l *linter) fraction(f *extauthzv3.ExtAuthz) string {
	e := f.GetFilterEnabled()
	if e == nil {
		return ""
	}
	hundred := map[typev3.FractionalPercent_DenominatorType]uint32{typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000}
	// A key's value stands for itself, in hundredths, or is a map of numerator and denominator.
	set, most := "", uint32(100)
	for _, k := range l.runtimeKeys() {
		switch k.name {
		case e.GetRuntimeKey(), e.GetRuntimeKey() + ".numerator":
			set = k.value
		case e.GetRuntimeKey() + ".denominator":
			most = hundred[typev3.FractionalPercent_DenominatorType(typev3.FractionalPercent_DenominatorType_value[k.value])]
		}
	}
	if n, err := strconv.ParseFloat(set, 64); set != "" && (err != nil || n < float64(most)) {
		return "a runtime layer sets the share of requests that are checked to " + short(set)
	}
	if d := e.GetDefaultValue(); d.GetNumerator() < hundred[d.GetDenominator()] {
		return "not every request is checked"
	}
	if e.GetRuntimeKey() != "" && l.changeable() {
		return "runtime can change the share of requests that are checked"
	}
	return ""
}

// tiny is the largest limit that is taken for a mesh's default and not for a choice: they are 1024 and 4096.
const tiny = 4096

// vast is more than senders send and servers take, whatever the policies are.
const vast = 1 << 30

// judgeBody reports bodies that are missing, partial or changed.
func (l *linter) judgeBody(z *authz, ways []*way) {
	f := z.config
	everywhere := len(ways) > 0
	for _, w := range ways {
		checks := l.settingsFor(w, z.filter.GetName()).checks
		everywhere = everywhere && checks.GetWithRequestBody() != nil
		if checks.GetDisableRequestBodyBuffering() {
			l.report(ruleRouteNoBody, l.at(checks, "disable_request_body_buffering"), "the Check of this route has no body")
		}
		if checks.GetWithRequestBody().GetAllowPartialMessage() {
			l.report(ruleRoutePartial, l.at(checks, "with_request_body", "allow_partial_message"), "the Check of this route may have the beginning of a body")
		}
		if checks.GetServiceOverride() != nil {
			at := l.at(checks, "grpc_service")
			if checks.GetHttpService() != nil {
				at = l.at(checks, "http_service")
			}
			l.report(ruleServicePerHook, at, "this route has an authorizer of its own")
		}
	}
	body := f.GetWithRequestBody()
	switch {
	case body == nil && !everywhere:
		l.report(ruleNoBody, l.at(f), "the Check has no body")
	case f.GetHttpService() != nil: // always gets bytes
	case !body.GetPackAsBytes():
		l.report(ruleStringBody, l.at(f, "with_request_body", "pack_as_bytes"), "the body is sent as a string")
	}
	if most := body.GetMaxRequestBytes(); body != nil && !everywhere && most <= tiny && !l.policies.given {
		l.reportf(ruleSmallBody, l.at(body, "max_request_bytes"), "%d bytes are less than many senders send", most)
	}
	if most := body.GetMaxRequestBytes(); most > vast && !l.policies.given {
		l.reportf(ruleLargeBody, l.at(body, "max_request_bytes"), "%d bytes are more than any server is likely to take", most)
	}
	if body.GetAllowPartialMessage() && !everywhere {
		l.report(rulePartialBody, l.at(body, "allow_partial_message"), "allow_partial_message is true")
	}
}

// needed are the headers without which an upgrade or a cut body cannot be told.
var needed = []string{"content-length", "upgrade"}

// judgeVisibility reports headers that do not reach the authorizer as they came.
func (l *linter) judgeVisibility(f *extauthzv3.ExtAuthz) {
	for _, name := range needed {
		if at, hidden := l.hidden(f, name); hidden {
			l.reportf(ruleHeadersHidden, at, "the authorizer does not see %s", name)
		}
	}
	if f.GetGrpcService() != nil && !f.GetEncodeRawHeaders() {
		l.report(ruleMergedHeaders, l.at(f, "encode_raw_headers"), "headers arrive merged")
	}
}

// hidden says which list keeps a header from the authorizer.
func (l *linter) hidden(f *extauthzv3.ExtAuthz, name string) (spot, bool) {
	if d := f.GetDisallowedHeaders(); d != nil && matchesAny(d, name) {
		return l.at(f, "disallowed_headers"), true
	}
	if a := f.GetAllowedHeaders(); a != nil && len(a.GetPatterns()) > 0 && !matchesAny(a, name) {
		return l.at(f, "allowed_headers"), true
	}
	return spot{}, false
}

func matchesAny(list *matcherv3.ListStringMatcher, s string) bool {
	for _, m := range list.GetPatterns() {
		if matches(m, s) {
			return true
		}
	}
	return false
}

// matches is what Envoy's matcher says about a text.
func matches(m *matcherv3.StringMatcher, s string) bool {
	if m == nil {
		return false
	}
	fold := func(t string) string {
		if m.GetIgnoreCase() {
			return strings.ToLower(t)
		}
		return t
	}
	text := fold(s)
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return text == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(text, fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(text, fold(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(text, fold(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		return matchesRegex(p.SafeRegex, s)
	}
	return false
}

// matchesRegex matches the whole text, as Envoy does.
func matchesRegex(m *matcherv3.RegexMatcher, s string) bool {
	r, err := regexp.Compile("^(?:" + m.GetRegex() + ")$")
	return err == nil && r.MatchString(s)
}

// ourHeaders are names that hookauthz sets, and one that it removes.
var ourHeaders = []string{"x-hookauthz-endpoint", "x-hookauthz-scheme", "x-hookauthz-secret-version", "x-hookauthz-delivery-id", "x-hookauthz-event", "x-hookauthz-duplicate", "x-hookauthz-shadow-reason", "x_hookauthz_endpoint"}

// longest is how long a Check may take before it is too long for a request and its body to wait.
const longest = 30 * time.Second

// judgeAnswer reports what becomes of the authorizer's answer, and of none.
func (l *linter) judgeAnswer(f *extauthzv3.ExtAuthz) {
	switch s := f.GetStatusOnError(); {
	case s == nil:
		l.report(ruleErrorStatus, l.at(f), "a failed Check is answered 403")
	case s.GetCode() < 400:
		l.reportf(ruleErrorTaken, l.at(f, "status_on_error"), "a failed Check is answered %d", s.GetCode())
	case s.GetCode() < 500 && s.GetCode() != typev3.StatusCode_TooManyRequests:
		l.reportf(ruleErrorStatus, l.at(f, "status_on_error"), "a failed Check is answered %d", s.GetCode())
	}
	if g := f.GetGrpcService(); g != nil {
		switch d := g.GetTimeout(); {
		case d == nil:
			l.report(ruleShortTimeout, l.at(f, "grpc_service"), "no timeout is set")
		case d.AsDuration() == 0:
			l.report(ruleLongTimeout, l.at(g, "timeout"), "0s is no timeout at all")
		case d.AsDuration() < 500*time.Millisecond:
			l.reportf(ruleShortTimeout, l.at(g, "timeout"), "the timeout is %v", d.AsDuration())
		case d.AsDuration() > longest:
			l.reportf(ruleLongTimeout, l.at(g, "timeout"), "the timeout is %v", d.AsDuration())
		}
	}
	if v := f.GetTransportApiVersion(); f.GetGrpcService() != nil && v != corev3.ApiVersion_V3 {
		l.reportf(ruleAPIVersion, l.at(f, "transport_api_version"), "transport_api_version is %v", v)
	}
	if !f.GetValidateMutations() {
		l.report(ruleMutations, l.at(f, "validate_mutations"), "replies are not validated")
	}
	if v := f.GetEnableDynamicMetadataIngestion(); v != nil && !v.GetValue() {
		l.report(ruleMetadataLost, l.at(f, "enable_dynamic_metadata_ingestion"), "the metadata of replies is ignored")
	}
	if v := f.GetChargeClusterResponseStats(); v.GetValue() { // the default is true; whoever writes it means it
		l.report(ruleChargedStats, l.at(f, "charge_cluster_response_stats"), "denials count as answers of the application")
	}
	l.judgeMutationRules(f)
}

func (l *linter) judgeMutationRules(f *extauthzv3.ExtAuthz) {
	rules := f.GetDecoderHeaderMutationRules()
	if rules == nil {
		l.report(ruleMutationRules, l.at(f), "replies may change any header")
		return
	}
	for _, name := range ourHeaders {
		refused := rules.GetDisallowAll().GetValue() && !(rules.GetAllowExpression() != nil && matchesRegex(rules.GetAllowExpression(), name))
		if rules.GetDisallowExpression() != nil && matchesRegex(rules.GetDisallowExpression(), name) {
			refused = true
		}
		if refused {
			l.reportf(ruleOurHeaders, l.at(f, "decoder_header_mutation_rules"), "the rules refuse %s", name)
			break
		}
	}
	if allow := rules.GetAllowExpression(); !rules.GetDisallowAll().GetValue() || allow != nil && matchesRegex(allow, "x-internal-user") {
		l.report(ruleMutationRules, l.at(f, "decoder_header_mutation_rules"), "replies may change headers that are not hookauthz's")
	}
}

// judgeService judges the way to the authorizer.
func (l *linter) judgeService(f *extauthzv3.ExtAuthz) {
	g := f.GetGrpcService()
	switch {
	case f.GetHttpService() != nil:
		l.report(ruleHTTPService, l.at(f, "http_service"), "the authorizer is called over HTTP")
	case g.GetGoogleGrpc() != nil:
		google := g.GetGoogleGrpc()
		if !localTarget(google.GetTargetUri()) && google.GetChannelCredentials().GetSslCredentials() == nil && google.GetCredentialsFactoryName() == "" && len(google.GetChannelCredentialsPlugin()) == 0 {
			l.reportf(rulePlainAuthz, l.at(g, "google_grpc"), "Checks go to %q in plain text", google.GetTargetUri())
		}
	case g.GetEnvoyGrpc() != nil:
		l.judgeCluster(g.GetEnvoyGrpc())
	default:
		l.report(ruleNoService, l.at(f), "ext_authz has neither grpc_service nor http_service")
	}
}

func localTarget(uri string) bool {
	if strings.HasPrefix(uri, "unix:") || strings.HasPrefix(uri, "unix-abstract:") {
		return true
	}
	if i := strings.LastIndexByte(uri, '/'); i >= 0 {
		uri = uri[i+1:]
	}
	if i := strings.LastIndexByte(uri, ':'); i >= 0 {
		uri = uri[:i]
	}
	return localHost(strings.Trim(uri, "[]"))
}

func (l *linter) judgeCluster(g *corev3.GrpcService_EnvoyGrpc) {
	name := g.GetClusterName()
	if strings.Contains(name, "|") && g.GetAuthority() == "" {
		l.reportf(ruleAuthority, l.at(g), "the authority of Checks is %q", name)
	}
	c := l.clusters[name]
	if c == nil {
		if l.source.dump || l.bootstrap.GetDynamicResources().GetCdsConfig() == nil {
			l.reportf(ruleNoCluster, l.at(g, "cluster_name"), "there is no cluster %q", name)
		}
		return
	}
	l.judgeReach(c)
	l.judgeHost(c, make(map[string]bool))
}

// judgeHost judges a cluster as a host of the authorizer; of a cluster of clusters, its members.
func (l *linter) judgeHost(c *clusterv3.Cluster, seen map[string]bool) {
	if c == nil || seen[c.GetName()] {
		return
	}
	seen[c.GetName()] = true
	if members := l.clustersNamed(l.inner[c.GetClusterType().GetTypedConfig()]); len(members) > 0 {
		for _, member := range members {
			l.judgeHost(l.clusters[member.name], seen)
		}
		return
	}
	l.judgeProtocol(c)
	l.judgeHop(c)
	if len(c.GetHealthChecks()) == 0 && !l.keepalive(c) {
		l.reportf(ruleDeadPeer, l.at(c), "cluster %q has neither health_checks nor connection_keepalive", c.GetName())
	}
}

// judgeReach reports listeners through which the authorizer can be called.
func (l *linter) judgeReach(authorizer *clusterv3.Cluster) {
	keys := l.upstreams(authorizer.GetName())
	for _, w := range l.ways {
		if !l.internal(w.chain.listener) && overlap(l.upstreams(w.cluster), keys) {
			l.reportf(ruleAuthzReachable, w.at, "cluster %q is the authorizer", w.cluster)
		}
	}
	l.eachRaw(func(c namedCluster) {
		if overlap(l.upstreams(c.name), keys) {
			l.reportf(ruleAuthzReachable, c.at, "cluster %q is the authorizer", c.name)
		}
	})
}

// httpOptions are the HTTP options of a cluster, or nil.
func (l *linter) httpOptions(c *clusterv3.Cluster) *upstreamv3.HttpProtocolOptions {
	o, _ := opened[*upstreamv3.HttpProtocolOptions](l, c.GetTypedExtensionProtocolOptions()["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"])
	return o
}

func (l *linter) judgeProtocol(c *clusterv3.Cluster) {
	o := l.httpOptions(c)
	switch {
	case o.GetExplicitHttpConfig() != nil:
		if e := o.GetExplicitHttpConfig(); e.GetHttp2ProtocolOptions() == nil && e.GetHttp3ProtocolOptions() == nil {
			l.reportf(ruleHTTP1, l.at(o, "explicit_http_config"), "cluster %q speaks HTTP/1", c.GetName())
		}
	case o.GetAutoConfig() != nil:
	case o.GetUseDownstreamProtocolConfig() != nil:
		l.reportf(ruleHTTP1, l.at(o, "use_downstream_protocol_config"), "cluster %q speaks HTTP/1 where the sender does", c.GetName())
	//lint:ignore SA1019 Envoy still reads it, so configurations have it
	case c.GetHttp2ProtocolOptions() != nil: //nolint:staticcheck // configurations in use have it
	default:
		l.reportf(ruleHTTP1, l.at(c), "cluster %q speaks HTTP/1", c.GetName())
	}
}

func (l *linter) keepalive(c *clusterv3.Cluster) bool {
	o := l.httpOptions(c)
	//lint:ignore SA1019 Envoy still reads it, so configurations have it
	for _, h := range []*corev3.Http2ProtocolOptions{o.GetExplicitHttpConfig().GetHttp2ProtocolOptions(), o.GetAutoConfig().GetHttp2ProtocolOptions(), c.GetHttp2ProtocolOptions()} { //nolint:staticcheck // see above
		if h.GetConnectionKeepalive() != nil {
			return true
		}
	}
	return false
}
