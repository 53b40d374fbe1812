// Package stack runs hookauthz as docker-compose.yml describes it, without containers and on loopback addresses only: the
// sample application, the built hookauthz and a real Envoy, each a process of its own.
//
// Arguments, environment and the Envoy configuration are read from docker-compose.yml and the files that it mounts. Only
// addresses, ports and the places of files differ.
package stack
