package lint

import (
	"errors"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// view is what an Envoy runs with, from either kind of source.
type view struct {
	bootstrap *bootstrapv3.Bootstrap
	listeners []*listenerv3.Listener
	clusters  map[string]*clusterv3.Cluster
	routes    map[string]*routev3.RouteConfiguration         // those that are discovered
	scopes    map[string][]*routev3.ScopedRouteConfiguration // by the name of their collection
	filters   map[string]*corev3.TypedExtensionConfig        // those that are discovered
	endpoints map[string]*endpointv3.ClusterLoadAssignment
	secrets   map[string]*tlsv3.Secret
}

func newView() view {
	return view{
		bootstrap: new(bootstrapv3.Bootstrap),
		clusters:  make(map[string]*clusterv3.Cluster),
		routes:    make(map[string]*routev3.RouteConfiguration),
		scopes:    make(map[string][]*routev3.ScopedRouteConfiguration),
		filters:   make(map[string]*corev3.TypedExtensionConfig),
		endpoints: make(map[string]*endpointv3.ClusterLoadAssignment),
		secrets:   make(map[string]*tlsv3.Secret),
	}
}

func newDecoder(s *source, report func(string, spot, string)) decoder {
	return decoder{source: s, report: report, spots: make(map[proto.Message]spot), inner: make(map[*anypb.Any]proto.Message)}
}

// read turns the tree into a view.
func (l *linter) read(root *yaml.Node) error {
	l.view = newView()
	root = resolve(root)
	if root == nil || root.Kind != yaml.MappingNode {
		return errors.New("it is not a map")
	}
	whole := spot{l.source, nil, root, ""}
	if _, ok := whole.field("configs"); ok {
		l.source.dump = true
		return l.readDump(root)
	}
	if err := resembles(root, new(bootstrapv3.Bootstrap)); err != nil {
		return err
	}
	if err := l.open(root, l.bootstrap, ""); err != nil {
		return err
	}
	l.static()
	return nil
}

// resembles has no complaint where most keys of a map are fields of a message. Other pages of the admin interface have one at most.
func resembles(n *yaml.Node, m proto.Message) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	known, unknown := 0, 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i]; {
		case key.Tag == ignoredTag:
		case fields.ByTextName(key.Value) != nil || fields.ByJSONName(key.Value) != nil:
			known++
		default:
			unknown++
		}
	}
	switch {
	case known == 0:
		return errors.New("none of its keys is one of a bootstrap (static_resources, dynamic_resources, admin, ...) or of a config_dump (configs)")
	case known < unknown:
		return errors.New("most of its keys are none of a bootstrap (static_resources, dynamic_resources, admin, ...)")
	}
	return nil
}

// static takes what the bootstrap holds itself.
func (l *linter) static() {
	resources := l.bootstrap.GetStaticResources()
	l.listeners = append(l.listeners, resources.GetListeners()...)
	for _, c := range resources.GetClusters() {
		l.addCluster(c)
	}
	for _, s := range resources.GetSecrets() {
		l.secrets[s.GetName()] = s
	}
}

func (l *linter) addCluster(c *clusterv3.Cluster) {
	if l.clusters[c.GetName()] == nil {
		l.clusters[c.GetName()] = c
	}
}

// opened is the message within an Any, where it is of type T.
func opened[T proto.Message](l *linter, a *anypb.Any) (T, bool) {
	m, ok := l.inner[a].(T)
	return m, ok
}

func (l *linter) readDump(root *yaml.Node) error {
	dump := new(adminv3.ConfigDump)
	if err := l.open(root, dump, ""); err != nil {
		return err
	}
	known, listeners, clusters := false, false, false
	for _, a := range dump.GetConfigs() {
		switch m := l.inner[a].(type) {
		case *adminv3.BootstrapConfigDump:
			known = true
			if m.GetBootstrap() != nil {
				l.bootstrap = m.GetBootstrap()
			}
		case *adminv3.ListenersConfigDump:
			known, listeners = true, true
			l.dumpedListeners(m)
		case *adminv3.ListenersConfigDump_StaticListener: // what ?resource= dumps
			known, listeners = true, true
			l.dumpedListeners(&adminv3.ListenersConfigDump{StaticListeners: []*adminv3.ListenersConfigDump_StaticListener{m}})
		case *adminv3.ListenersConfigDump_DynamicListener:
			known, listeners = true, true
			l.dumpedListeners(&adminv3.ListenersConfigDump{DynamicListeners: []*adminv3.ListenersConfigDump_DynamicListener{m}})
		case *adminv3.ClustersConfigDump:
			known, clusters = true, true
			l.dumpedClusters(m)
		case *adminv3.RoutesConfigDump:
			known = true
			for _, r := range m.GetDynamicRouteConfigs() {
				if c, ok := opened[*routev3.RouteConfiguration](l, r.GetRouteConfig()); ok {
					l.routes[c.GetName()] = c
				}
			}
		case *adminv3.ScopedRoutesConfigDump:
			known = true
			for _, s := range m.GetDynamicScopedRouteConfigs() {
				for _, a := range s.GetScopedRouteConfigs() {
					if c, ok := opened[*routev3.ScopedRouteConfiguration](l, a); ok {
						l.scopes[s.GetName()] = append(l.scopes[s.GetName()], c)
					}
				}
			}
		case *adminv3.EcdsConfigDump:
			known = true
			for _, f := range m.GetEcdsFilters() {
				if c, ok := opened[*corev3.TypedExtensionConfig](l, f.GetEcdsFilter()); ok {
					l.filters[c.GetName()] = c
				}
			}
		case *adminv3.EndpointsConfigDump:
			known = true
			for _, e := range m.GetStaticEndpointConfigs() {
				l.addEndpoints(e.GetEndpointConfig())
			}
			for _, e := range m.GetDynamicEndpointConfigs() {
				l.addEndpoints(e.GetEndpointConfig())
			}
		case *adminv3.SecretsConfigDump:
			known = true
			for _, s := range m.GetStaticSecrets() {
				l.addSecret(s.GetSecret())
			}
			for _, s := range m.GetDynamicActiveSecrets() {
				l.addSecret(s.GetSecret())
			}
		}
	}
	if !known {
		return errors.New("its configs hold no part of a config_dump")
	}
	// A dump that was cut down to its bootstrap still has what is static.
	resources := l.bootstrap.GetStaticResources()
	if !listeners {
		l.listeners = resources.GetListeners()
	}
	if !clusters {
		for _, c := range resources.GetClusters() {
			l.addCluster(c)
		}
	}
	return nil
}

func (l *linter) dumpedListeners(m *adminv3.ListenersConfigDump) {
	var all []*anypb.Any
	for _, s := range m.GetStaticListeners() {
		all = append(all, s.GetListener())
	}
	for _, d := range m.GetDynamicListeners() {
		// What warms up will be in force.
		all = append(all, d.GetActiveState().GetListener(), d.GetWarmingState().GetListener())
	}
	for _, a := range all {
		if m, ok := opened[*listenerv3.Listener](l, a); ok {
			l.listeners = append(l.listeners, m)
		}
	}
}

func (l *linter) dumpedClusters(m *adminv3.ClustersConfigDump) {
	var all []*anypb.Any
	for _, c := range m.GetStaticClusters() {
		all = append(all, c.GetCluster())
	}
	for _, list := range [][]*adminv3.ClustersConfigDump_DynamicCluster{m.GetDynamicActiveClusters(), m.GetDynamicWarmingClusters()} {
		for _, c := range list {
			all = append(all, c.GetCluster())
		}
	}
	for _, a := range all {
		if c, ok := opened[*clusterv3.Cluster](l, a); ok {
			l.addCluster(c)
		}
	}
}

func (l *linter) addEndpoints(a *anypb.Any) {
	if e, ok := opened[*endpointv3.ClusterLoadAssignment](l, a); ok {
		l.endpoints[e.GetClusterName()] = e
	}
}

func (l *linter) addSecret(a *anypb.Any) {
	if s, ok := opened[*tlsv3.Secret](l, a); ok {
		l.secrets[s.GetName()] = s
	}
}

// at is the place of a message, or of a value below it; the message's where the value is not written.
func (l *linter) at(m proto.Message, steps ...any) spot { return l.spots[m].at(steps...) }

// version is the release of Envoy that a dump comes from.
func (l *linter) version() (major, minor, patch uint32, at spot, ok bool) {
	node := l.bootstrap.GetNode()
	v := node.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return 0, 0, 0, spot{}, false
	}
	return v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch(), l.at(node, "user_agent_build_version", "version"), true
}
