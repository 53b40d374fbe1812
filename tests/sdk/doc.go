// Package sdk checks hookauthz against what others publish: what senders sign and verify their deliveries with, and the schema of SARIF.
package sdk
