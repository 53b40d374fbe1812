package stack

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EnvoyConfig is an Envoy bootstrap file as a tree. Its maps may be changed in place.
type EnvoyConfig struct{ Tree map[string]any }

// ReadEnvoy reads a bootstrap file and puts other addresses and folders into it. Every one must occur.
func ReadEnvoy(path string, addresses, folders map[string]string) (*EnvoyConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(EnvoyConfig)
	if err := yaml.Unmarshal(text, &c.Tree); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := substitution{addresses: addresses, folders: folders, used: make(map[string]bool)}
	if err := s.walk(c.Tree); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, words := range []map[string]string{addresses, folders} {
		for word := range words {
			if !s.used[word] {
				return nil, fmt.Errorf("%s: no %q to replace", path, word)
			}
		}
	}
	return c, nil
}

// substitution replaces addresses ("host:port") of socket addresses, and folders at the begin of file names.
type substitution struct {
	addresses, folders map[string]string
	used               map[string]bool
}

func (s substitution) walk(node any) error {
	switch n := node.(type) {
	case []any:
		for _, e := range n {
			if err := s.walk(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, value := range n {
			if sa, ok := value.(map[string]any); ok && key == "socket_address" {
				if err := s.address(n, sa); err != nil {
					return err
				}
			} else if name, ok := value.(string); ok && key == "filename" {
				n[key] = s.file(name)
			} else if err := s.walk(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// address replaces the socket address in parent; "unix:/path" puts a pipe there.
func (s substitution) address(parent, sa map[string]any) error {
	from := fmt.Sprintf("%v:%v", sa["address"], sa["port_value"])
	to, ok := s.addresses[from]
	if !ok {
		return fmt.Errorf("nothing to put in the place of the address %q", from)
	}
	s.used[from] = true
	if path, ok := strings.CutPrefix(to, "unix:"); ok {
		delete(parent, "socket_address")
		parent["pipe"] = map[string]any{"path": path}
		return nil
	}
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	sa["address"], sa["port_value"] = host, n
	return nil
}

func (s substitution) file(name string) string {
	for from, to := range s.folders {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			s.used[from] = true
			return to + "/" + rest
		}
	}
	return name
}

// Write writes the configuration as JSON, which Envoy takes as well.
func (c *EnvoyConfig) Write(path string) error {
	text, err := json.MarshalIndent(c.Tree, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Cluster is the cluster of this name.
func (c *EnvoyConfig) Cluster(name string) map[string]any {
	for _, cluster := range at[[]any](c.Tree, "static_resources", "clusters") {
		if cluster := cluster.(map[string]any); cluster["name"] == name {
			return cluster
		}
	}
	panic("no cluster " + name)
}

// AddCluster adds a cluster.
func (c *EnvoyConfig) AddCluster(cluster map[string]any) {
	resources := at[map[string]any](c.Tree, "static_resources")
	resources["clusters"] = append(resources["clusters"].([]any), cluster)
}

// Listener is one listener of the configuration.
type Listener struct{ tree map[string]any }

// Listener is the first listener of the file.
func (c *EnvoyConfig) Listener() Listener {
	return Listener{at[map[string]any](c.Tree, "static_resources", "listeners", 0)}
}

// AddListener adds a copy of the first listener, on a port of its own, for changes.
func (c *EnvoyConfig) AddListener(name string) Listener {
	l := Listener{deepCopy(c.Listener().tree).(map[string]any)}
	l.tree["name"] = name
	at[map[string]any](l.tree, "address", "socket_address")["port_value"] = 0
	resources := at[map[string]any](c.Tree, "static_resources")
	resources["listeners"] = append(resources["listeners"].([]any), l.tree)
	return l
}

// HCM is the listener's HTTP connection manager.
func (l Listener) HCM() map[string]any {
	return at[map[string]any](l.tree, "filter_chains", 0, "filters", 0, "typed_config")
}

// TLS holds the tls_params of the listener.
func (l Listener) TLS() map[string]any {
	return at[map[string]any](l.tree, "filter_chains", 0, "transport_socket", "typed_config", "common_tls_context", "tls_params")
}

// Filter is the configuration of the HTTP filter of this name.
func (l Listener) Filter(name string) map[string]any {
	for _, f := range at[[]any](l.HCM(), "http_filters") {
		if f := f.(map[string]any); f["name"] == name {
			return f["typed_config"].(map[string]any)
		}
	}
	panic("no HTTP filter " + name)
}

// AddRoute adds a route for a path like those in the file: to the application, under the policy of this name. The path may end in
// "*" for a prefix; without a policy's name the authorizer finds the policy by host and path.
func (l Listener) AddRoute(path, endpoint string) {
	host := at[map[string]any](l.HCM(), "route_config", "virtual_hosts", 0)
	routes := host["routes"].([]any)
	route := deepCopy(routes[0]).(map[string]any)
	route["match"] = map[string]any{"path": path}
	if prefix, ok := strings.CutSuffix(path, "*"); ok {
		route["match"] = map[string]any{"prefix": prefix}
	}
	if endpoint == "" {
		delete(route, "typed_per_filter_config")
	} else {
		at[map[string]any](route, "typed_per_filter_config", "envoy.filters.http.ext_authz", "check_settings", "context_extensions")["hookauthz.endpoint"] = endpoint
	}
	host["routes"] = append(routes, route)
}

// SetDomains says for which hosts the listener's routes hold.
func (l Listener) SetDomains(domains ...any) {
	at[map[string]any](l.HCM(), "route_config", "virtual_hosts", 0)["domains"] = domains
}

// at follows keys and indexes down a tree that is known to hold them.
func at[T any](node any, path ...any) T {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			node = node.(map[string]any)[s]
		case int:
			node = node.([]any)[s]
		}
	}
	return node.(T)
}

func deepCopy(node any) any {
	switch n := node.(type) {
	case map[string]any:
		m := make(map[string]any, len(n))
		for k, v := range n {
			m[k] = deepCopy(v)
		}
		return m
	case []any:
		s := make([]any, len(n))
		for i, v := range n {
			s[i] = deepCopy(v)
		}
		return s
	}
	return node
}
