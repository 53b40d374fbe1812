package envoy

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func (p *Plan) bootstrap() (*bootstrapv3.Bootstrap, error) {
	l, err := p.listener()
	if err != nil {
		return nil, err
	}
	authz, err := p.authz()
	if err != nil {
		return nil, err
	}
	overload, err := p.overload()
	if err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: []*listenerv3.Listener{l},
			Clusters:  []*clusterv3.Cluster{p.upstream(), authz},
		},
		OverloadManager: overload,
	}
	if p.config.AdminPort > 0 {
		b.Admin = &bootstrapv3.Admin{Address: socket(Address{Host: "127.0.0.1", Port: p.config.AdminPort})}
	}
	return b, nil
}

// cluster is one server at an address.
func cluster(name string, a Address) *clusterv3.Cluster {
	discovery := clusterv3.Cluster_STATIC
	if _, ok := a.IP(); !ok && a.Path == "" {
		discovery = clusterv3.Cluster_STRICT_DNS
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: discovery},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: socket(a)},
			}}},
		}}},
	}
}

func (p *Plan) upstream() *clusterv3.Cluster {
	c := cluster(upstreamCluster, p.config.Upstream)
	c.ConnectTimeout = seconds(time.Second)
	return c
}

func (p *Plan) authz() (*clusterv3.Cluster, error) {
	protocol, err := pack(&httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: seconds(30 * time.Second), Timeout: seconds(5 * time.Second)},
			}},
		},
	}})
	if err != nil {
		return nil, err
	}
	c := cluster(authzCluster, p.config.Authz)
	c.ConnectTimeout = seconds(500 * time.Millisecond)
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol}
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     wrapperspb.UInt32(64),
		MaxPendingRequests: wrapperspb.UInt32(p.checksAtOnce()),
		MaxRequests:        wrapperspb.UInt32(p.checksAtOnce()),
		TrackRemaining:     true,
	}}}
	c.HealthChecks = []*corev3.HealthCheck{{
		Timeout:            seconds(time.Second),
		Interval:           seconds(5 * time.Second),
		NoTrafficInterval:  seconds(5 * time.Second),
		UnhealthyThreshold: wrapperspb.UInt32(2),
		HealthyThreshold:   wrapperspb.UInt32(1),
		HealthChecker: &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{
			ServiceName: "envoy.service.auth.v3.Authorization", Authority: authzName,
		}},
	}}
	if p.config.AuthzTLS != nil {
		c.TransportSocket, err = tlsSocket(mutualTLS(*p.config.AuthzTLS, p.config.Authz))
	}
	return c, err
}

// mutualTLS has the server show a certificate for its own name, and shows Envoy's.
func mutualTLS(t MutualTLS, server Address) *tlsv3.UpstreamTlsContext {
	name, san := server.Host, tlsv3.SubjectAltNameMatcher_DNS
	if server.Path != "" {
		name = authzName
	}
	c := &tlsv3.UpstreamTlsContext{Sni: name}
	if ip, ok := server.IP(); ok {
		c.Sni, name, san = "", ip.String(), tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	c.CommonTlsContext = &tlsv3.CommonTlsContext{
		AlpnProtocols: []string{"h2"},
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
		TlsCertificates: []*tlsv3.TlsCertificate{certificate(t.KeyPair)},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: file(t.CA),
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: san,
				Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}},
			}},
		}},
	}
	return c
}

// overload refuses connections and requests before memory runs out.
func (p *Plan) overload() (*overloadv3.OverloadManager, error) {
	m := &overloadv3.OverloadManager{RefreshInterval: seconds(250 * time.Millisecond)}
	const heap = "envoy.resource_monitors.fixed_heap"
	for _, monitor := range []struct {
		name   string
		config proto.Message
	}{
		{"envoy.resource_monitors.global_downstream_max_connections", &downstreamv3.DownstreamConnectionsConfig{
			MaxActiveDownstreamConnections: int64(p.config.MaxConnections),
		}},
		{heap, &fixedheapv3.FixedHeapConfig{MaxHeapSizeBytes: p.config.MaxHeap}},
	} {
		packed, err := pack(monitor.config)
		if err != nil {
			return nil, err
		}
		m.ResourceMonitors = append(m.ResourceMonitors, &overloadv3.ResourceMonitor{
			Name: monitor.name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: packed},
		})
	}
	for _, a := range []struct {
		name string
		at   float64
	}{
		{"envoy.overload_actions.shrink_heap", 0.85},
		{"envoy.overload_actions.disable_http_keepalive", 0.9},
		{"envoy.overload_actions.stop_accepting_requests", 0.95},
		{"envoy.overload_actions.stop_accepting_connections", 0.98},
	} {
		m.Actions = append(m.Actions, &overloadv3.OverloadAction{Name: a.name, Triggers: []*overloadv3.Trigger{{
			Name: heap, TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: a.at}},
		}}})
	}
	return m, nil
}
