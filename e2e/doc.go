// Package e2e runs the built hookauthz behind a real Envoy, over real sockets on loopback, with the arguments and the Envoy
// configuration of docker-compose.yml. It holds tests only.
package e2e
