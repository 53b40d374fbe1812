// Package policy decides about webhook deliveries.
//
// Load turns a folder of policy files into a Set, which never changes. An Engine holds the Set in force and decides about one
// Request at a time; the zero Decision denies. The package knows no gRPC, no Envoy and no Redis; time is passed in.
package policy
