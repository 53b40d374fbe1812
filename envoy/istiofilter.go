package envoy

import (
	"fmt"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpcaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const managerName = "envoy.filters.network.http_connection_manager"

// istioFilter is what Istio's own resources cannot say, as patches of the gateway's listeners.
func (p *Plan) istioFilter(m Mesh, cluster string) (*node, error) {
	manager, err := p.istioManager(cluster)
	if err != nil {
		return nil, err
	}
	mutation, err := pack(p.headerMutation())
	if err != nil {
		return nil, err
	}
	authz, err := pack(p.istioAuthz())
	if err != nil {
		return nil, err
	}
	inManager := object("name", managerName)
	of := object("name", managerName, "subFilter", object("name", filterName))
	var patches []*node
	for _, patch := range []struct {
		at, operation string
		filter        *node
		value         proto.Message
		comment       string
	}{
		{"NETWORK_FILTER", "MERGE", inManager, &listenerv3.Filter{Name: managerName, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager}},
			"Paths and names of headers that mean one thing, and an end to slow senders."},
		{"HTTP_FILTER", "INSERT_FIRST", inManager, &hcmv3.HttpFilter{Name: "envoy.filters.http.header_mutation", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mutation}},
			"What clients send under our names does not come in."},
		{"HTTP_FILTER", "MERGE", of, &hcmv3.HttpFilter{Name: filterName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: authz}},
			"Repeated headers stay apart; hookauthz may set its own headers, and nothing else. Where Istio gives the filter another name, this does not apply: hookauthz then gets headers merged, and refuses a signature that is joined."},
	} {
		value, err := remarks{}.tree(patch.value)
		if err != nil {
			return nil, err
		}
		n := object(
			"applyTo", patch.at,
			"match", object("context", "GATEWAY", "listener", object("filterChain", object("filter", patch.filter))),
			"patch", object("operation", patch.operation, "value", value),
		)
		n.comment = patch.comment
		patches = append(patches, n)
	}
	return resource("networking.istio.io/v1alpha3", "EnvoyFilter", "hookauthz", m.Namespace, "spec", object(
		"workloadSelector", object("labels", object("istio", m.Gateway)),
		"configPatches", patches,
	)), nil
}

// istioManager is what of the connection manager is ours to set: Istio sets the rest.
func (p *Plan) istioManager(cluster string) (*anypb.Any, error) {
	h, err := p.connectionManager()
	if err != nil {
		return nil, err
	}
	if err := check(h); err != nil { // whole, as it stands in a bootstrap: a part of it would lack what is required
		return nil, fmt.Errorf("what was made is not valid: %w", err)
	}
	part := &hcmv3.HttpConnectionManager{
		NormalizePath:                h.NormalizePath,
		MergeSlashes:                 false,
		PathWithEscapedSlashesAction: h.PathWithEscapedSlashesAction,
		CommonHttpProtocolOptions:    &corev3.HttpProtocolOptions{HeadersWithUnderscoresAction: h.CommonHttpProtocolOptions.HeadersWithUnderscoresAction},
		PreserveExternalRequestId:    h.PreserveExternalRequestId,
		RequestHeadersTimeout:        h.RequestHeadersTimeout,
		RequestTimeout:               h.RequestTimeout,
		StreamIdleTimeout:            h.StreamIdleTimeout,
	}
	if p.outcomes {
		log, err := outcomeLog()
		if err != nil {
			return nil, err
		}
		if err := repoint(log, cluster); err != nil {
			return nil, err
		}
		part.AccessLog = append(part.AccessLog, log)
	}
	return pack(part)
}

// repoint has the log of outcomes go to another cluster.
func repoint(log *accesslogv3.AccessLog, cluster string) error {
	var c grpcaccesslogv3.HttpGrpcAccessLogConfig
	if err := log.GetTypedConfig().UnmarshalTo(&c); err != nil {
		return err
	}
	c.CommonConfig.GrpcService.GetEnvoyGrpc().ClusterName = cluster
	again, err := pack(&c)
	log.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: again}
	return err
}

// istioAuthz is what Istio's provider cannot say of the filter.
func (p *Plan) istioAuthz() *extauthzv3.ExtAuthz {
	whole := p.extAuthz()
	return &extauthzv3.ExtAuthz{
		EncodeRawHeaders:           whole.EncodeRawHeaders,
		ValidateMutations:          whole.ValidateMutations,
		DecoderHeaderMutationRules: whole.DecoderHeaderMutationRules,
		MaxDeniedResponseBodyBytes: whole.MaxDeniedResponseBodyBytes,
		ChargeClusterResponseStats: wrapperspb.Bool(false),
		IncludeTlsSession:          whole.IncludeTlsSession,
	}
}
