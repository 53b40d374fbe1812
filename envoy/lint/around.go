package lint

import (
	"maps"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	sniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
)

// protected are the upstreams that hook routes reach.
func (l *linter) protected() map[string]bool {
	keys := make(map[string]bool)
	add := func(w *way) { maps.Copy(keys, l.upstreams(w.cluster)) }
	for _, w := range l.ways {
		if w.guarded || l.namesEndpoint(w) {
			add(w)
		}
	}
	if len(keys) > 0 {
		return keys
	}
	// Nothing is guarded: what was meant to be is what a chain with the filter reaches.
	for _, w := range l.ways {
		for _, z := range w.chain.authz {
			if z.ours {
				add(w)
			}
		}
	}
	return keys
}

// namesEndpoint says whether a way has our context extension under any name of a filter.
func (l *linter) namesEndpoint(w *way) bool {
	for _, level := range w.levels() {
		for name := range level.settings {
			if _, ok := l.settingsFor(w, name).context[endpointKey]; ok {
				return true
			}
		}
	}
	return false
}

func overlap(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// judgeWays reports every way to a protected upstream that no Check guards.
func (l *linter) judgeWays() {
	protected := l.protected()
	for _, w := range l.ways {
		l.judgeWay(w, protected)
	}
	for _, ln := range l.listeners {
		l.judgeRaw(ln, protected)
	}
	l.judgeUnknown()
}

// judgeUnknown reports, once, that there are ways without a Check of which nobody can tell whether they reach what webhooks reach: the
// addresses are not here.
func (l *linter) judgeUnknown() {
	var hooks, others []string
	for _, w := range l.ways {
		switch {
		case w.cluster == "":
		case w.guarded:
			hooks = append(hooks, w.cluster)
		case !l.internal(w.chain.listener):
			others = append(others, w.cluster)
		}
	}
	l.eachRaw(func(c namedCluster) { others = append(others, c.name) })
	if len(hooks) == 0 || len(others) == 0 {
		return
	}
	for _, name := range append(hooks, others...) {
		c := l.clusters[name]
		if c.GetType() == clusterv3.Cluster_EDS && len(l.addresses(c)) == 0 {
			l.reportf(ruleElsewhere, l.at(c), "the endpoints of cluster %q are delivered by a control plane and are not here: whether other clusters have the same cannot be told", name)
			return
		}
	}
}

func (l *linter) judgeWay(w *way, protected map[string]bool) {
	if l.internal(w.chain.listener) {
		return // no client can connect to it; what its cluster reaches counts for those who route there
	}
	chooser := w.chooser
	if chooser == "" {
		chooser = l.openCluster(l.clusters[w.cluster])
	}
	if w.guarded {
		if chooser != "" && chooser != anExtension {
			l.reportf(ruleOpenCluster, w.at, "behind the Check %s says where the request goes: one policy's delivery can reach what is another's", chooser)
		}
		return
	}
	l.judgeMirrors(w, protected)
	if chooser != "" {
		l.reportf(ruleOpenCluster, w.at, "%s says where the request goes, on a route without a Check", chooser)
		return
	}
	if !overlap(l.unchecked(w.cluster), protected) {
		return
	}
	for _, z := range w.chain.authz {
		if !z.ours {
			continue
		}
		at, _ := l.off(w, z.filter)
		if l.settingsFor(w, z.filter.GetName()).disabled {
			l.reportf(ruleDisabled, at, "ext_authz is off on a route to %q, which webhooks reach", w.cluster)
		} else {
			l.reportf(ruleFilterOff, at, "ext_authz is off unless a route turns it on, and a route to %q does not", w.cluster)
		}
		return
	}
	if w.chain.upgrade != nil {
		l.reportf(ruleUpgradeChain, w.chain.httpAt, "%s upgrades run these filters only: no ext_authz on the way to %q", w.chain.upgrade.GetUpgradeType(), w.cluster)
		return
	}
	l.reportf(ruleNoFilter, w.chain.httpAt, "listener %q reaches %q, as webhooks do, without ext_authz", w.chain.name(), w.cluster)
}

// judgeMirrors reports copies of unchecked requests that go to a protected upstream, or wherever the client says.
func (l *linter) judgeMirrors(w *way, protected map[string]bool) {
	for _, m := range mirrors(w) {
		switch {
		case m.GetClusterHeader() != "":
			l.reportf(ruleMirror, l.at(m, "cluster_header"), "the request header %q says where copies of unchecked requests go", m.GetClusterHeader())
		case overlap(l.unchecked(m.GetCluster()), protected):
			l.reportf(ruleMirror, l.at(m, "cluster"), "copies of unchecked requests go to %q, which webhooks reach", m.GetCluster())
		}
	}
}

// mirrors are the policies that copy the requests of a way: the most specific level that has some.
func mirrors(w *way) []*routev3.RouteAction_RequestMirrorPolicy {
	if w.route.GetRoute() == nil {
		return nil // answered here
	}
	for _, m := range [][]*routev3.RouteAction_RequestMirrorPolicy{w.route.GetRoute().GetRequestMirrorPolicies(), w.host.GetRequestMirrorPolicies(), w.config.GetRequestMirrorPolicies()} {
		if len(m) > 0 {
			return m
		}
	}
	return nil
}

// judgeRaw reports filters that hand on whole connections, or datagrams.
func (l *linter) judgeRaw(ln *listenerv3.Listener, protected map[string]bool) {
	if l.internal(ln) {
		return
	}
	l.rawClusters(ln, func(c namedCluster) {
		if how := l.openCluster(l.clusters[c.name]); how != "" && len(protected) > 0 {
			l.reportf(ruleOpenCluster, c.at, "listener %q hands connections to wherever %s says", ln.GetName(), how)
		} else if overlap(l.unchecked(c.name), protected) {
			l.reportf(ruleRaw, c.at, "listener %q hands connections to %q, which webhooks reach", ln.GetName(), c.name)
		}
	})
	for _, fc := range chainsOf(ln) {
		l.stateClusters(fc, func(format string, at spot) {
			if strings.Contains(format, "%") && len(protected) > 0 {
				l.reportf(ruleOpenCluster, at, "listener %q hands connections to whichever cluster %q says", ln.GetName(), short(format))
			}
		})
		for _, f := range fc.GetFilters() {
			if m, ok := opened[*sniv3.SniCluster](l, l.networkConfig(f)); ok && len(protected) > 0 {
				l.reportf(ruleOpenCluster, l.at(m), "listener %q hands connections to whichever cluster the client's TLS server name says", ln.GetName())
			}
		}
	}
}
