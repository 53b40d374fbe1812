package lint

import (
	"fmt"
	"net/netip"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// namedCluster is a cluster where a configuration names it.
type namedCluster struct {
	name string
	at   spot
}

// clustersNamed lists the clusters that the configuration of an extension names: those to which it hands requests, connections or
// datagrams, and not those of its services.
func (l *linter) clustersNamed(m proto.Message) []namedCluster {
	var found []namedCluster
	l.walk(m, func(inner proto.Message) {
		r := inner.ProtoReflect()
		kind := r.Descriptor()
		if kind.FullName().Parent() == "envoy.config.core.v3" || kind.FullName().Parent().Parent() == "envoy.config.core.v3" {
			return // the cluster of a gRPC or HTTP service
		}
		fields := []protoreflect.Name{"cluster", "cluster_name", "default_cluster", "clusters"}
		if kind.Name() == "ClusterWeight" || kind.Name() == "ClusterEntry" {
			fields = append(fields, "name")
		}
		for _, field := range fields {
			fd := kind.Fields().ByName(field)
			if fd == nil || fd.Kind() != protoreflect.StringKind || fd.IsMap() || !r.Has(fd) {
				continue
			}
			if !fd.IsList() {
				found = append(found, namedCluster{r.Get(fd).String(), l.at(inner, string(field))})
				continue
			}
			for i := range r.Get(fd).List().Len() {
				found = append(found, namedCluster{r.Get(fd).List().Get(i).String(), l.at(inner, string(field), i)})
			}
		}
	})
	return found
}

// rawClusters calls visit for each cluster to which a listener hands whole connections or datagrams.
func (l *linter) rawClusters(ln *listenerv3.Listener, visit func(namedCluster)) {
	var configs []proto.Message
	for _, f := range ln.GetListenerFilters() {
		configs = append(configs, l.inner[f.GetTypedConfig()])
	}
	for _, fc := range chainsOf(ln) {
		for _, f := range fc.GetFilters() {
			configs = append(configs, l.inner[l.networkConfig(f)])
		}
		l.stateClusters(fc, func(name string, at spot) {
			if !strings.Contains(name, "%") {
				visit(namedCluster{name, at})
			}
		})
	}
	for _, m := range configs {
		if _, isHTTP := m.(*hcmv3.HttpConnectionManager); isHTTP || m == nil {
			continue
		}
		for _, c := range l.clustersNamed(m) {
			visit(c)
		}
	}
}

// stateKey is the filter state by which tcp_proxy goes to another cluster than its own.
const stateKey = "envoy.tcp_proxy.cluster"

// stateClusters calls visit for what a chain writes where tcp_proxy looks for a cluster: a name, or a format.
func (l *linter) stateClusters(fc *listenerv3.FilterChain, visit func(format string, at spot)) {
	for _, f := range fc.GetFilters() {
		m, ok := opened[*networkstatev3.Config](l, l.networkConfig(f))
		if !ok {
			continue
		}
		l.walk(m, func(inner proto.Message) {
			if v, ok := inner.(*statev3.FilterStateValue); ok && v.GetObjectKey() == stateKey {
				visit(v.GetFormatString().GetTextFormatSource().GetInlineString(), l.at(v, "format_string"))
			}
		})
	}
}

// eachRaw calls visit for each cluster that takes raw connections from outside.
func (l *linter) eachRaw(visit func(namedCluster)) {
	for _, ln := range l.listeners {
		if !l.internal(ln) {
			l.rawClusters(ln, visit)
		}
	}
}

// openCluster says what of a request names the address that a cluster goes to; "" where nothing does.
func (l *linter) openCluster(c *clusterv3.Cluster) string {
	if lb := c.GetOriginalDstLbConfig(); lb.GetUseHttpHeader() {
		name := lb.GetHttpHeaderName()
		if name == "" {
			name = "x-envoy-original-dst-host"
		}
		return fmt.Sprintf("the request header %q", name)
	}
	if c.GetOriginalDstLbConfig().GetMetadataKey() != nil {
		return anExtension
	}
	if _, ok := l.inner[c.GetClusterType().GetTypedConfig()].(*dfpv3.ClusterConfig); ok {
		return "the host of the request"
	}
	return ""
}

// upstreams are the addresses that a cluster reaches, and the cluster itself.
func (l *linter) upstreams(name string) map[string]bool { return l.reached(name, l.reach, false) }

// unchecked are the upstreams that requests to a cluster reach without a Check on an internal listener.
func (l *linter) unchecked(name string) map[string]bool {
	return l.reached(name, l.reachUnchecked, true)
}

func (l *linter) reached(name string, known map[string]map[string]bool, unchecked bool) map[string]bool {
	keys, ok := known[name]
	if !ok {
		keys = make(map[string]bool)
		l.collect(name, unchecked, keys)
		known[name] = keys
	}
	return keys
}

func (l *linter) collect(name string, unchecked bool, keys map[string]bool) {
	if name == "" || keys["cluster "+name] {
		return
	}
	c := l.clusters[name]
	var inner []string
	addresses := l.addresses(c)
	for _, a := range addresses {
		if to := a.GetEnvoyInternalAddress().GetServerListenerName(); to != "" {
			inner = append(inner, to)
		} else if key := addressKey(a); key != "" {
			keys[key] = true
		}
	}
	open := false
	for _, to := range inner {
		open = l.collectInternal(to, unchecked, keys) || open
	}
	if len(inner) > 0 && len(inner) == len(addresses) && !open {
		return // every way through is checked there
	}
	keys["cluster "+name] = true
	if port := c.GetOriginalDstLbConfig().GetUpstreamPortOverride(); port != nil && unchecked {
		l.collectPort(port.GetValue(), keys)
	}
	for _, member := range l.clustersNamed(l.inner[c.GetClusterType().GetTypedConfig()]) {
		l.collect(member.name, unchecked, keys)
	}
	if service := c.GetEdsClusterConfig().GetServiceName(); service != "" {
		keys["service "+service] = true
	} else if c.GetType() == clusterv3.Cluster_EDS {
		keys["service "+name] = true
	}
}

// collectPort adds every known address with a port: where the client's own destination counts, any may be it.
func (l *linter) collectPort(port uint32, keys map[string]bool) {
	for _, c := range l.clusters {
		for _, a := range l.addresses(c) {
			if s := a.GetSocketAddress(); s != nil && s.GetPortValue() == port {
				keys[addressKey(a)] = true
			}
		}
	}
}

// collectInternal adds what an internal listener reaches. open says whether a request gets through.
func (l *linter) collectInternal(name string, unchecked bool, keys map[string]bool) (open bool) {
	if keys["listener "+name] {
		return true
	}
	for _, ln := range l.listeners {
		if ln.GetName() != name {
			continue
		}
		l.rawClusters(ln, func(c namedCluster) {
			open = true
			l.collect(c.name, unchecked, keys)
		})
		for _, w := range l.ways {
			if w.chain.listener == ln && !(unchecked && w.guarded) {
				open = true
				keys["listener "+name] = true
				l.collect(w.cluster, unchecked, keys)
			}
		}
	}
	if open {
		keys["listener "+name] = true
	}
	return open
}

// addresses are the addresses of a cluster's endpoints, as far as they are known.
func (l *linter) addresses(c *clusterv3.Cluster) []*corev3.Address {
	var found []*corev3.Address
	l.eachEndpoint(c, func(e *endpointv3.LbEndpoint) { found = append(found, endpointAddresses(e)...) })
	return found
}

// eachEndpoint calls visit for each endpoint of a cluster that is known.
func (l *linter) eachEndpoint(c *clusterv3.Cluster, visit func(*endpointv3.LbEndpoint)) {
	assignments := []*endpointv3.ClusterLoadAssignment{c.GetLoadAssignment(), l.endpoints[c.GetName()]}
	if service := c.GetEdsClusterConfig().GetServiceName(); service != "" && service != c.GetName() {
		assignments = append(assignments, l.endpoints[service])
	}
	for _, assignment := range assignments {
		for _, locality := range assignment.GetEndpoints() {
			for _, e := range locality.GetLbEndpoints() {
				visit(e)
			}
		}
	}
}

func endpointAddresses(e *endpointv3.LbEndpoint) []*corev3.Address {
	var found []*corev3.Address
	if a := e.GetEndpoint().GetAddress(); a != nil {
		found = append(found, a)
	}
	for _, more := range e.GetEndpoint().GetAdditionalAddresses() {
		found = append(found, more.GetAddress())
	}
	return found
}

// addressText shows an address; "" where it has none that can be shown.
func addressText(a *corev3.Address) string {
	if p := a.GetPipe(); p != nil {
		return "pipe " + p.GetPath()
	}
	s := a.GetSocketAddress()
	if s == nil {
		return ""
	}
	if s.GetNamedPort() != "" {
		return s.GetAddress() + ":" + s.GetNamedPort()
	}
	return fmt.Sprintf("%s:%d", s.GetAddress(), s.GetPortValue())
}

// addressKey is the same for addresses that are the same, as far as names tell; "" where there is none.
func addressKey(a *corev3.Address) string {
	s := a.GetSocketAddress()
	if s == nil {
		return addressText(a)
	}
	host := strings.ToLower(strings.TrimSuffix(s.GetAddress(), "."))
	// Names of one Kubernetes service.
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	switch host {
	case "localhost", "::1", "0.0.0.0", "::": // to connect to any address is to connect to this machine
		host = "127.0.0.1"
	}
	if s.GetNamedPort() != "" {
		return host + ":" + s.GetNamedPort()
	}
	return fmt.Sprintf("%s:%d", host, s.GetPortValue())
}

// local says whether only this machine reaches an address.
func local(a *corev3.Address) bool {
	if a.GetPipe() != nil || a.GetEnvoyInternalAddress() != nil {
		return true
	}
	return localHost(a.GetSocketAddress().GetAddress())
}

func localHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// localListener says whether only this machine reaches a listener.
func localListener(ln *listenerv3.Listener) bool {
	for _, a := range ln.GetAdditionalAddresses() {
		if !local(a.GetAddress()) {
			return false
		}
	}
	return ln.GetApiListener() == nil && local(ln.GetAddress())
}

// internal says whether a listener takes connections from this Envoy only.
func (l *linter) internal(ln *listenerv3.Listener) bool {
	return ln.GetInternalListener() != nil || ln.GetAddress().GetEnvoyInternalAddress() != nil
}
