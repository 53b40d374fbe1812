package envoy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	fileaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpcaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// suites are those of TLS 1.2 with forward secrecy and authenticated encryption. The suites of TLS 1.3 are all of that kind.
var suites = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
	"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
}

// pack is a configuration as it stands within another. Map fields of generated types are the only reason for Deterministic.
func pack(m proto.Message) (*anypb.Any, error) {
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("pack %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return packed, nil
}

func seconds(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// socket is an address of Envoy's API.
func socket(a Address) *corev3.Address {
	if a.Path != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Path}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port)},
	}}}
}

func (p *Plan) listener() (*listenerv3.Listener, error) {
	chain, err := p.filterChain()
	if err != nil {
		return nil, err
	}
	l := &listenerv3.Listener{
		Name:                          "hooks",
		Address:                       socket(p.config.Listen),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(32 << 10),
		FilterChains:                  []*listenerv3.FilterChain{chain},
	}
	if p.config.ProxyProtocol {
		packed, err := pack(&proxyprotocolv3.ProxyProtocol{
			DisallowedVersions: []corev3.ProxyProtocolConfig_Version{corev3.ProxyProtocolConfig_V1},
		})
		if err != nil {
			return nil, err
		}
		l.ListenerFilters = []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.proxy_protocol",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed},
		}}
		l.ListenerFiltersTimeout = seconds(5 * time.Second)
	}
	return l, nil
}

func (p *Plan) filterChain() (*listenerv3.FilterChain, error) {
	h, err := p.connectionManager()
	if err != nil {
		return nil, err
	}
	packed, err := pack(h)
	if err != nil {
		return nil, err
	}
	chain := &listenerv3.FilterChain{Filters: []*listenerv3.Filter{{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
	}}}
	if p.config.ProxyProtocol && len(p.config.ProxyFrom) > 0 {
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{DirectSourcePrefixRanges: ranges(p.config.ProxyFrom)}
	}
	if p.config.TLS == nil {
		return chain, nil
	}
	chain.TransportSocketConnectTimeout = seconds(10 * time.Second)
	chain.TransportSocket, err = tlsSocket(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		AlpnProtocols: []string{"h2", "http/1.1"},
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			CipherSuites:              suites,
		},
		TlsCertificates: []*tlsv3.TlsCertificate{certificate(*p.config.TLS)},
	}})
	return chain, err
}

func ranges(prefixes []netip.Prefix) []*corev3.CidrRange {
	out := make([]*corev3.CidrRange, 0, len(prefixes))
	for _, prefix := range prefixes {
		out = append(out, &corev3.CidrRange{AddressPrefix: prefix.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(prefix.Bits()))})
	}
	return out
}

func tlsSocket(context proto.Message) (*corev3.TransportSocket, error) {
	packed, err := pack(context)
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, err
}

func certificate(k KeyPair) *tlsv3.TlsCertificate {
	return &tlsv3.TlsCertificate{CertificateChain: file(k.Cert), PrivateKey: file(k.Key)}
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}

func (p *Plan) connectionManager() (*hcmv3.HttpConnectionManager, error) {
	routes, err := p.routeConfig()
	if err != nil {
		return nil, err
	}
	filters, err := p.httpFilters()
	if err != nil {
		return nil, err
	}
	logs, err := p.accessLogs()
	if err != nil {
		return nil, err
	}
	underscores := corev3.HttpProtocolOptions_REJECT_REQUEST
	if p.underscores {
		underscores = corev3.HttpProtocolOptions_ALLOW
	}
	h := &hcmv3.HttpConnectionManager{
		StatPrefix:                   "hooks",
		RouteSpecifier:               &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes},
		HttpFilters:                  filters,
		AccessLog:                    logs,
		UseRemoteAddress:             wrapperspb.Bool(true),
		PreserveExternalRequestId:    p.keepRequestID,
		NormalizePath:                wrapperspb.Bool(true),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			HeadersWithUnderscoresAction: underscores,
			IdleTimeout:                  seconds(5 * time.Minute),
		},
		RequestHeadersTimeout: seconds(5 * time.Second),
		RequestTimeout:        seconds(30 * time.Second),
		StreamIdleTimeout:     seconds(30 * time.Second),
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(100),
			InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
	}
	if len(p.config.XFFTrusted) == 0 {
		return h, nil
	}
	packed, err := pack(&xffv3.XffConfig{
		XffTrustedCidrs: &xffv3.XffTrustedCidrs{Cidrs: ranges(p.config.XFFTrusted)},
		SkipXffAppend:   wrapperspb.Bool(false),
	})
	h.UseRemoteAddress = nil // excludes what follows
	h.OriginalIpDetectionExtensions = []*corev3.TypedExtensionConfig{{Name: "envoy.http.original_ip_detection.xff", TypedConfig: packed}}
	return h, err
}

func (p *Plan) routeConfig() (*routev3.RouteConfiguration, error) {
	c := &routev3.RouteConfiguration{Name: "hooks", IgnorePortInHostMatching: true}
	for _, h := range p.hosts {
		name := h.domains[0]
		if name == anyHost {
			name = "any"
		}
		v := &routev3.VirtualHost{Name: name, Domains: h.domains}
		for _, r := range h.routes {
			made, err := r.envoy()
			if err != nil {
				return nil, err
			}
			v.Routes = append(v.Routes, made)
		}
		c.VirtualHosts = append(c.VirtualHosts, v)
	}
	return c, nil
}

// clean matches paths that mean the same to everybody: no empty segment, parameter or backslash, and no escape of a character that
// needs none or that separates.
const clean = `(/([A-Za-z0-9._~!$&'()*+,=:@-]|%(2[0-246-9A-Ca-c]|3[AC-Eac-e]|40|5[BDEbde]|60|7[B-Db-d]|[89A-Fa-f][0-9A-Fa-f]))+)+/?|/`

// otherPaths are headers in which some frameworks look for the path that was asked for.
var otherPaths = []string{"x-original-url", "x-rewrite-url"}

func (r route) envoy() (*routev3.Route, error) {
	out := new(routev3.Route)
	settings := &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_Disabled{Disabled: true}}
	switch beginning, open := strings.CutSuffix(r.pattern, "*"); {
	case r.action == pass:
		out.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: clean}}}
	case open:
		out.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: beginning}}
	default:
		out.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: r.pattern}}
	}
	switch r.action {
	case refuse:
		out.Match.CaseSensitive = wrapperspb.Bool(false)
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 404}}
	case pass:
		out.Action = toUpstream(upstreamTimeout)
		out.RequestHeadersToRemove = otherPaths
	default:
		out.Action = toUpstream(r.timeout)
		settings = &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &extauthzv3.CheckSettings{
			ContextExtensions: map[string]string{endpointKey: r.endpoint},
		}}}
	}
	packed, err := pack(settings)
	out.TypedPerFilterConfig = map[string]*anypb.Any{filterName: packed}
	return out, err
}

func toUpstream(timeout time.Duration) *routev3.Route_Route {
	return &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: upstreamCluster},
		Timeout:          seconds(timeout),
	}}
}

func (p *Plan) httpFilters() ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range []struct {
		name   string
		config proto.Message
	}{
		{"envoy.filters.http.header_mutation", p.headerMutation()},
		{filterName, p.extAuthz()},
		{"envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}},
	} {
		packed, err := pack(f.config)
		if err != nil {
			return nil, err
		}
		out = append(out, &hcmv3.HttpFilter{Name: f.name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}})
	}
	return out, nil
}

// ours matches the names of our headers in any spelling.
const ours = "^x[^a-z0-9]hookauthz[^a-z0-9].*"

func (p *Plan) headerMutation() *headermutationv3.HeaderMutation {
	remove := func(m *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m}}}
	}
	mutations := []*mutationv3.HeaderMutation{
		remove(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ours}}}),
	}
	if len(p.config.XFFTrusted) > 0 { // with use_remote_address Envoy does that itself
		mutations = append(mutations, remove(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "x-envoy-"}}))
	}
	mutations = append(mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: clientIPHeader, Value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}}})
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{RequestMutations: mutations}}
}

// authzService is where Checks and outcomes go.
func authzService(timeout time.Duration) *corev3.GrpcService {
	s := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
		ClusterName: authzCluster, Authority: authzName,
	}}}
	if timeout > 0 {
		s.Timeout = seconds(timeout)
	}
	return s
}

func (p *Plan) extAuthz() *extauthzv3.ExtAuthz {
	return &extauthzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		Services:            &extauthzv3.ExtAuthz_GrpcService{GrpcService: authzService(p.checkTimeout())},
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		WithRequestBody:     &extauthzv3.BufferSettings{MaxRequestBytes: p.maxBytes, PackAsBytes: true},
		EncodeRawHeaders:    true,
		IncludeTlsSession:   true,
		ValidateMutations:   true,
		DecoderHeaderMutationRules: &mutationv3.HeaderMutationRules{
			DisallowAll:     wrapperspb.Bool(true),
			AllowExpression: &matcherv3.RegexMatcher{Regex: ours},
			DisallowIsError: wrapperspb.Bool(true),
		},
		MaxDeniedResponseBodyBytes: 4096,
		ChargeClusterResponseStats: wrapperspb.Bool(false),
		EmitFilterStateStats:       true,
		StatPrefix:                 "webhooks",
	}
}

// decisionFields are the fields of a decision that the access log shows.
var decisionFields = []string{"endpoint", "decision", "reason", "shadow", "secret_version", "delivery_id", "event_type", "policy_revision"}

func (p *Plan) accessLogs() ([]*accesslogv3.AccessLog, error) {
	format := map[string]any{
		"time":           "%START_TIME%",
		"method":         "%REQ(:METHOD)%",
		"path":           "%PATH(NQ:PATH)%",
		"status":         "%RESPONSE_CODE%",
		"details":        "%RESPONSE_CODE_DETAILS%",
		"flags":          "%RESPONSE_FLAGS%",
		"duration_ms":    "%DURATION%",
		"bytes_received": "%BYTES_RECEIVED%",
		"client":         "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"request_id":     "%REQ(X-REQUEST-ID)%",
		"user_agent":     "%REQ(USER-AGENT):128%",
	}
	for _, f := range decisionFields {
		format[f] = "%DYNAMIC_METADATA(" + namespace + ":" + f + ")%"
	}
	fields, err := structpb.NewStruct(format)
	if err != nil {
		return nil, err
	}
	lines, err := pack(&fileaccesslogv3.FileAccessLog{
		Path: "/dev/stdout",
		AccessLogFormat: &fileaccesslogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
		}},
	})
	if err != nil {
		return nil, err
	}
	logs := []*accesslogv3.AccessLog{{
		Name:       "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: lines},
	}}
	if !p.outcomes {
		return logs, nil
	}
	outcomes, err := outcomeLog()
	return append(logs, outcomes), err
}

// outcomeLog gives a reservation back with the application's answer. Only decisions that made one are sent.
func outcomeLog() (*accesslogv3.AccessLog, error) {
	packed, err := pack(&grpcaccesslogv3.HttpGrpcAccessLogConfig{CommonConfig: &grpcaccesslogv3.CommonGrpcAccessLogConfig{
		LogName:             "hookauthz",
		TransportApiVersion: corev3.ApiVersion_V3,
		BufferFlushInterval: seconds(200 * time.Millisecond),
		BufferSizeBytes:     wrapperspb.UInt32(1),
		GrpcService:         authzService(0),
	}})
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.http_grpc",
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: namespace,
				Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "reservation"}}},
				Value:  &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		}}},
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed},
	}, err
}
