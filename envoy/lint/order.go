package lint

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	apikeyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/api_key_auth/v3"
	awsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/aws_request_signing/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	responsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/custom_response/v3"
	decompressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/decompressor/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	gcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/gcp_authn/v3"
	reversebridgev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_reverse_bridge/v3"
	reversev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_reverse_transcoder/v3"
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	oauthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/oauth2/v3"
	demandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	localresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/custom_response/local_response_policy/v3"
	redirectv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/custom_response/redirect_policy/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
)

// changesBody names filters that change, or may change, what a request holds, whatever their settings.
var changesBody = map[protoreflect.FullName]bool{
	"envoy.extensions.filters.http.wasm.v3.Wasm":                                              true,
	"envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter":                    true,
	"envoy.extensions.filters.http.transform.v3.TransformConfig":                              true,
	"envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder":                true,
	"envoy.extensions.filters.http.grpc_json_reverse_transcoder.v3.GrpcJsonReverseTranscoder": true,
	"envoy.extensions.filters.http.grpc_http1_bridge.v3.Config":                               true,
	"envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig":                 true,
	"envoy.extensions.filters.http.connect_grpc_bridge.v3.FilterConfig":                       true,
	"envoy.extensions.filters.http.mcp_json_rest_bridge.v3.McpJsonRestBridge":                 true,
	"envoy.extensions.filters.http.aws_lambda.v3.Config":                                      true,
	"envoy.extensions.filters.http.proto_api_scrubber.v3.ProtoApiScrubberConfig":              true,
}

// answers names filters that can answer a request in the place of the application.
var answers = map[protoreflect.FullName]bool{
	"envoy.extensions.filters.http.cache.v3.CacheConfig":            true,
	"envoy.extensions.filters.http.cache_v2.v3.CacheV2Config":       true,
	"envoy.extensions.filters.http.file_server.v3.FileServerConfig": true,
}

// harmless are extensions that are not Envoy's own and do nothing to requests.
var harmless = map[string]bool{
	"io.istio.http.peer_metadata.Config":                        true,
	"io.istio.network.peer_metadata.Config":                     true,
	"stats.PluginConfig":                                        true,
	"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig": true,
	"istio.telemetry.stats.v1.PluginConfig":                     true,
	"envoy.tcp.metadataexchange.config.MetadataExchange":        true,
	"istio.workload.BootstrapExtension":                         true,
	"io.istio.http.workload.Config":                             true,
}

func knownExtension(name string) bool { return harmless[name] }

// judgeOrder judges what stands before and behind the Check.
func (l *linter) judgeOrder(c *chain, ways []*way) {
	first, last := -1, -1
	for _, z := range c.authz {
		if z.ours {
			if first < 0 {
				first = z.position
			}
			last = z.position
		}
	}
	l.judgeEarly(c)
	l.judgeUpstreamFilters(ways)
	overwritten := false
	for i, f := range c.http {
		if i == first || l.neverRuns(f, ways) {
			continue
		}
		for _, m := range l.parts(f, ways) {
			if i < first {
				l.judgeBefore(f, m, ways)
			}
			if i > last {
				l.judgeBehind(f, m, ways)
				l.judgeOnDemand(c, f, m)
			}
			l.judgeAnswers(f, m, ways)
			always := m == l.httpConfig(f) // and not only where a matcher says so
			for _, change := range l.headerChanges(f, m, ways) {
				overwritten = l.judgeChange(change, i < first) && always || overwritten
			}
		}
	}
	if !overwritten && l.setByRouter(ways) {
		return
	}
	if !overwritten && l.policies.usesClientHeader(l.endpointsOf(ways)) {
		l.reportf(ruleNoClientHeader, c.httpAt, "nothing before ext_authz sets %s", clientHeader)
	}
}

// judgeUpstreamFilters judges what the clusters of hook routes do to headers on the way out.
func (l *linter) judgeUpstreamFilters(ways []*way) {
	seen := make(map[string]bool)
	for _, w := range ways {
		if seen[w.cluster] {
			continue
		}
		seen[w.cluster] = true
		for _, f := range l.httpOptions(l.clusters[w.cluster]).GetHttpFilters() {
			for _, m := range l.parts(f, nil) {
				for _, change := range l.headerChanges(f, m, nil) {
					if change.set != nil && tellsVerified(change.name) {
						l.reportf(ruleVerified, change.at, "%s sets %s behind the Check", f.GetName(), change.name)
					}
				}
			}
		}
	}
}

// parts are the configurations that a filter can run with: its own, or those that a matcher, a composite or a chain within holds.
func (l *linter) parts(f *hcmv3.HttpFilter, ways []*way) []proto.Message {
	var found []proto.Message
	for _, m := range l.httpConfigs(f) {
		if !holdsFilters(m) {
			found = append(found, m)
		}
	}
	for _, m := range append(l.httpConfigs(f), l.perRoute(ways, f.GetName())...) {
		if !holdsFilters(m) {
			continue
		}
		l.walk(m, func(inner proto.Message) {
			a, ok := inner.(*anypb.Any)
			if part := l.inner[a]; ok && part != nil && !holdsFilters(part) && !slices.Contains(found, part) {
				found = append(found, part)
			}
		})
	}
	return found
}

// holdsFilters says whether a configuration is one of other filters.
func holdsFilters(m proto.Message) bool {
	switch m.(type) {
	case *matchingv3.ExtensionWithMatcher, *matchingv3.ExtensionWithMatcherPerRoute, *compositev3.Composite, *compositev3.CompositePerRoute,
		*filterchainv3.FilterChainConfig, *filterchainv3.FilterChainConfigPerRoute:
		return true
	}
	return false
}

// routerHeaders calls visit for each header that the router sets on some ways: behind every filter.
func routerHeaders(ways []*way, visit func(*corev3.HeaderValueOption)) {
	for _, w := range ways {
		type adder interface {
			GetRequestHeadersToAdd() []*corev3.HeaderValueOption
		}
		for _, owner := range []adder{w.config, w.host, w.route, w.weight} {
			for _, h := range owner.GetRequestHeadersToAdd() {
				visit(h)
			}
		}
	}
}

// setByRouter reports routes that set the client's address.
func (l *linter) setByRouter(ways []*way) bool {
	found := false
	routerHeaders(ways, func(h *corev3.HeaderValueOption) {
		if optionName(h) == clientHeader {
			l.reportf(ruleClientHeader, l.at(h), "%s is set by the router, behind the Check, which sees the client's own", clientHeader)
			found = true
		}
	})
	return found
}

// tellsVerified says whether a header is one by which hookauthz tells what it has verified, in any spelling.
func tellsVerified(name string) bool {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return strings.HasPrefix(name, "x-hookauthz-") && name != clientHeader
}

// neverRuns says whether a filter is off on every hook route.
func (l *linter) neverRuns(f *hcmv3.HttpFilter, ways []*way) bool {
	for _, w := range ways {
		if _, off := l.off(w, f); !off {
			return false
		}
	}
	return len(ways) > 0
}

// judgeBefore judges a filter that runs before the Check.
func (l *linter) judgeBefore(f *hcmv3.HttpFilter, m proto.Message, ways []*way) {
	name := m.ProtoReflect().Descriptor().FullName()
	switch m := m.(type) {
	case *decompressorv3.Decompressor:
		if e := m.GetRequestDirectionConfig().GetCommonConfig().GetEnabled(); e == nil || e.GetDefaultValue().GetValue() || e.GetRuntimeKey() != "" && l.changeable() {
			l.reportf(ruleBodyChanged, l.at(f), "%q decompresses the body before the Check", f.GetName())
		}
	case *compressorv3.Compressor:
		if e := m.GetRequestDirectionConfig().GetCommonConfig().GetEnabled(); m.GetRequestDirectionConfig() != nil && (e == nil || e.GetDefaultValue().GetValue()) {
			l.reportf(ruleBodyChanged, l.at(f), "%q compresses the body before the Check", f.GetName())
		}
	case *luav3.Lua:
		if seesRequests(m) {
			l.reportf(ruleBodyChanged, l.at(f), "%q runs a script on requests before the Check", f.GetName())
		}
		l.eachScript(f, ways, func(p *luav3.LuaPerRoute) {
			l.reportf(ruleBodyChanged, l.at(p, "source_code"), "%q runs a script of the route on requests before the Check", f.GetName())
		})
	case *compositev3.ExecuteFilterAction:
		if m.GetDynamicConfig() != nil {
			l.reportf(ruleBodyChanged, l.at(m, "dynamic_config"), "%q runs a filter that a control plane delivers before the Check", f.GetName())
		}
	case *extprocv3.ExternalProcessor:
		if !m.GetObservabilityMode() && (m.GetAllowModeOverride() || handsOn(m.GetProcessingMode())) {
			l.reportf(ruleExternalProc, l.at(f), "%q hands requests to a service before the Check", f.GetName())
			return
		}
		for _, p := range l.perRoute(ways, f.GetName()) {
			if p, ok := p.(*extprocv3.ExtProcPerRoute); ok && p.GetOverrides().GetProcessingMode() != nil && handsOn(p.GetOverrides().GetProcessingMode()) {
				l.reportf(ruleExternalProc, l.at(p.GetOverrides(), "processing_mode"), "%q hands requests of the route to a service before the Check", f.GetName())
			}
		}
	case *healthv3.HealthCheck:
		for _, w := range ways {
			if answersDeliveries(m, w) {
				l.reportf(ruleEarlyAnswer, l.at(f), "%q answers deliveries before the Check", f.GetName())
			}
		}
	default:
		switch {
		case changesBody[name]:
			l.reportf(ruleBodyChanged, l.at(f), "%q can change requests before the Check", f.GetName())
		case answers[name]:
			l.reportf(ruleEarlyAnswer, l.at(f), "%q can answer before the Check", f.GetName())
		}
	}
}

// handsOn says whether a service sees requests.
func handsOn(m *extprocv3.ProcessingMode) bool {
	return m.GetRequestHeaderMode() != extprocv3.ProcessingMode_SKIP || m.GetRequestBodyMode() != extprocv3.ProcessingMode_NONE
}

// answersDeliveries says whether a health check takes what is sent to a hook route for one of its own.
func answersDeliveries(m *healthv3.HealthCheck, w *way) bool {
	for _, h := range m.GetHeaders() {
		if h.GetName() == ":path" {
			path := w.route.GetMatch().GetPath()
			return path != "" && matches(h.GetStringMatch(), path)
		}
	}
	return true
}

// eachScript calls visit for each script that a route puts in the place of a filter's own and that sees requests.
func (l *linter) eachScript(f *hcmv3.HttpFilter, ways []*way, visit func(*luav3.LuaPerRoute)) {
	for _, p := range l.perRoute(ways, f.GetName()) {
		if p, ok := p.(*luav3.LuaPerRoute); ok && p.GetSourceCode() != nil && seesRequests(&luav3.Lua{DefaultSourceCode: p.GetSourceCode()}) {
			visit(p)
		}
	}
}

// seesRequests says whether a script has the function that Envoy calls with requests. A script that is in another file may.
func seesRequests(m *luav3.Lua) bool {
	sources := []*corev3.DataSource{m.GetDefaultSourceCode()}
	for _, s := range m.GetSourceCodes() {
		sources = append(sources, s)
	}
	//lint:ignore SA1019 Envoy still reads it, so configurations have it
	texts := m.GetInlineCode() //nolint:staticcheck // configurations in use have it
	for _, s := range sources {
		if s == nil {
			continue
		}
		if s.GetInlineString() == "" && len(s.GetInlineBytes()) == 0 {
			return true
		}
		texts += s.GetInlineString() + string(s.GetInlineBytes())
	}
	return strings.Contains(texts, "envoy_on_request")
}

// judgeBehind judges a filter that runs after the Check: none may have the route looked up again.
func (l *linter) judgeBehind(f *hcmv3.HttpFilter, m proto.Message, ways []*way) {
	switch m := m.(type) {
	case *luav3.Lua:
		if c := m.GetClearRouteCache(); c != nil && !c.GetValue() {
			return
		}
		if seesRequests(m) {
			l.reportf(ruleLaterReroute, l.at(m, "clear_route_cache"), "%q clears the route cache when its script changes a header", f.GetName())
		}
		l.eachScript(f, ways, func(p *luav3.LuaPerRoute) {
			l.reportf(ruleLaterReroute, l.at(p, "source_code"), "%q clears the route cache when the script of the route changes a header", f.GetName())
		})
		return
	case *extprocv3.ExternalProcessor:
		if m.GetRouteCacheAction() == extprocv3.ExternalProcessor_CLEAR {
			l.reportf(ruleLaterReroute, l.at(m, "route_cache_action"), "%q clears the route cache", f.GetName())
		}
		return
	case *transcoderv3.GrpcJsonTranscoder:
		if !m.GetMatchIncomingRequestRoute() {
			l.reportf(ruleLaterReroute, l.at(m), "%q changes the path and clears the route cache", f.GetName())
		}
		return
	case *reversev3.GrpcJsonReverseTranscoder, *reversebridgev3.FilterConfig:
		l.reportf(ruleLaterReroute, l.at(f), "%q clears the route cache", f.GetName())
		return
	}
	l.walk(m, func(inner proto.Message) {
		r := inner.ProtoReflect()
		fd := r.Descriptor().Fields().ByName("clear_route_cache")
		if fd == nil || !r.Has(fd) {
			return
		}
		on := false
		switch {
		case fd.Kind() == protoreflect.BoolKind:
			on = r.Get(fd).Bool()
		case fd.Message() != nil:
			b, ok := r.Get(fd).Message().Interface().(*wrapperspb.BoolValue)
			on = ok && b.GetValue()
		}
		if on {
			l.reportf(ruleLaterReroute, l.at(inner, "clear_route_cache"), "%q clears the route cache", f.GetName())
		}
	})
}

// judgeOnDemand reports a filter that finds a route which was not there yet. A Check without a route is skipped, and the request goes on
// from this filter, so it must stand before ext_authz.
func (l *linter) judgeOnDemand(c *chain, f *hcmv3.HttpFilter, m proto.Message) {
	d, ok := m.(*demandv3.OnDemand)
	if !ok {
		return
	}
	late := c.blind && d.GetOdcds() == nil // what else would it be for
	for _, rc := range c.routes {
		late = late || rc.GetVhds() != nil
	}
	s := c.hcm.GetScopedRoutes()
	for _, scope := range append(l.scopes[s.GetName()], s.GetScopedRouteConfigurationsList().GetScopedRouteConfigurations()...) {
		late = late || scope.GetOnDemand()
	}
	if late {
		l.reportf(ruleLaterReroute, l.at(f), "%q has routes delivered that the Check has not seen", f.GetName())
	}
}

// judgeAnswers reports a filter that turns refusals into something else.
func (l *linter) judgeAnswers(f *hcmv3.HttpFilter, m proto.Message, ways []*way) {
	for _, m := range append(l.perRoute(ways, f.GetName()), m) {
		if _, ok := m.(*responsev3.CustomResponse); !ok {
			continue
		}
		l.walk(m, func(inner proto.Message) {
			switch p := inner.(type) {
			case *localresponsev3.LocalResponsePolicy:
				if p.GetStatusCode() != nil {
					l.reportf(ruleLocalReply, l.at(p, "status_code"), "%q turns replies into %d", f.GetName(), p.GetStatusCode().GetValue())
				}
			case *redirectv3.RedirectPolicy:
				l.reportf(ruleLocalReply, l.at(p), "%q fetches another reply", f.GetName())
			}
		})
	}
}

// headerChange is one header that a filter sets or removes.
type headerChange struct {
	name string
	// matcher takes the place of name: every header that it matches is removed.
	matcher func(string) bool
	set     *corev3.HeaderValueOption // nil: removed
	after   bool                      // the same filter has removed the client's copy
	at      spot
	by      string
}

func (h headerChange) concerns(name string) bool {
	if h.matcher != nil {
		return h.matcher(name)
	}
	return h.name == name
}

// clientHeader is the header that Envoy overwrites with the client's address.
const clientHeader = "x-hookauthz-client-ip"

// judgeChange judges a change of a header. It reports whether this is the one that sets the client's address, as it should be.
func (l *linter) judgeChange(h headerChange, before bool) (overwrites bool) {
	if h.set != nil && h.name == clientHeader {
		switch {
		case !before:
			l.reportf(ruleClientHeader, h.at, "%s is set behind the Check, which sees the client's own", clientHeader)
		case !h.after && h.set.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD && h.set.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			l.reportf(ruleClientHeader, h.at, "%s keeps what the client sent (%v)", clientHeader, h.set.GetAppendAction())
		case !trustedAddress(h.set.GetHeader()):
			l.reportf(ruleClientHeader, h.at, "%s is set to %q, which is not the client's address", clientHeader, short(headerText(h.set.GetHeader())))
		default:
			return true
		}
		return true // told; that it is missing would be a second time
	}
	if !before {
		if h.set != nil && tellsVerified(h.name) {
			l.reportf(ruleVerified, h.at, "%s sets %s behind the Check", h.by, h.name)
		}
		return false
	}
	if h.set != nil && h.name == "x-forwarded-for" && !trustedAddress(h.set.GetHeader()) {
		l.reportf(ruleSkipAppend, h.at, "%s sets %s to %q", h.by, h.name, short(headerText(h.set.GetHeader())))
	}
	for _, name := range l.signed() {
		if h.concerns(name) {
			l.reportf(ruleHeaderChanged, h.at, "%s changes %s before the Check", h.by, name)
			return false
		}
	}
	if h.matcher == nil && looksSigned(h.name) {
		l.reportf(ruleHeaderChanged, h.at, "%s changes %s before the Check", h.by, h.name)
	}
	return false
}

func headerText(h *corev3.HeaderValue) string {
	if h.GetValue() == "" {
		return string(h.GetRawValue())
	}
	return h.GetValue()
}

// trustedAddress says whether a value is the address that Envoy itself settled on.
func trustedAddress(h *corev3.HeaderValue) bool {
	switch headerText(h) {
	case "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%":
		return true
	}
	return false
}

// signed are the headers that must arrive as they were sent: those of the schemes, where the policies are known.
func (l *linter) signed() []string { return l.policies.headers }

// looksSigned says whether a header is one of those in which senders sign.
func looksSigned(name string) bool {
	for _, word := range []string{"signature", "hmac", "webhook-id", "webhook-timestamp", "x-hub-", "content-digest"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// judgeEarly judges what the connection manager does to headers before any filter and before the route is chosen.
func (l *linter) judgeEarly(c *chain) {
	for _, rc := range c.routes {
		for i, name := range rc.GetInternalOnlyHeaders() {
			l.judgeChange(headerChange{name: strings.ToLower(name), at: l.at(rc, "internal_only_headers", i), by: "internal_only_headers"}, true)
		}
	}
	for _, e := range c.hcm.GetEarlyHeaderMutationExtensions() {
		if m, ok := opened[*earlyv3.HeaderMutation](l, e.GetTypedConfig()); ok {
			for _, h := range l.mutations(m.GetMutations(), "early_header_mutation_extensions") {
				if (h.name == clientHeader || h.name == "x-forwarded-for") && h.set != nil {
					continue // a filter before ext_authz does the same later, or its absence is reported; the peer is appended later
				}
				l.judgeChange(h, true)
			}
		}
	}
}

func (l *linter) mutations(list []*mutationv3.HeaderMutation, by string) []headerChange {
	var changes []headerChange
	removed := func(name string) bool {
		return slices.ContainsFunc(changes, func(h headerChange) bool { return h.set == nil && h.concerns(name) })
	}
	for _, m := range list {
		switch {
		case m.GetAppend() != nil:
			name := optionName(m.GetAppend())
			changes = append(changes, headerChange{name: name, set: m.GetAppend(), after: removed(name), at: l.at(m, "append"), by: by})
		case m.GetRemove() != "":
			changes = append(changes, headerChange{name: strings.ToLower(m.GetRemove()), at: l.at(m, "remove"), by: by})
		case m.GetRemoveOnMatch() != nil:
			matcher := m.GetRemoveOnMatch().GetKeyMatcher()
			changes = append(changes, headerChange{matcher: func(s string) bool { return matches(matcher, s) }, at: l.at(m, "remove_on_match"), by: by})
		}
	}
	return changes
}

// headerChanges lists what a filter does to the headers of requests.
func (l *linter) headerChanges(f *hcmv3.HttpFilter, m proto.Message, ways []*way) []headerChange {
	by := f.GetName()
	replaces := func(name string) []headerChange { return []headerChange{{name: name, at: l.at(f), by: by}} }
	switch m := m.(type) {
	case *headermutationv3.HeaderMutation:
		changes := l.mutations(m.GetMutations().GetRequestMutations(), by)
		for _, p := range l.perRoute(ways, by) {
			if p, ok := p.(*headermutationv3.HeaderMutationPerRoute); ok {
				changes = append(changes, l.mutations(p.GetMutations().GetRequestMutations(), by)...)
			}
		}
		return changes
	case *credentialv3.CredentialInjector, *gcpv3.GcpAuthnFilterConfig, *awsv3.AwsRequestSigning:
		return replaces("authorization")
	case *oauthv3.OAuth2:
		if m.GetConfig().GetForwardBearerToken() {
			return replaces("authorization")
		}
	case *jwtv3.JwtAuthentication:
		var changes []headerChange
		for _, p := range m.GetProviders() {
			if p.GetForward() {
				continue
			}
			if len(p.GetFromHeaders()) == 0 && len(p.GetFromParams()) == 0 && len(p.GetFromCookies()) == 0 {
				changes = append(changes, headerChange{name: "authorization", at: l.at(p), by: by})
			}
			for _, h := range p.GetFromHeaders() {
				changes = append(changes, headerChange{name: strings.ToLower(h.GetName()), at: l.at(h), by: by})
			}
		}
		return changes
	case *metadatav3.Config:
		var changes []headerChange
		for _, r := range m.GetRequestRules() {
			if r.GetRemove() {
				changes = append(changes, headerChange{name: strings.ToLower(r.GetHeader()), at: l.at(r, "remove"), by: by})
			}
		}
		return changes
	case *apikeyv3.ApiKeyAuth:
		if m.GetForwarding().GetHideCredentials() {
			var changes []headerChange
			for _, s := range m.GetKeySources() {
				if s.GetHeader() != "" {
					changes = append(changes, headerChange{name: strings.ToLower(s.GetHeader()), at: l.at(s), by: by})
				}
			}
			return changes
		}
	}
	return nil
}
