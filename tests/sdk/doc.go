// Package sdk checks hookauthz against what senders publish to sign and verify their deliveries.
package sdk
