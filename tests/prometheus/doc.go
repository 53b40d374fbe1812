// Package prometheus checks alert rules and dashboard with Prometheus's own packages, against a server that runs.
package prometheus
