package lint

import "slices"

// Rule is one thing that is looked for.
type Rule struct {
	ID       string
	Name     string
	Severity Severity
	Why      string // one sentence
	Fix      string // as configuration
}

// Rules lists every rule by id.
func Rules() []Rule { return slices.Clone(table) }

const (
	// Ways around.
	ruleNoFilter       = "HA001"
	ruleRaw            = "HA002"
	ruleDisabled       = "HA003"
	ruleFilterOff      = "HA004"
	ruleFailOpen       = "HA005"
	ruleFraction       = "HA006"
	ruleMetadataSwitch = "HA007"
	ruleMeshSwitch     = "HA008"
	ruleShadowMode     = "HA009"
	ruleUpgradeChain   = "HA010"
	ruleUpgrade        = "HA011"
	ruleConnect        = "HA012"
	ruleOpenCluster    = "HA013"
	ruleMirror         = "HA014"
	ruleReroute        = "HA015"
	ruleLaterReroute   = "HA016"
	ruleFilterName     = "HA017"
	ruleConditional    = "HA018"
	ruleOptional       = "HA019"
	ruleServicePerHook = "HA020"
	ruleHTTPService    = "HA021"
	ruleNoService      = "HA022"
	ruleAdmin          = "HA023"
	ruleRuntimeGuard   = "HA024"
	ruleVersion        = "HA025"
	ruleNothing        = "HA026"
	ruleChunkedLength  = "HA027"
	ruleAuthzReachable = "HA028"
	ruleEarlyAnswer    = "HA029"

	// What the authorizer sees.
	ruleNoBody        = "HA030"
	rulePartialBody   = "HA031"
	ruleStringBody    = "HA032"
	ruleRouteNoBody   = "HA033"
	ruleRoutePartial  = "HA034"
	ruleBodyChanged   = "HA035"
	ruleHeaderChanged = "HA036"
	ruleHeadersHidden = "HA037"
	ruleMergedHeaders = "HA038"
	ruleExternalProc  = "HA039"
	ruleNormalize     = "HA040"
	ruleSlashesKept   = "HA041"
	ruleSlashesMoved  = "HA042"
	ruleMergeSlashes  = "HA043"
	ruleUnderscores   = "HA044"
	rulePathParams    = "HA045"
	ruleVerified      = "HA046"
	ruleTarget        = "HA047"

	// The client's address.
	ruleRemoteAddress = "HA050"
	ruleHops          = "HA051"
	ruleClientHeader  = "HA052"
	ruleProxyOptional = "HA053"
	ruleProxyAnyone   = "HA054"
	ruleDetection     = "HA055"
	ruleInternalAddrs = "HA056"
	ruleSkipAppend    = "HA057"

	// TLS, and the way to the authorizer.
	rulePlainListener = "HA060"
	ruleOldTLS        = "HA061"
	ruleNoTLSVersion  = "HA062"
	ruleCiphers       = "HA063"
	rulePlainAuthz    = "HA064"
	ruleUnverified    = "HA065"
	ruleAnyName       = "HA066"
	ruleHTTP1         = "HA067"
	ruleNoCluster     = "HA068"
	ruleUntrusted     = "HA069"
	ruleClientCerts   = "HA070"
	ruleNoCertificate = "HA071"

	// Availability and hygiene.
	ruleErrorStatus    = "HA080"
	ruleErrorTaken     = "HA081"
	ruleShortTimeout   = "HA082"
	ruleLongTimeout    = "HA083"
	ruleMutations      = "HA084"
	ruleMutationRules  = "HA085"
	ruleOurHeaders     = "HA086"
	ruleRequestTimeout = "HA087"
	ruleHeadersTimeout = "HA088"
	ruleIdleTimeout    = "HA089"
	ruleTwoChecks      = "HA090"
	ruleLocalReply     = "HA091"
	ruleRedirect       = "HA092"
	ruleMetadataLost   = "HA093"
	ruleAPIVersion     = "HA094"
	ruleChargedStats   = "HA095"
	ruleAuthority      = "HA096"
	ruleDeadPeer       = "HA097"
	ruleContinue       = "HA098"

	// What needs the policies.
	ruleUnknownEndpoint = "HA100"
	ruleNoPolicy        = "HA101"
	ruleSmallBody       = "HA102"
	ruleLargeBody       = "HA103"
	ruleHeadersDropped  = "HA104"
	ruleRequestID       = "HA105"
	ruleOutcomeLog      = "HA106"
	ruleNoClientHeader  = "HA107"
	ruleReservation     = "HA108"

	// What could not be judged.
	ruleUnreadable       = "HA900"
	ruleUnknownField     = "HA901"
	ruleUnknownExtension = "HA902"
	ruleElsewhere        = "HA903"
)

// table is every rule by id.
var table = []Rule{
	{ruleNoFilter, "no-filter", Error, "Whoever connects there reaches the application without a Check.", "put the ext_authz filter of the hook listener into this http_filters, or route elsewhere"},
	{ruleRaw, "raw-connection", Error, "Raw connections to the application carry any request, and none is checked.", "remove the tcp_proxy chain, or route to another cluster"},
	{ruleDisabled, "disabled", Error, "Requests of this route reach the application without a Check, by any path that it matches.", "remove `disabled: true`; or route to a cluster that no webhook shares"},
	{ruleFilterOff, "filter-off", Error, "A filter that is off by default guards only the routes that turn it on.", "disabled: false"},
	{ruleFailOpen, "fail-open", Error, "Every delivery passes unchecked while the authorizer is down, slow or sent too much, which an attacker can bring about.", "failure_mode_allow: false"},
	{ruleFraction, "enabled-fraction", Error, "The share of requests that the fraction leaves out is not checked, and runtime can change it.", "remove filter_enabled; or add `deny_at_disable: {default_value: true, runtime_key: ...}`"},
	{ruleMetadataSwitch, "enabled-metadata", Error, "Requests whose metadata does not match are not checked.", "remove filter_enabled_metadata; or add `deny_at_disable: {default_value: true, runtime_key: ...}`"},
	{ruleMeshSwitch, "mesh-switch", Warning, "The mesh asks for a Check only where its AuthorizationPolicy matches, so a path that the policy misses is not checked.", "let the rules of the AuthorizationPolicy cover every path of the application, or none but what another workload serves"},
	{ruleShadowMode, "shadow-mode", Error, "Denied requests pass, and so do all while the authorizer cannot be reached.", "`shadow_mode: false`; use `mode: shadow` in a policy, which keeps the checks of path and body"},
	{ruleUpgradeChain, "upgrade-chain", Error, "An upgraded request runs this chain in the place of the other, so one header gets it past the Check.", "remove upgrade_configs; or put ext_authz into its filters"},
	{ruleUpgrade, "upgrade", Error, "An upgraded request is not buffered: the Check sees no body, and what follows is never checked.", "remove upgrade_configs; or `upgrade_configs: [{upgrade_type: websocket, enabled: false}]` on the hook routes"},
	{ruleConnect, "connect", Error, "CONNECT opens a tunnel whose content no Check sees.", "`allow_connect: false`, and no upgrade_configs with `upgrade_type: CONNECT`"},
	{ruleOpenCluster, "open-cluster", Error, "A client that chooses where its request goes can choose the application that webhooks reach.", "route: {cluster: NAME}"},
	{ruleMirror, "mirror", Error, "The application gets a copy of requests that nobody checked.", "remove the request_mirror_policies, or mirror to a cluster that no webhook shares"},
	{ruleReroute, "reroute", Error, "After the Check the route is looked up again, so a request can move to a route that was not checked.", "clear_route_cache: false"},
	{ruleLaterReroute, "later-reroute", Error, "A filter behind the Check has the route looked up again, so a request can move to a route that was not checked.", "`clear_route_cache: false` in that filter, or put it before ext_authz"},
	{ruleFilterName, "filter-name", Error, "Envoy finds per-route settings by the filter's own name and ignores others without a word, `disabled` and context_extensions alike.", "use the name of the ext_authz filter in http_filters as the key"},
	{ruleConditional, "conditional", Error, "A filter within a matcher or another filter does not run for every request.", "put ext_authz into http_filters itself"},
	{ruleOptional, "optional", Error, "An Envoy that does not know the filter leaves it out without a word.", "is_optional: false"},
	{ruleServicePerHook, "service-per-route", Error, "Another service decides for this route; and Envoy before 1.38.3 can crash on it (CVE-2026-47205).", "remove grpc_service and http_service from check_settings"},
	{ruleHTTPService, "http-service", Error, "hookauthz speaks gRPC: an HTTP service gets neither its context extensions nor whole headers.", "grpc_service: {envoy_grpc: {cluster_name: webhook_authz}, timeout: 2s}"},
	{ruleNoService, "no-service", Error, "Envoy loads a filter without a service, and crashes on the first request.", "grpc_service: {envoy_grpc: {cluster_name: webhook_authz}, timeout: 2s}"},
	{ruleAdmin, "admin-exposed", Error, "Whoever reaches the admin interface can stop Envoy, change runtime and read the configuration.", "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}"},
	{ruleRuntimeGuard, "runtime-guard", Error, "This runtime key turns a protection of Envoy off.", "remove the key from the runtime layer"},
	{ruleVersion, "old-envoy", Error, "Releases before 1.39.1 have holes that the authorizer cannot close, such as CVE-2026-73547 and CVE-2026-73548.", "run Envoy 1.39.1 or later"},
	{ruleNothing, "nothing-guarded", Error, "No route asks hookauthz: every request passes unchecked.", "put ext_authz into http_filters; `hookauthz envoy render` prints a complete configuration"},
	{ruleChunkedLength, "chunked-length", Error, "A request with both lengths can be two requests to the application, and only one is checked.", "allow_chunked_length: false"},
	{ruleAuthzReachable, "authz-reachable", Error, "Whoever reaches hookauthz can spend limits, burn delivery ids and try secrets.", "remove the route to the authorizer's cluster"},
	{ruleEarlyAnswer, "early-answer", Error, "A filter that answers before the Check answers to anybody.", "put the filter behind ext_authz"},

	{ruleNoBody, "no-body", Error, "Without the body there is nothing that a signature could hold for.", "with_request_body: {max_request_bytes: 1048576, allow_partial_message: false, pack_as_bytes: true}"},
	{rulePartialBody, "partial-body", Error, "A signature over the beginning of a body proves nothing.", "allow_partial_message: false"},
	{ruleStringBody, "string-body", Error, "As a string, each byte that is not UTF-8 arrives as `!`, so a signed `!` can be replaced unseen.", "`pack_as_bytes: true` in the filter: a route's is ignored"},
	{ruleRouteNoBody, "route-no-body", Error, "On this route there is nothing that a signature could hold for.", "remove disable_request_body_buffering"},
	{ruleRoutePartial, "route-partial-body", Error, "On this route a signature over the beginning of a body would count.", "allow_partial_message: false"},
	{ruleBodyChanged, "body-changed", Error, "The Check must see the bytes that the sender signed; a filter before it changes them.", "put the filter behind ext_authz"},
	{ruleHeaderChanged, "header-changed", Error, "A header that is set or removed before the Check is not what the sender signed, or lets anybody claim it.", "put the filter behind ext_authz, or leave signature headers alone"},
	{ruleHeadersHidden, "headers-hidden", Error, "Without these headers the authorizer cannot tell an upgrade or a cut body.", "remove allowed_headers and disallowed_headers; or let content-length, upgrade and every header that a scheme reads through"},
	{ruleMergedHeaders, "merged-headers", Warning, "Repeated headers arrive joined, so two signatures look like one that holds a comma.", "encode_raw_headers: true"},
	{ruleExternalProc, "external-processing", Error, "A service that runs before the Check can change what the sender signed.", "put the filter behind ext_authz"},
	{ruleNormalize, "path-not-normalized", Error, "Envoy picks the route by one spelling of the path and the application may serve another.", "normalize_path: true"},
	{ruleSlashesKept, "escaped-slashes", Error, "%2F passes as it is, and the application may take it for a slash.", "path_with_escaped_slashes_action: REJECT_REQUEST"},
	{ruleSlashesMoved, "escaped-slashes-rewritten", Warning, "The path is rewritten: a signed URL no longer holds, and a redirect is not followed by senders.", "path_with_escaped_slashes_action: REJECT_REQUEST"},
	{ruleMergeSlashes, "merge-slashes", Warning, "The path is rewritten before the Check, and a signed URL no longer holds.", "merge_slashes: false"},
	{ruleUnderscores, "underscores", Error, "x_hub_signature_256 is x-hub-signature-256 to some applications, and nobody checks it.", "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"},
	{rulePathParams, "path-parameters", Warning, "A path with ;parameters takes the route of one without, and the application may see another path than the route says.", "ignore_path_parameters_in_path_matching: false"},
	{ruleVerified, "verified-header", Error, "These headers tell the application that hookauthz verified the delivery; set by another they tell nothing.", "remove the header there: hookauthz sets it on what it has verified"},
	{ruleTarget, "open-target", Error, "A client that chooses the host or path which the application sees can have one webhook's delivery taken for another's.", "`route: {host_rewrite_literal: HOST}` or `route: {prefix_rewrite: PATH}`, or no rewrite"},

	{ruleRemoteAddress, "remote-address", Error, "At the edge Envoy believes what clients write into x-forwarded-for, x-request-id and its own x-envoy headers.", "use_remote_address: true"},
	{ruleHops, "trusted-hops", Warning, "The address is taken from x-forwarded-for of whoever connects, and nothing here limits who does.", "`xff_num_trusted_hops: 0`; behind N proxies N exactly, with `filter_chain_match: {direct_source_prefix_ranges: [...]}`"},
	{ruleClientHeader, "client-header", Error, "The client's own copy of the header survives, and its address can be made up.", "`append: {header: {key: x-hookauthz-client-ip, value: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}` in a header_mutation filter before ext_authz"},
	{ruleProxyOptional, "proxy-protocol-optional", Error, "Connections without the header count as well, with the address of whoever opens them.", "`allow_requests_without_proxy_protocol: false`, and `continue_on_listener_filters_timeout: false` in the listener"},
	{ruleProxyAnyone, "proxy-protocol-anyone", Error, "The header is not authenticated: whoever connects can claim any address.", "filter_chain_match: {direct_source_prefix_ranges: [{address_prefix: BALANCER, prefix_len: 32}]}"},
	{ruleDetection, "address-detection", Error, "The address is taken from a header of whoever connects, and nothing here limits who does.", "xff_trusted_cidrs with the proxies alone; or `filter_chain_match: {direct_source_prefix_ranges: [...]}`"},
	{ruleInternalAddrs, "internal-addresses", Error, "Requests from these addresses count as internal, and Envoy keeps their x-envoy headers, which change routes, timeouts and ids.", "internal_address_config with the addresses of your own machines alone"},
	{ruleSkipAppend, "forwarded-for-kept", Error, "The peer is not written down, so the last element of x-forwarded-for is the client's own.", "`skip_xff_append: false`, and nothing before ext_authz that sets x-forwarded-for to something else"},

	{rulePlainListener, "plain-listener", Warning, "Deliveries, tokens among them, cross the network in plain text.", "transport_socket with a DownstreamTlsContext, TLSv1_2 or later"},
	{ruleOldTLS, "old-tls", Error, "TLS before 1.2 can be broken on the way.", "tls_params: {tls_minimum_protocol_version: TLSv1_2}"},
	{ruleNoTLSVersion, "no-tls-version", Warning, "The minimum is above the maximum, so no handshake succeeds.", "tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}"},
	{ruleCiphers, "weak-cipher", Error, "The suite lacks forward secrecy or authenticated encryption.", "`cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-CHACHA20-POLY1305]`, or none"},
	{rulePlainAuthz, "plain-authz", Error, "Whoever stands on the way can answer in the authorizer's name, and an empty answer allows.", "a Unix socket; or transport_socket with an UpstreamTlsContext, TLSv1_3 and both certificates"},
	{ruleUnverified, "authz-unverified", Error, "Any certificate will do, so whoever stands on the way can answer in the authorizer's name.", "validation_context: {trusted_ca: {filename: ...}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: hookauthz}}]}"},
	{ruleAnyName, "authz-any-name", Error, "Every certificate of that authority will do, not the authorizer's alone.", "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: hookauthz}}]"},
	{ruleHTTP1, "authz-http1", Warning, "gRPC needs HTTP/2: every Check fails.", "explicit_http_config: {http2_protocol_options: {}}"},
	{ruleNoCluster, "authz-no-cluster", Warning, "Envoy loads it, and every Check fails.", "`cluster_name` with the name of a cluster that is there"},
	{ruleUntrusted, "untrusted-certificates", Error, "Certificates that do not hold are accepted.", "trust_chain_verification: VERIFY_TRUST_CHAIN, allow_expired_certificate: false"},
	{ruleClientCerts, "client-certificates", Error, "A client certificate is asked for and not verified.", "validation_context: {trusted_ca: {filename: ...}}"},
	{ruleNoCertificate, "authz-anonymous", Warning, "Off this machine hookauthz answers only whoever shows a certificate of its --tls-client-ca: without one every Check fails, or anybody may call it.", "tls_certificates: [{certificate_chain: {filename: ...}, private_key: {filename: ...}}]"},

	{ruleErrorStatus, "error-status", Warning, "The default for a failed Check is 403, on which many senders drop the delivery for good.", "status_on_error: {code: ServiceUnavailable}"},
	{ruleErrorTaken, "error-taken", Error, "A failed Check tells the sender that the delivery was taken: it is lost.", "status_on_error: {code: ServiceUnavailable}"},
	{ruleShortTimeout, "short-timeout", Warning, "The default of 200 ms is short for large bodies and a busy store.", "grpc_service: {timeout: 2s}"},
	{ruleLongTimeout, "long-timeout", Warning, "An authorizer that hangs holds every request and its body for as long.", "grpc_service: {timeout: 2s}"},
	{ruleMutations, "mutations-unchecked", Warning, "A header that is not valid would go out as it is.", "validate_mutations: true"},
	{ruleMutationRules, "no-mutation-rules", Warning, "Whoever answers Checks may change any header.", `decoder_header_mutation_rules: {disallow_all: true, allow_expression: {regex: "^x[^a-z0-9]hookauthz[^a-z0-9].*"}, disallow_is_error: true}`},
	{ruleOurHeaders, "our-headers-refused", Warning, "The rules refuse headers that hookauthz sets or removes, so allowed deliveries fail or lack them.", `decoder_header_mutation_rules: {disallow_all: true, allow_expression: {regex: "^x[^a-z0-9]hookauthz[^a-z0-9].*"}, disallow_is_error: true}`},
	{ruleRequestTimeout, "request-timeout", Warning, "A sender that is slow on purpose holds its connection and buffer for as long as it likes.", "request_timeout: 30s"},
	{ruleHeadersTimeout, "headers-timeout", Warning, "A client that never ends its headers holds its connection for as long as it likes.", "request_headers_timeout: 5s"},
	{ruleIdleTimeout, "idle-timeout", Warning, "Streams on which nothing moves are never closed.", "stream_idle_timeout: 30s"},
	{ruleTwoChecks, "two-authorizers", Warning, "Two ext_authz filters on one path overwrite each other's metadata and settings; a delivery is to be authorized at one hop only.", "keep one ext_authz filter"},
	{ruleLocalReply, "reply-rewritten", Warning, "A refusal that looks like success is a lost delivery, and another code may end retries.", "remove status_code from the mapper, or filter it so that ext_authz replies are not met"},
	{ruleRedirect, "internal-redirect", Warning, "A redirect of the application runs the same delivery through the Check a second time, as a replay.", "remove internal_redirect_policy from the hook routes"},
	{ruleMetadataLost, "metadata-ignored", Warning, "Reasons do not reach the access log, and outcomes cannot come back.", "enable_dynamic_metadata_ingestion: true"},
	{ruleAPIVersion, "api-version", Warning, "Envoy refuses V2, and what AUTO means depends on the release.", "transport_api_version: V3"},
	{ruleChargedStats, "charged-stats", Warning, "A flood of bad signatures looks like a failing application, to alerts and outlier detection alike.", "charge_cluster_response_stats: false"},
	{ruleAuthority, "authority", Warning, "gRPC servers refuse an authority that holds a `|`.", "envoy_grpc: {authority: hookauthz}"},
	{ruleDeadPeer, "dead-peer", Warning, "A connection that has died is noticed only by Checks that time out.", "`http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}`, and a grpc_health_check"},
	{ruleContinue, "expect-continue", Warning, "A sender that waits for a 100 waits for the application's, which hears of it only after the Check, which waits for the body.", "proxy_100_continue: false"},

	{ruleUnknownEndpoint, "unknown-endpoint", Warning, "Every delivery to this route is refused as no_policy.", "`context_extensions: {hookauthz.endpoint: NAME}`, where NAME is the metadata.name of a policy"},
	{ruleNoPolicy, "no-policy", Warning, "No policy is for the host and path of this route, so every delivery to it is refused.", "name a policy by context_extensions, or give a policy a match for it"},
	{ruleSmallBody, "small-body", Warning, "Envoy answers 413 to deliveries that the policy allows.", "`max_request_bytes` with the largest body.maxBytes of the policies"},
	{ruleLargeBody, "large-body", Warning, "The server takes no message of that size, so the Check fails in the place of a 413.", "`max_request_bytes` with at most the server's --max-body"},
	{ruleHeadersDropped, "headers-dropped", Warning, "The scheme of a policy reads a header that does not get through, so every delivery fails.", "add the header to allowed_headers, or remove the list"},
	{ruleRequestID, "request-id-replaced", Warning, "Envoy replaces x-request-id at the edge, and the scheme of a policy signs the sender's.", "preserve_external_request_id: true"},
	{ruleOutcomeLog, "no-outcome-log", Warning, "A policy awaits the application's answer, and no access log brings it: every delivery can be repeated.", "`access_log: [{name: envoy.access_loggers.http_grpc, ...}]` to the authorizer's cluster, as in docs/envoy.md"},
	{ruleNoClientHeader, "no-client-header", Error, "A policy believes a header that nothing here sets, so a client can claim any address.", "`append: {header: {key: x-hookauthz-client-ip, value: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}` in a header_mutation filter before ext_authz"},
	{ruleReservation, "short-reservation", Warning, "The reservation ends before the application must answer, so the same delivery can pass twice.", "`route: {timeout: 15s}`, at most the replay.reservation of the policy"},

	{ruleUnreadable, "unreadable", Error, "What cannot be read cannot be judged, and Envoy would refuse it or read it otherwise.", "write a value of that type, once"},
	{ruleUnknownField, "unknown-field", Warning, "Envoy 1.40 refuses fields that it does not know, and a newer one may do something that is not judged here.", "remove the field, or correct its name"},
	{ruleUnknownExtension, "unknown-extension", Warning, "What an unknown extension does to requests is not judged.", "make sure that it neither answers nor changes requests, nor hands them on"},
	{ruleElsewhere, "elsewhere", Warning, "What a control plane delivers is not in this file and is not judged.", "lint the running Envoy: `hookauthz envoy lint http://127.0.0.1:9901`; or save its `/config_dump?include_eds`"},
}
