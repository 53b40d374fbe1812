package lint

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// firstWithin is the first message of type T within m, in no order that counts: there is at most one.
func firstWithin[T proto.Message](l *linter, m proto.Message) (found T, ok bool) {
	l.walk(m, func(inner proto.Message) {
		if t, is := inner.(T); is && !ok {
			found, ok = t, true
		}
	})
	return found, ok
}

// judgeDownstream judges TLS towards the senders.
func (l *linter) judgeDownstream(c *chain) {
	socket := c.filters.GetTransportSocket()
	if d, ok := firstWithin[*tlsv3.DownstreamTlsContext](l, socket); ok {
		common := d.GetCommonTlsContext()
		l.judgeParameters(common.GetTlsParams(), tlsv3.TlsParameters_TLSv1_3)
		for _, own := range common.GetTlsCertificates() {
			l.judgeParameters(own.GetTlsParams(), tlsv3.TlsParameters_TLSv1_3)
		}
		l.judgeTrust(common)
		if d.GetRequireClientCertificate().GetValue() && !l.verifies(common) {
			l.report(ruleClientCerts, l.at(d, "require_client_certificate"), "client certificates are asked for and not verified")
		}
		return
	}
	_, raw := firstWithin[*rawv3.RawBuffer](l, socket)
	if (socket == nil || raw) && !localListener(c.listener) && !l.internal(c.listener) {
		at := l.chainAt(c)
		if raw {
			at = l.at(c.filters, "transport_socket")
		}
		l.reportf(rulePlainListener, at, "listener %q takes hooks in plain text", c.name())
	}
}

// judgeParameters judges versions and suites. highest is the maximum where none is written.
func (l *linter) judgeParameters(p *tlsv3.TlsParameters, highest tlsv3.TlsParameters_TlsProtocol) {
	low, high := p.GetTlsMinimumProtocolVersion(), p.GetTlsMaximumProtocolVersion()
	if low == tlsv3.TlsParameters_TLSv1_0 || low == tlsv3.TlsParameters_TLSv1_1 {
		l.reportf(ruleOldTLS, l.at(p, "tls_minimum_protocol_version"), "the minimum is %v", low)
	}
	if low == tlsv3.TlsParameters_TLS_AUTO {
		low = tlsv3.TlsParameters_TLSv1_2
	}
	if high == tlsv3.TlsParameters_TLS_AUTO {
		high = highest
	}
	if low > high {
		l.reportf(ruleNoTLSVersion, l.at(p), "the minimum is %v and the maximum %v", low, high)
	}
	for i, entry := range p.GetCipherSuites() {
		for _, suite := range strings.Split(strings.Trim(entry, "[]"), "|") {
			if weakSuite(suite) {
				l.reportf(ruleCiphers, l.at(p, "cipher_suites", i), "%s is weak", suite)
			}
		}
	}
}

// weakSuite says whether a suite lacks forward secrecy or authenticated encryption.
func weakSuite(suite string) bool {
	s := strings.ToUpper(strings.TrimSpace(suite))
	if s == "" || s[0] == '!' || s[0] == '-' || strings.HasPrefix(s, "TLS_AES_") || strings.HasPrefix(s, "TLS_CHACHA20_") {
		return false
	}
	return !strings.Contains(s, "ECDHE") || !strings.Contains(s, "GCM") && !strings.Contains(s, "CHACHA20")
}

// validations are the rules by which certificates are verified. known is false where some are elsewhere.
func (l *linter) validations(common *tlsv3.CommonTlsContext) (found []*tlsv3.CertificateValidationContext, known bool) {
	known = true
	secret := func(s *tlsv3.SdsSecretConfig) {
		if s == nil {
			return
		}
		if v := l.secrets[s.GetName()].GetValidationContext(); v != nil {
			found = append(found, v)
		} else {
			known = false
		}
	}
	if v := common.GetValidationContext(); v != nil {
		found = append(found, v)
	}
	if v := common.GetCombinedValidationContext(); v != nil {
		if v.GetDefaultValidationContext() != nil {
			found = append(found, v.GetDefaultValidationContext())
		}
		secret(v.GetValidationContextSdsSecretConfig())
	}
	secret(common.GetValidationContextSdsSecretConfig())
	return found, known
}

// verifies says whether certificates are held against anything.
func (l *linter) verifies(common *tlsv3.CommonTlsContext) bool {
	found, known := l.validations(common)
	for _, v := range found {
		if v.GetTrustedCa() != nil || v.GetSystemRootCerts() != nil || v.GetCaCertificateProviderInstance() != nil || v.GetCustomValidatorConfig() != nil || pinned(v) {
			return true
		}
	}
	return !known
}

func pinned(v *tlsv3.CertificateValidationContext) bool {
	return len(v.GetVerifyCertificateSpki()) > 0 || len(v.GetVerifyCertificateHash()) > 0
}

func (l *linter) judgeTrust(common *tlsv3.CommonTlsContext) {
	found, _ := l.validations(common)
	for _, v := range found {
		if v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED {
			l.report(ruleUntrusted, l.at(v, "trust_chain_verification"), "certificates of any authority are accepted")
		}
		if v.GetAllowExpiredCertificate() {
			l.report(ruleUntrusted, l.at(v, "allow_expired_certificate"), "expired certificates are accepted")
		}
	}
}

// hop is one way of connecting to a cluster: with this socket, to endpoints that are all near, or not.
type hop struct {
	socket *corev3.TransportSocket // nil: plain
	at     spot
	near   bool
}

// hops are the ways in which the endpoints of a cluster are connected to. Those that are not here may be anywhere.
func (l *linter) hops(c *clusterv3.Cluster) []*hop {
	var found []*hop
	add := func(socket *corev3.TransportSocket, at spot, near bool) {
		for _, h := range found {
			if h.socket == socket {
				h.near = h.near && near
				return
			}
		}
		found = append(found, &hop{socket, at, near})
	}
	l.eachEndpoint(c, func(e *endpointv3.LbEndpoint) {
		addresses := endpointAddresses(e)
		if len(addresses) == 0 {
			return
		}
		near := !slices.ContainsFunc(addresses, func(a *corev3.Address) bool { return !local(a) })
		labels, _ := l.at(e).find("metadata", "filter_metadata", "envoy.transport_socket_match")
		for _, m := range c.GetTransportSocketMatches() {
			if c.GetTransportSocketMatcher() != nil { // which may name any
				add(m.GetTransportSocket(), l.at(m, "transport_socket"), near)
				continue
			}
			criteria, ok := l.at(m).field("match")
			if !ok || within(criteria.value, labels.value) {
				add(m.GetTransportSocket(), l.at(m, "transport_socket"), near)
				return
			}
		}
		add(c.GetTransportSocket(), l.at(c), near)
	})
	if len(found) > 0 {
		return found
	}
	// Which of them have TLS cannot be told: the best is taken for all.
	best := c.GetTransportSocket()
	for _, m := range c.GetTransportSocketMatches() {
		if _, ok := firstWithin[*tlsv3.UpstreamTlsContext](l, best); !ok {
			best = m.GetTransportSocket()
		}
	}
	return []*hop{{best, l.at(c), false}}
}

// within says whether every value of a map stands in another.
func within(part, whole *yaml.Node) bool {
	part, whole = resolve(part), resolve(whole)
	switch {
	case part == nil || isNull(part) || part.Kind == yaml.MappingNode && len(part.Content) == 0:
		return true
	case whole == nil || part.Kind != whole.Kind:
		return false
	case part.Kind != yaml.MappingNode:
		return part.Kind == yaml.ScalarNode && part.Value == whole.Value
	}
	for i := 0; i+1 < len(part.Content); i += 2 {
		at, ok := spot{value: whole}.field(protoreflect.Name(part.Content[i].Value))
		if !ok || !within(part.Content[i+1], at.value) {
			return false
		}
	}
	return true
}

// judgeHop judges TLS on the way to the authorizer.
func (l *linter) judgeHop(c *clusterv3.Cluster) {
	for _, h := range l.hops(c) {
		l.judgeSocket(c, h)
	}
}

func (l *linter) judgeSocket(c *clusterv3.Cluster, h *hop) {
	u, ok := firstWithin[*tlsv3.UpstreamTlsContext](l, h.socket)
	if !ok {
		_, raw := firstWithin[*rawv3.RawBuffer](l, h.socket)
		if !h.near && (h.socket == nil || raw) {
			l.reportf(rulePlainAuthz, h.at, "Checks leave the machine in plain text by cluster %q", c.GetName())
		}
		return
	}
	common := u.GetCommonTlsContext()
	l.judgeParameters(common.GetTlsParams(), tlsv3.TlsParameters_TLSv1_2)
	l.judgeTrust(common)
	switch {
	case !l.verifies(common):
		if !h.near {
			l.reportf(ruleUnverified, l.at(u, "common_tls_context"), "the certificate of cluster %q is not verified", c.GetName())
		}
	case !l.verifiesName(c, u) && !h.near:
		l.reportf(ruleAnyName, l.at(u, "common_tls_context"), "the name in the certificate of cluster %q is not verified", c.GetName())
	}
	if !h.near && len(common.GetTlsCertificates()) == 0 && len(common.GetTlsCertificateSdsSecretConfigs()) == 0 && common.GetTlsCertificateProviderInstance() == nil && common.GetCustomTlsCertificateSelector() == nil {
		l.reportf(ruleNoCertificate, l.at(u, "common_tls_context"), "Envoy shows no certificate to cluster %q", c.GetName())
	}
}

// verifiesName says whether a certificate must carry a certain name or key.
func (l *linter) verifiesName(c *clusterv3.Cluster, u *tlsv3.UpstreamTlsContext) bool {
	if u.GetAutoSniSanValidation() || l.httpOptions(c).GetUpstreamHttpProtocolOptions().GetAutoSanValidation() {
		return true
	}
	found, known := l.validations(u.GetCommonTlsContext())
	for _, v := range found {
		var names []*matcherv3.StringMatcher
		for _, m := range v.GetMatchTypedSubjectAltNames() {
			names = append(names, m.GetMatcher())
		}
		//lint:ignore SA1019 Envoy still reads it, so configurations have it
		names = append(names, v.GetMatchSubjectAltNames()...) //nolint:staticcheck // configurations in use have it
		// Names that anybody's match are no names.
		names = slices.DeleteFunc(names, func(m *matcherv3.StringMatcher) bool { return matches(m, "anybody.invalid") })
		if len(names) > 0 || pinned(v) || v.GetCustomValidatorConfig() != nil {
			return true
		}
	}
	return !known && len(found) == 0
}
