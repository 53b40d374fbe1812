package envoy

import "maps"

// remark is what is said of a field, or of an item of a list.
type remark struct {
	text string
	// always has the field written where it has its default, because another value would be a way around.
	always bool
}

const (
	httpConnectionManager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager."
	extAuthz              = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz."
	bufferSettings        = "envoy.extensions.filters.http.ext_authz.v3.BufferSettings."
)

// remarks are those of a configuration. Keys are full names of fields, or of types and the name of an item.
type remarks map[string]remark

// remarks are the comments with those that depend on the policies.
func (p *Plan) remarks() remarks {
	out := maps.Clone(comments)
	if p.underscores {
		out[httpConnectionManager+"common_http_protocol_options"] = remark{text: "Header names with underscores pass, because a scheme reads one. Others may be taken for the same name with dashes."}
	}
	return out
}

// comments are short: docs/envoy.md says more.
var comments = remarks{
	"envoy.config.listener.v3.Listener.per_connection_buffer_limit_bytes": {text: "Bodies are buffered by ext_authz, up to its own max_request_bytes."},
	"envoy.config.listener.v3.Listener.listener_filters":                  {text: "The balancer in front says who connects. Without its word a connection is closed."},
	"envoy.config.listener.v3.FilterChain.filter_chain_match":             {text: "Only the balancer may connect: anybody else could claim any address."},
	"envoy.config.listener.v3.FilterChain.transport_socket":               {text: "TLS 1.2 or later, with forward secrecy and authenticated encryption only."},

	httpConnectionManager + "use_remote_address":               {text: "No proxy stands in front: the peer is the client, and is appended to x-forwarded-for."},
	httpConnectionManager + "original_ip_detection_extensions": {text: "Proxies stand in front: the client is the first address of x-forwarded-for, from the right, that is none of theirs."},
	httpConnectionManager + "preserve_external_request_id":     {text: "A scheme signs x-request-id: Envoy must not write its own in its place."},
	httpConnectionManager + "normalize_path":                   {text: "Must: Envoy, hookauthz and the application agree on the path."},
	httpConnectionManager + "merge_slashes":                    {always: true},
	httpConnectionManager + "common_http_protocol_options":     {text: "Must reject: x_hub_signature_256 would be x-hub-signature-256 to some applications."},
	httpConnectionManager + "request_headers_timeout":          {text: "A body is read in full before its Check: slow senders may not hold it up. Must: no upgrade_configs, which are not buffered."},
	httpConnectionManager + "route_config":                     {text: "One route for each policy; its name goes to hookauthz as a context extension, which no client can set. What matches no route is answered 404."},
	httpConnectionManager + "http_filters":                     {text: "Before ext_authz nothing may touch the body or a signature header."},

	"envoy.config.accesslog.v3.AccessLog:envoy.access_loggers.http_grpc": {text: "Outcomes, for policies with `replay: {confirm: outcome}`: a Check's reservation goes back with the application's answer."},

	"envoy.extensions.filters.http.header_mutation.v3.Mutations.request_mutations":                        {text: "What clients send under our names does not come in."},
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter:envoy.filters.http.ext_authz": {text: "Must keep this name: per-route settings are found by it."},

	extAuthz + "failure_mode_allow":            {text: "Must: else a dead authorizer lets everything in.", always: true},
	extAuthz + "status_on_error":               {text: "Senders repeat what got a 503; many give up on the default, 403."},
	extAuthz + "with_request_body":             {text: "Must be whole and raw: a signature holds for all bytes as they were received. The size is the largest of the policies."},
	bufferSettings + "allow_partial_message":   {always: true},
	extAuthz + "clear_route_cache":             {text: "Must: else a request can move to another route after its Check.", always: true},
	extAuthz + "encode_raw_headers":            {text: "Repeated headers stay apart, so that two signatures are seen as two."},
	extAuthz + "decoder_header_mutation_rules": {text: "hookauthz may set its own headers, and nothing else."},
	extAuthz + "charge_cluster_response_stats": {text: "A flood of bad signatures is no fault of the application."},

	"envoy.config.route.v3.RouteMatch.safe_regex":          {text: "What no policy is for passes unchecked, where its path can mean one thing only."},
	"envoy.config.cluster.v3.Cluster.health_checks":        {text: "hookauthz says NOT_SERVING before it stops."},
	"envoy.config.cluster.v3.Cluster.circuit_breakers":     {text: "So many Checks at once hold 4 GiB of bodies at most."},
	"envoy.config.cluster.v3.Cluster:webhook_authz":        {text: "hookauthz, over HTTP/2."},
	"envoy.config.bootstrap.v3.Bootstrap.overload_manager": {text: "Refuse connections and requests before memory runs out."},
	"envoy.config.bootstrap.v3.Bootstrap.admin":            {text: "Must stay on this machine: it can do everything."},
	"envoy.config.cluster.v3.Cluster.transport_socket":     {text: "Mutual TLS: whoever reaches hookauthz can spend limits and probe secrets, so it answers to this Envoy only."},
}
