// Package source tells where a delivery comes from: the client's address behind proxies whose word is taken, and sets of addresses.
package source

import (
	"errors"
	"fmt"
	"net/netip"
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
	// Header is the name, in lower case, for HeaderValue.
	Header string
}

// Resolver finds the client's address by a Config.
type Resolver struct {
	config  Config
	trusted *Set
}

// NewResolver compiles a Config.
func NewResolver(c Config) *Resolver { return &Resolver{config: c, trusted: NewSet(c.TrustedProxies)} }

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

// Why an address is unknown, in words for an explanation. None holds what a client sent.
var (
	errNoPeer     = errors.New("the connection has no peer address")
	errAllTrusted = errors.New("every element of x-forwarded-for is a trusted proxy")
	errTooFew     = errors.New("x-forwarded-for has fewer elements than there are trusted hops")
	errUnreadable = errors.New("an element of x-forwarded-for on the way is not an address")
	errNotOnce    = errors.New("the header with the client's address does not occur exactly once")
	errNoAddress  = errors.New("the header with the client's address holds none")
	errUntrusted  = errors.New("the header with the client's address was not set by a trusted proxy")
)

// Client is the address of the client, given the peer of Envoy's connection and the values of Header in their order.
// The error says why it cannot be told.
func (r *Resolver) Client(peer netip.Addr, values []string) (netip.Addr, error) {
	if !peer.IsValid() || peer.Zone() != "" {
		return netip.Addr{}, errNoPeer
	}
	peer = peer.Unmap()
	switch {
	case r.config.From == HeaderValue:
		return r.fromHeader(peer, values)
	case r.config.From == XForwardedFor && r.config.ByHops:
		return r.byHops(values)
	case r.config.From == XForwardedFor:
		return r.byProxies(peer, values)
	}
	return peer, nil
}

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
// hop appended the one before. With no hops it is the peer that Envoy appended.
func (r *Resolver) byHops(values []string) (netip.Addr, error) {
	list := forwarded{values: values}
	for range r.config.TrustedHops {
		if _, ok := list.next(); !ok {
			return netip.Addr{}, errTooFew
		}
	}
	element, ok := list.next()
	if !ok {
		return netip.Addr{}, errTooFew
	}
	address, err := ParseAddr(element)
	if err != nil {
		return netip.Addr{}, errUnreadable
	}
	return address, nil
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

// ParseAddr reads an address as proxies write it: a port and brackets are stripped, IPv4 in IPv6 is folded, a zone is refused.
func ParseAddr(s string) (netip.Addr, error) {
	address, err := netip.ParseAddr(s)
	if err != nil && strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		if address, err = netip.ParseAddr(s[1 : len(s)-1]); err == nil && !address.Is6() {
			return netip.Addr{}, errNotAddress
		}
	}
	if err != nil {
		withPort, portErr := netip.ParseAddrPort(s)
		if portErr != nil {
			return netip.Addr{}, errNotAddress
		}
		address = withPort.Addr()
	}
	if address.Zone() != "" {
		return netip.Addr{}, errNotAddress
	}
	return address.Unmap(), nil
}

// ParsePrefix reads a range or a lone address, which is a range of one. IPv4 in IPv6 is folded; zones and host bits are errors.
func ParsePrefix(s string) (netip.Prefix, error) {
	shown := s
	if len(shown) > 64 {
		shown = shown[:64] + "..."
	}
	fail := fmt.Errorf("%q is not an address or a range", shown)
	if !strings.Contains(s, "/") {
		address, err := netip.ParseAddr(s)
		if err != nil || address.Zone() != "" {
			return netip.Prefix{}, fail
		}
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fail
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fail
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set; the range is %s", shown, p.Masked())
	}
	return p, nil
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
		s.table.Insert(p)
	}
	return s
}

// Contains reports whether an address is in the set.
func (s *Set) Contains(a netip.Addr) bool { return s != nil && s.n > 0 && s.table.Contains(a.Unmap()) }

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
