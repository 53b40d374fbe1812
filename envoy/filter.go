package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// partsOnly are the fields of the connection manager that stand on their own in the parts.
var partsOnly = map[string]bool{"route_config": true, "http_filters": true, "access_log": true, "stat_prefix": true}

// Filter is the parts for an Envoy that has listeners of its own, as a mapping with a key for each place.
func (p *Plan) Filter() (string, error) {
	h, err := p.connectionManager()
	if err != nil {
		return "", err
	}
	manager, err := p.checkedTree(h)
	if err != nil {
		return "", err
	}
	authz, err := p.authz()
	if err != nil {
		return "", err
	}
	clusters := &node{kind: listNode}
	for _, c := range []*clusterv3.Cluster{p.upstream(), authz} {
		n, err := p.checkedTree(c)
		if err != nil {
			return "", err
		}
		n.comment = p.remarks().item(c.ProtoReflect())
		clusters.items = append(clusters.items, n)
	}
	settings := &node{kind: mapNode}
	parts := make(map[string]field)
	for _, f := range manager.fields {
		if partsOnly[f.key] {
			parts[f.key] = f
			continue
		}
		settings.fields = append(settings.fields, f)
	}
	out := &node{kind: mapNode, fields: []field{
		{key: "http_connection_manager", value: settings, comment: "Fields of the HttpConnectionManager of every listener that reaches the application."},
		{key: "http_filters", value: parts["http_filters"].value, comment: "Its http_filters, in this order. What reads or changes bodies, paths or headers goes between ext_authz and the router."},
		{key: "access_log", value: parts["access_log"].value, comment: "Its access_log."},
		{key: "route_config", value: parts["route_config"].value, comment: "Its route_config. Any other route to the application is a way around, and so is another listener."},
		{key: "clusters", value: clusters, comment: "static_resources.clusters: the application, and hookauthz."},
	}}
	for i := range out.fields {
		out.fields[i].apart = i > 0
	}
	return p.head("Parts for an Envoy that exists; each key says where its value goes.") + out.print(), nil
}
