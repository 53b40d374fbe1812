package e2e

import (
	"github.com/hookauthz/hookauthz/e2e/stack"
)

// endpoints are the policies of testdata/policies that have a route, at /e2e/NAME.
var endpoints = []string{
	"raw", "checked", "empty", "stamped", "versions", "no-secret", "burst", "per-address", "failing", "guessing", "once",
	"confirmed", "acknowledged", "shadowed", "peers", "proxied", "hops", "by-header",
}

// addRoutesAndListeners adds a route for each policy of the tests, and a listener for each wiring that is not the example's.
func addRoutesAndListeners(c *stack.EnvoyConfig) {
	hooks := c.Listener()
	for _, name := range endpoints {
		hooks.AddRoute("/e2e/"+name, name)
	}
	// A route that names a policy which does not exist, and one whose policy has another path.
	hooks.AddRoute("/e2e/nobody", "nobody")
	hooks.AddRoute("/e2e/elsewhere", "raw")

	// Envoy lets header names with underscores through.
	delete(c.AddListener("underscores").HCM(), "common_http_protocol_options")

	// Envoy takes websocket upgrades.
	upgrades := c.AddListener("upgrades").HCM()
	upgrades["upgrade_configs"] = []any{map[string]any{"upgrade_type": "websocket"}}
	upgrades["http2_protocol_options"].(map[string]any)["allow_connect"] = true

	// The body goes to the authorizer as text.
	text := c.AddListener("text").Filter("envoy.filters.http.ext_authz")
	text["with_request_body"].(map[string]any)["pack_as_bytes"] = false

	// Headers go to the authorizer merged, as Istio has them.
	c.AddListener("merged").Filter("envoy.filters.http.ext_authz")["encode_raw_headers"] = false

	// Bodies are cut off for the authorizer.
	partial := c.AddListener("partial").Filter("envoy.filters.http.ext_authz")
	partial["with_request_body"] = map[string]any{"max_request_bytes": 4096, "allow_partial_message": true, "pack_as_bytes": true}

	// Envoy gives paths on as they are, and the authorizer finds the policy by them.
	paths := c.AddListener("paths")
	paths.HCM()["normalize_path"] = false
	paths.HCM()["path_with_escaped_slashes_action"] = "KEEP_UNCHANGED"
	paths.SetDomains("*")
	paths.AddRoute("/named/*", "raw")
	paths.AddRoute("/*", "")

	// TLS that the example refuses, to show that the client of the tests can do it.
	old := c.AddListener("old-tls").TLS()
	old["tls_minimum_protocol_version"] = "TLSv1_0"
	old["cipher_suites"] = []any{"ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-GCM-SHA256"}
}
