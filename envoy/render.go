// Package envoy writes Envoy's configuration from policies: every request that reaches the application has passed a Check, and
// nothing that Envoy's defaults leave open is left open. What is written was made of the types of Envoy's own API and validated by
// its rules; the same policies and settings give the same bytes.
package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hookauthz/hookauthz/policy"
)

// Names within what is written.
const (
	upstreamCluster = "app"
	authzCluster    = "webhook_authz"
	// authzName is the name of the authorizer in calls to it, and in certificates that do not carry the host's.
	authzName = "hookauthz"
	// filterName must be this: Envoy finds per-route settings by the name of the filter.
	filterName = "envoy.filters.http.ext_authz"
	// endpointKey is the context extension that names the policy.
	endpointKey = "hookauthz.endpoint"
	// clientIPHeader is overwritten by Envoy with the address of the client.
	clientIPHeader = "x-hookauthz-client-ip"
	// namespace is where the metadata of a decision stands.
	namespace = "envoy.filters.http.ext_authz"
)

// Limits where a Config has none.
const (
	DefaultMaxConnections = 10_000
	DefaultMaxHeap        = 2 << 30
)

// Config says what to write.
type Config struct {
	// Endpoints are the policies.
	Endpoints []policy.EndpointInfo

	// Listen is where senders connect, Authz where hookauthz listens, Upstream where the application does.
	Listen, Authz, Upstream Address
	// AdminPort is the port of Envoy's admin interface on 127.0.0.1; 0: there is none.
	AdminPort uint16

	// TLS is the certificate that senders see; nil: they connect in plain text.
	TLS *KeyPair
	// AuthzTLS secures the way to hookauthz; nil: plain text, which is for a socket or this machine.
	AuthzTLS *MutualTLS

	// ProxyProtocol says that a balancer stands in front and opens every connection with the PROXY protocol, version 2. ProxyFrom are
	// its addresses; where there are none, whoever reaches the listener can claim any address.
	ProxyProtocol bool
	ProxyFrom     []netip.Prefix
	// XFFTrusted are the HTTP proxies in front whose X-Forwarded-For is believed. None: the peer is the client.
	XFFTrusted []netip.Prefix

	// PassOthers lets what no policy is for through to the application, unchecked. Else Envoy answers it 404.
	PassOthers bool

	// MaxConnections is how many senders may be connected, MaxHeap how many bytes Envoy may use. 0: the default.
	MaxConnections, MaxHeap uint64
}

// KeyPair is a certificate with its key: names of PEM files, as Envoy will see them.
type KeyPair struct{ Cert, Key string }

// MutualTLS is a client's side of TLS: whom to believe, and what to show.
type MutualTLS struct {
	CA string // name of a PEM file
	KeyPair
}

// Address is a host and a port, or a Unix socket.
type Address struct {
	Host string
	Port uint16
	Path string // of the socket; empty: there is none
}

// ParseAddress reads "host:port", "[address]:port" or "unix:/path".
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || len(path) > maxSocketPath {
			return Address{}, fmt.Errorf("%q is not a socket: want unix:/path of at most %d bytes", s, maxSocketPath)
		}
		return Address{Path: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: want host:port or unix:/path", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Address{}, fmt.Errorf("%q is not an address: want a port from 1 to 65535", s)
	}
	if _, err := netip.ParseAddr(host); err != nil && !isHostName(host) {
		return Address{}, fmt.Errorf("%q is not an address: want the name or the address of a host before the port", s)
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

// maxSocketPath is what Linux takes.
const maxSocketPath = 107

func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// IP is the address of the host, and whether it is one rather than a name.
func (a Address) IP() (netip.Addr, bool) {
	ip, err := netip.ParseAddr(a.Host)
	return ip, err == nil
}

// Local says that only this machine reaches the address.
func (a Address) Local() bool {
	ip, ok := a.IP()
	return a.Path != "" || a.Host == "localhost" || (ok && ip.IsLoopback())
}

// Plan is a checked Config with what follows from the policies.
type Plan struct {
	config Config
	hosts  []virtualHost
	// unrouted are the endpoints without a path: Envoy cannot know which requests are theirs.
	unrouted []string

	maxBytes      uint32
	keepRequestID bool // a scheme signs x-request-id
	underscores   bool // a scheme reads a header with an underscore in its name
	outcomes      bool // a policy awaits the application's answer
}

var errNoPath = errors.New("no policy has match.paths, so there is nothing to route")

// NewPlan works out what the policies need.
func NewPlan(c Config) (*Plan, error) {
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.MaxHeap == 0 {
		c.MaxHeap = DefaultMaxHeap
	}
	p := &Plan{config: c}
	for _, e := range c.Endpoints {
		if len(e.Paths) == 0 {
			p.unrouted = append(p.unrouted, e.Name)
			continue
		}
		if e.MaxBytes <= 0 || e.MaxBytes > 1<<30 {
			return nil, fmt.Errorf("webhook %q: a body of %d bytes at most is not what Envoy and hookauthz can hold in memory: want 1 to 1GiB", e.Name, e.MaxBytes)
		}
		p.maxBytes = max(p.maxBytes, uint32(e.MaxBytes))
		p.keepRequestID = p.keepRequestID || slices.Contains(e.Headers, "x-request-id")
		p.underscores = p.underscores || slices.ContainsFunc(e.Headers, func(h string) bool { return strings.Contains(h, "_") })
		p.outcomes = p.outcomes || e.Reservation > 0
		if name, ok := replaced(e.Headers); ok {
			return nil, fmt.Errorf("webhook %q: its scheme reads the header %q, which Envoy writes itself: its signatures could never hold", e.Name, name)
		}
	}
	if len(p.unrouted) == len(c.Endpoints) {
		return nil, errNoPath
	}
	p.hosts = virtualHosts(c.Endpoints, c.PassOthers)
	return p, nil
}

// Unrouted are the endpoints that have no route, because their policies have no match.paths.
func (p *Plan) Unrouted() []string { return p.unrouted }

// replaced is a header that Envoy sets or removes at the edge, whatever its settings.
func replaced(headers []string) (string, bool) {
	for _, h := range headers {
		if strings.HasPrefix(h, "x-envoy-") || h == "x-forwarded-for" || h == "x-forwarded-proto" || h == "expect" || h == "transfer-encoding" {
			return h, true
		}
	}
	return "", false
}

// checkTimeout is how long a Check may take: what Envoy needs to send a large body counts.
func (p *Plan) checkTimeout() time.Duration {
	const mebibyte = 1 << 20
	more := (p.maxBytes - 1) / mebibyte
	return 2*time.Second + time.Duration(more)*250*time.Millisecond
}

// checksAtOnce is how many Checks may be under way, so that their bodies stay within 4 GiB.
func (p *Plan) checksAtOnce() uint32 {
	return min(4096, max(64, (4<<30-1)/p.maxBytes+1))
}

// Bootstrap is a complete configuration, for `envoy -c`.
func (p *Plan) Bootstrap() (string, error) {
	b, err := p.bootstrap()
	if err != nil {
		return "", err
	}
	n, err := p.checkedTree(b)
	if err != nil {
		return "", err
	}
	for i := range n.fields {
		n.fields[i].apart = i > 0
	}
	separate(n, "static_resources", "clusters")
	return p.head("A complete configuration of Envoy, for `envoy -c`.") + n.print(), nil
}

// checkedTree is a message as YAML, once it has been validated.
func (p *Plan) checkedTree(m proto.Message) (*node, error) {
	if err := check(m); err != nil {
		return nil, fmt.Errorf("what was made is not valid: %w", err)
	}
	return p.remarks().tree(m)
}

// separate puts an empty line above a field within another.
func separate(n *node, path ...string) {
	for i := range n.fields {
		f := &n.fields[i]
		if f.key != path[0] {
			continue
		}
		if len(path) == 1 {
			f.apart = true
			return
		}
		separate(f.value, path[1:]...)
	}
}

// head is what stands above everything.
func (p *Plan) head(what string) string {
	lines := []string{
		"Written by `hookauthz envoy render`. " + what,
		"Do not edit: change the policies or the flags, and write it again. `hookauthz envoy lint` finds what later edits open.",
	}
	if len(p.unrouted) > 0 {
		lines = append(lines, "No route: "+strings.Join(p.unrouted, ", ")+". Their policies have no match.paths, so nothing says which requests are theirs.")
	}
	if p.config.ProxyProtocol && len(p.config.ProxyFrom) == 0 {
		lines = append(lines, "Whoever reaches the listener can claim any address in the PROXY protocol: let nobody but the balancer reach it, or give --proxy-from.")
	}
	var b strings.Builder
	for _, l := range lines {
		comment(&b, l, 0)
	}
	return b.String() + "\n"
}
