package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// envoy is a running Envoy with three listeners, which differ in their authorizer: none, the no-op and hookauthz.
type envoy struct {
	*process
	listeners map[string]string // name -> address
}

// The names of its listeners; hookauthz's is the one that render writes.
const (
	hookListener = "hooks"
	noopListener = "no-op"
	bareListener = "no filter"
)

const authzFilter = "envoy.filters.http.ext_authz"

// startEnvoy runs Envoy as `hookauthz envoy render` configures it.
func (b *bench) startEnvoy(ctx context.Context, noop, hook *server) (*envoy, error) {
	path, err := b.tool(ctx, "envoy")
	if err != nil {
		return nil, err
	}
	app, err := startApplication()
	if err != nil {
		return nil, err
	}
	b.application = app
	admin := b.freeAddress()
	config, err := b.renderEnvoy(ctx, hook, app.listener.Addr().String(), admin)
	if err != nil {
		return nil, err
	}
	if err := addListeners(config, noop.address); err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "envoy.json")
	if err := config.Write(file); err != nil {
		return nil, err
	}
	e := &envoy{}
	if e.process, err = start("envoy", nil, nil, path, "-c", file, "--use-dynamic-base-id", "--log-level", "warn"); err != nil {
		return nil, err
	}
	b.running = append(b.running, e.process)
	return e, e.wait(ctx, func() error { return e.ready(ctx, admin) })
}

func (b *bench) renderEnvoy(ctx context.Context, hook *server, upstream, admin string) (*stack.EnvoyConfig, error) {
	cmd := exec.CommandContext(ctx, b.server, "envoy", "render", "--policies", filepath.Dir(hook.policyFile()), "--upstream", upstream,
		"--listen", b.freeAddress(), "--authz", hook.address, "--admin-port", admin[strings.LastIndexByte(admin, ':')+1:])
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("hookauthz envoy render: %w", err)
	}
	config := new(stack.EnvoyConfig)
	return config, yaml.Unmarshal(text, &config.Tree)
}

// addListeners adds the two listeners that hookauthz is compared with.
func addListeners(config *stack.EnvoyConfig, noop string) error {
	host, port, _ := strings.Cut(noop, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	resources := config.Tree["static_resources"].(map[string]any)
	text, err := json.Marshal(config.Cluster("webhook_authz"))
	if err != nil {
		return err
	}
	var cluster map[string]any
	if err := json.Unmarshal(text, &cluster); err != nil {
		return err
	}
	cluster["name"] = "noop"
	cluster["load_assignment"] = map[string]any{"cluster_name": "noop", "endpoints": []any{map[string]any{"lb_endpoints": []any{map[string]any{
		"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": host, "port_value": number}}}}}}}}
	resources["clusters"] = append(resources["clusters"].([]any), cluster)

	config.AddListener(noopListener).Filter(authzFilter)["grpc_service"].(map[string]any)["envoy_grpc"].(map[string]any)["cluster_name"] = "noop"

	hcm := config.AddListener(bareListener).HCM()
	hcm["http_filters"] = slices.DeleteFunc(hcm["http_filters"].([]any), func(f any) bool { return f.(map[string]any)["name"] == authzFilter })
	for _, host := range hcm["route_config"].(map[string]any)["virtual_hosts"].([]any) {
		for _, route := range host.(map[string]any)["routes"].([]any) {
			delete(route.(map[string]any), "typed_per_filter_config")
		}
	}
	return nil
}

// ready looks whether Envoy serves, and where.
func (e *envoy) ready(ctx context.Context, admin string) error {
	if text, err := ask(ctx, "http://"+admin+"/ready"); err != nil || text != "LIVE\n" {
		return fmt.Errorf("not ready: %q (%v)", text, err)
	}
	text, err := ask(ctx, "http://"+admin+"/listeners")
	if err != nil {
		return err
	}
	e.listeners = make(map[string]string)
	for line := range strings.Lines(text) {
		if name, address, ok := strings.Cut(strings.TrimSpace(line), "::"); ok {
			e.listeners[name] = address
		}
	}
	if len(e.listeners) != 3 {
		return fmt.Errorf("listeners %v, want 3", e.listeners)
	}
	text, err = ask(ctx, "http://"+admin+"/clusters")
	if err == nil && strings.Count(text, "::health_flags::healthy") < 3 {
		err = fmt.Errorf("an authorizer is not healthy")
	}
	return err
}

func ask(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}
