package e2e

import (
	"maps"
	"slices"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// The secrets of testdata/policies. Every one is looked for in all that the programs write.
const (
	secret        = "e2e-current-secret-5f0b7a"
	expiredSecret = "e2e-expired-secret-91c3d2"
	leakedSecret  = "e2e-leaked-secret-77aa01"
	githubSecret  = "It's a Secret to Everybody"
	stripeSecret  = "whsec_00978109cfe549c69d5b6fe3e54a2855" // examples/secrets/stripe-2026-10
	stripeOld     = "whsec_7e4d3f2b8aa292e3bd61d4d96c3a7895" // examples/secrets/stripe-2026-04
	slackSecret   = "f702dc0c1ba6c76a2a01321f4e0af733"       // examples/secrets/slack
	ordersSecret  = "whsec_Iv+WmIx5BQ37fZ2bsb7+Ja3KTEwWsoUt" // examples/secrets/orders
	gitlabSecret  = "example-gitlab-3c21bdf3995eb316a83730a5"
	partnerSecret = "example-partner-63ecae60f0b39c87c80142d7"
	billingSecret = "example-billing-9c62a8245f7f102a17127551"
)

var secretEnv = []string{"E2E_SECRET=" + secret, "E2E_EXPIRED=" + expiredSecret, "E2E_LEAKED=" + leakedSecret}

// routes are the policies of testdata/policies by the path of their route.
var routes = map[string]string{
	"/e2e/raw": "raw",
}

func addRoutesAndListeners(c *stack.EnvoyConfig) {
	hooks := c.Listener()
	for _, path := range slices.Sorted(maps.Keys(routes)) {
		hooks.AddRoute(path, routes[path])
	}
}
