// Package source tells where a delivery comes from: the client's address behind proxies whose word is taken, and sets of addresses.
package source

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// EnvoyHeader is the header that our Envoy configurations overwrite with the client's address.
const EnvoyHeader = "x-hookauthz-client-ip"

// From says where the client's address stands.
type From uint8

const (
	Peer          From = iota // the TCP or PROXY-protocol peer
	XForwardedFor             // x-forwarded-for, as far as its writers are trusted
	HeaderValue               // a header that Envoy itself overwrites
)

var fromNames = [...]string{"peer", "xForwardedFor", "header"}

func (f From) String() string {
	if int(f) < len(fromNames) {
		return fromNames[f]
	}
	return fmt.Sprintf("From(%d)", uint8(f))
}

// UnmarshalText reads peer, xForwardedFor or header.
func (f *From) UnmarshalText(text []byte) error {
	for i, name := range fromNames {
		if string(text) == name {
			*f = From(i)
			return nil
		}
	}
	if len(text) > 64 {
		text = text[:64]
	}
	return fmt.Errorf("%q is not a place for the client's address", text)
}

// Config says how the client's address is found. The zero value is the peer.
type Config struct {
	From From
	// TrustedProxies are the proxies whose word is taken, for XForwardedFor and HeaderValue.
	TrustedProxies []netip.Prefix
	// ByHops takes an element of x-forwarded-for by its place instead: the one before TrustedHops proxies and the peer, which Envoy appends.
	ByHops      bool
	TrustedHops int
	// Header is the name for HeaderValue.
	Header string
}

// Resolver finds the client's address by a Config.
type Resolver struct {
	config  Config
	trusted *Set
}

// NewResolver compiles a Config.
func NewResolver(c Config) *Resolver {
	c.Header = strings.ToLower(c.Header)
	return &Resolver{config: c, trusted: NewSet(c.TrustedProxies)}
}

// Header is the name, in lower case, of the header that Client wants the values of; empty for the peer.
func (r *Resolver) Header() string {
	switch r.config.From {
	case XForwardedFor:
		return "x-forwarded-for"
	case HeaderValue:
		return r.config.Header
	}
	return ""
}

// TrustedProxies are those whose word is taken.
func (r *Resolver) TrustedProxies() []netip.Prefix { return slices.Clone(r.config.TrustedProxies) }

// Why an address is unknown, in words for an explanation. None holds what a client sent.
var (
	errNoPeer     = errors.New("the connection has no peer address")
	errZone       = errors.New("the address of the peer has a zone")
	errNoPlace    = errors.New("no place for the client's address is configured")
	errAllTrusted = errors.New("every element of x-forwarded-for is a trusted proxy")
	errTooFew     = errors.New("x-forwarded-for has fewer elements than there are trusted hops")
	errUnreadable = errors.New("an element of x-forwarded-for on the way is not an address")
	errNotOnce    = errors.New("the header with the client's address does not occur exactly once")
	errNoAddress  = errors.New("the header with the client's address holds none")
	errUntrusted  = errors.New("the header with the client's address was not set by a trusted proxy")
)

// Client is the address of the client, given the peer of Envoy's connection (the zero Addr for a pipe) and the values of Header in their
// order. The error says why it cannot be told; the address is the zero one then.
func (r *Resolver) Client(peer netip.Addr, values []string) (netip.Addr, error) {
	peer = peer.Unmap()
	switch {
	case r.config.From == HeaderValue:
		return r.fromHeader(peer, values)
	case !peer.IsValid():
		return netip.Addr{}, errNoPeer
	case peer.Zone() != "":
		return netip.Addr{}, errZone
	case r.config.From == Peer:
		return peer, nil
	case r.config.From == XForwardedFor && r.config.ByHops:
		return r.byHops(values)
	case r.config.From == XForwardedFor:
		return r.byProxies(peer, values)
	}
	return netip.Addr{}, errNoPlace
}

// fromHeader believes the header that only Envoy writes whoever the peer is, and any other one only where a trusted proxy delivers it.
func (r *Resolver) fromHeader(peer netip.Addr, values []string) (netip.Addr, error) {
	if r.config.Header != EnvoyHeader && !r.trusted.Contains(peer) {
		return netip.Addr{}, errUntrusted
	}
	if len(values) != 1 {
		return netip.Addr{}, errNotOnce
	}
	address, err := ParseAddr(strings.Trim(values[0], " \t"))
	if err != nil {
		return netip.Addr{}, errNoAddress
	}
	return address, nil
}

// byHops is Envoy's rule for xff_num_trusted_hops with use_remote_address: Envoy appends the peer as the last element, and each trusted
// hop appended the one before. With no hops it is the peer that Envoy appended. What a trusted hop wrote must be readable,
// or its place is not certain. A pipe has no address that Envoy could append, so there the places would be off by one.
func (r *Resolver) byHops(values []string) (netip.Addr, error) {
	list := forwarded{values: values}
	for hop := 0; ; hop++ {
		element, ok := list.next()
		if !ok {
			return netip.Addr{}, errTooFew
		}
		address, err := ParseAddr(element)
		if err != nil {
			return netip.Addr{}, errUnreadable
		}
		if hop >= r.config.TrustedHops {
			return address, nil
		}
	}
}

// byProxies walks from the peer through x-forwarded-for, from the right, for as long as the address in hand is a trusted proxy: it is
// the one that wrote the element to its left. What lies left of the first untrusted address is anybody's word and is not read.
func (r *Resolver) byProxies(peer netip.Addr, values []string) (netip.Addr, error) {
	list := forwarded{values: values}
	address := peer
	for r.trusted.Contains(address) {
		element, ok := list.next()
		if !ok {
			return netip.Addr{}, errAllTrusted
		}
		var err error
		if address, err = ParseAddr(element); err != nil {
			return netip.Addr{}, errUnreadable
		}
	}
	return address, nil
}

// forwarded reads the elements of one or more x-forwarded-for headers from the right.
type forwarded struct {
	values []string
	inside bool // the last value has been begun
	rest   string
}

func (f *forwarded) next() (element string, ok bool) {
	if !f.inside {
		if len(f.values) == 0 {
			return "", false
		}
		f.rest, f.values = f.values[len(f.values)-1], f.values[:len(f.values)-1]
		f.inside = true
	}
	element = f.rest
	if comma := strings.LastIndexByte(f.rest, ','); comma >= 0 {
		f.rest, element = f.rest[:comma], f.rest[comma+1:]
	} else {
		f.inside = false
	}
	return strings.Trim(element, " \t"), true
}

var errNotAddress = errors.New("not an IP address")

// ParseAddr reads an address as proxies write it: "192.0.2.7", "192.0.2.7:443", "2001:db8::1", "[2001:db8::1]" or "[2001:db8::1]:443".
// The port is dropped and IPv4 in IPv6 is folded. A zone is refused: it means something on one machine only.
func ParseAddr(s string) (netip.Addr, error) {
	host, bracketed := s, false
	if inside, ok := strings.CutPrefix(s, "["); ok {
		var rest string
		if host, rest, ok = strings.Cut(inside, "]"); !ok || rest != "" && !isPort(rest) {
			return netip.Addr{}, errNotAddress
		}
		bracketed = true
	} else if colon := strings.IndexByte(s, ':'); colon >= 0 && colon == strings.LastIndexByte(s, ':') {
		if !isPort(s[colon:]) {
			return netip.Addr{}, errNotAddress
		}
		host = s[:colon]
	}
	address, err := netip.ParseAddr(host)
	if err != nil || address.Zone() != "" || bracketed && !address.Is6() {
		return netip.Addr{}, errNotAddress
	}
	return address.Unmap(), nil
}

// isPort reports whether s is a colon and a port.
func isPort(s string) bool {
	digits, ok := strings.CutPrefix(s, ":")
	_, err := strconv.ParseUint(digits, 10, 16)
	return ok && err == nil
}

// ParsePrefix reads a range or a lone address, which is a range of one. IPv4 in IPv6 is folded; zones and host bits are errors.
func ParsePrefix(s string) (netip.Prefix, error) {
	shown := s
	if len(shown) > 64 {
		shown = shown[:64] + "..."
	}
	if !strings.Contains(s, "/") {
		address, err := netip.ParseAddr(s)
		if err != nil || address.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address or a range", shown)
		}
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or a range", shown)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set; the range is %s", shown, fold(p.Masked()))
	}
	return fold(p), nil
}

// fold makes IPv4 in IPv6 IPv4. A range that holds more than the IPv4 addresses stays as it is.
func fold(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Set is a set of addresses. It never changes. The zero value, and nil, hold nothing.
type Set struct {
	table bart.Lite
	n     int
}

// NewSet holds every address of the prefixes.
func NewSet(prefixes []netip.Prefix) *Set {
	s := &Set{n: len(prefixes)}
	for _, p := range prefixes {
		s.table.Insert(fold(p))
	}
	return s
}

// Contains reports whether an address is in the set. IPv4 in IPv6 is folded; an address with a zone is in no set.
func (s *Set) Contains(a netip.Addr) bool {
	return s != nil && s.n > 0 && a.Zone() == "" && s.table.Contains(a.Unmap())
}

// Len is the number of prefixes that the set was made of.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Bucket is what one sender has: an IPv4 address, or the /64 around an IPv6 address, in which a sender has as many as it likes.
func Bucket(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
