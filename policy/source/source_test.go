package source_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy/source"
)

func prefixes(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	var all []netip.Prefix
	for _, text := range texts {
		p, err := source.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// addr is the zero Addr for "", which is the peer of a pipe.
func addr(t testing.TB, text string) netip.Addr {
	t.Helper()
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// clientTest asks where one delivery comes from.
type clientTest struct {
	name   string
	peer   string
	values []string
	want   string // an address, or why there is none
}

func runClient(t *testing.T, c source.Config, tests []clientTest) {
	r := source.NewResolver(c)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.values)
			got, err := r.Client(addr(t, tt.peer), tt.values)
			shown := got.String()
			if err != nil {
				if got.IsValid() {
					t.Errorf("got the address %s with the error", got)
				}
				shown = err.Error()
			}
			if shown != tt.want {
				t.Errorf("got %s, want %s", shown, tt.want)
			}
			if diff := cmp.Diff(before, tt.values); diff != "" {
				t.Errorf("the values were changed (-before +after):\n%s", diff)
			}
		})
	}
}

const (
	noPeer     = "the connection has no peer address"
	zone       = "the address of the peer has a zone"
	allTrusted = "every element of x-forwarded-for is a trusted proxy"
	tooFew     = "x-forwarded-for has fewer elements than there are trusted hops"
	unreadable = "an element of x-forwarded-for on the way is not an address"
	notOnce    = "the header with the client's address does not occur exactly once"
	noAddress  = "the header with the client's address holds none"
	untrusted  = "the header with the client's address was not set by a trusted proxy"
)

// By default nothing that a client sends is read: neither headers nor a peer that looks like one of ours.
func TestPeer(t *testing.T) {
	runClient(t, source.Config{}, []clientTest{
		{"IPv4", "203.0.113.9", nil, "203.0.113.9"},
		{"IPv6", "2001:db8::9", nil, "2001:db8::9"},
		{"IPv4 in IPv6", "::ffff:203.0.113.9", nil, "203.0.113.9"},
		{"loopback is no proxy", "127.0.0.1", []string{"198.51.100.1"}, "127.0.0.1"},
		{"forged header", "203.0.113.9", []string{"198.51.100.1", "198.51.100.2"}, "203.0.113.9"},
		{"pipe", "", []string{"198.51.100.1"}, noPeer},
		{"zone", "fe80::1%eth0", nil, zone},
	})
	if got := source.NewResolver(source.Config{}).Header(); got != "" {
		t.Errorf("reads the header %q", got)
	}
}

func TestUnknownPlace(t *testing.T) {
	got, err := source.NewResolver(source.Config{From: 9}).Client(addr(t, "203.0.113.9"), nil)
	if err == nil || got.IsValid() {
		t.Errorf("got %s, %v, want an error", got, err)
	}
}

func TestXForwardedForProxies(t *testing.T) {
	c := source.Config{From: source.XForwardedFor, TrustedProxies: prefixes(t, "10.20.30.0/28", "192.0.2.1", "2001:db8:1::/64")}
	if got := source.NewResolver(c).Header(); got != "x-forwarded-for" {
		t.Errorf("reads the header %q", got)
	}
	runClient(t, c, []clientTest{
		// The peer is not a proxy: it is the client, whatever it writes.
		{"direct", "203.0.113.9", nil, "203.0.113.9"},
		{"direct, appended", "203.0.113.9", []string{"203.0.113.9"}, "203.0.113.9"},
		{"direct, forged", "203.0.113.9", []string{"198.51.100.1, 10.20.30.1"}, "203.0.113.9"},
		{"direct, forged and unreadable", "203.0.113.9", []string{"nonsense"}, "203.0.113.9"},
		{"direct from loopback", "127.0.0.1", []string{"198.51.100.1"}, "127.0.0.1"},
		{"direct from the same network, beyond the range", "10.20.30.16", []string{"198.51.100.1"}, "10.20.30.16"},

		// One proxy.
		{"one proxy", "10.20.30.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"one proxy, appended", "10.20.30.1", []string{"203.0.113.9, 10.20.30.1"}, "203.0.113.9"},
		{"one proxy, forged", "10.20.30.1", []string{"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		{"one proxy, forged and appended", "10.20.30.1", []string{"198.51.100.1, 203.0.113.9, 10.20.30.1"}, "203.0.113.9"},
		{"one proxy, forged as a proxy", "10.20.30.1", []string{"198.51.100.1, 10.20.30.2, 203.0.113.9"}, "203.0.113.9"},
		{"one proxy, peer in IPv6 form", "::ffff:10.20.30.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"one proxy over IPv6", "2001:db8:1::5", []string{"2001:db8:2::9, 2001:db8:1::5"}, "2001:db8:2::9"},

		// Several.
		{"three proxies", "10.20.30.1", []string{"203.0.113.9, 192.0.2.1, 2001:db8:1::7"}, "203.0.113.9"},
		{"three proxies, forged and appended", "10.20.30.1", []string{"198.51.100.1,203.0.113.9,192.0.2.1,2001:db8:1::7,10.20.30.1"}, "203.0.113.9"},
		{"several headers are one list", "10.20.30.1", []string{"198.51.100.1", "203.0.113.9, 192.0.2.1", "10.20.30.1"}, "203.0.113.9"},
		{"a forged header before the real one", "10.20.30.1", []string{"10.20.30.2, 10.20.30.3", "203.0.113.9"}, "203.0.113.9"},

		// Nobody is left.
		{"no header", "10.20.30.1", nil, allTrusted},
		{"all trusted", "10.20.30.1", []string{"10.20.30.2, 192.0.2.1"}, allTrusted},
		{"all trusted, appended", "10.20.30.1", []string{"10.20.30.1"}, allTrusted},

		// What stands on the way must be readable; what stands left of the stop is not read.
		{"empty header", "10.20.30.1", []string{""}, unreadable},
		{"blank header", "10.20.30.1", []string{" \t"}, unreadable},
		{"empty last element", "10.20.30.1", []string{"203.0.113.9,"}, unreadable},
		{"empty element on the way", "10.20.30.1", []string{"203.0.113.9, , 192.0.2.1"}, unreadable},
		{"empty header among several", "10.20.30.1", []string{"203.0.113.9", ""}, unreadable},
		{"word on the way", "10.20.30.1", []string{"203.0.113.9, unknown"}, unreadable},
		{"obfuscated on the way", "10.20.30.1", []string{"203.0.113.9, _hidden"}, unreadable},
		{"zone on the way", "10.20.30.1", []string{"203.0.113.9, fe80::1%eth0"}, unreadable},
		{"other blank", "10.20.30.1", []string{"\u00a0203.0.113.9"}, unreadable},
		{"unreadable to the left", "10.20.30.1", []string{"nonsense, , fe80::1%eth0, 203.0.113.9, 192.0.2.1"}, "203.0.113.9"},
		{"unreadable header to the left", "10.20.30.1", []string{"", "nonsense", "203.0.113.9"}, "203.0.113.9"},

		// Spelling.
		{"blanks", "10.20.30.1", []string{"  203.0.113.9 \t,\t192.0.2.1 "}, "203.0.113.9"},
		{"port", "10.20.30.1", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"brackets", "10.20.30.1", []string{"[2001:db8:2::9]"}, "2001:db8:2::9"},
		{"brackets and port", "10.20.30.1", []string{"[2001:db8:2::9]:4711"}, "2001:db8:2::9"},
		{"IPv4 in IPv6", "10.20.30.1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"a proxy as IPv4 in IPv6, with a port", "10.20.30.1", []string{"203.0.113.9, [::ffff:192.0.2.1]:4711"}, "203.0.113.9"},

		{"pipe", "", []string{"203.0.113.9"}, noPeer},
		{"zone", "fe80::1%eth0", []string{"203.0.113.9"}, zone},
	})
}

// With no proxies named, nothing but the peer counts.
func TestXForwardedForWithoutProxies(t *testing.T) {
	runClient(t, source.Config{From: source.XForwardedFor}, []clientTest{
		{"forged", "203.0.113.9", []string{"198.51.100.1"}, "203.0.113.9"},
		{"loopback", "127.0.0.1", []string{"198.51.100.1"}, "127.0.0.1"},
	})
}

// Trusted hops count as Envoy's do: the peer that Envoy appended is the last element, and N hops lie before it.
func TestXForwardedForHops(t *testing.T) {
	const proxy = "10.20.30.1" // the peer, as Envoy appends it
	hops := func(n int) source.Config {
		return source.Config{From: source.XForwardedFor, ByHops: true, TrustedHops: n}
	}
	t.Run("0", func(t *testing.T) {
		runClient(t, hops(0), []clientTest{
			{"direct", "203.0.113.9", []string{"203.0.113.9"}, "203.0.113.9"},
			{"forged", "203.0.113.9", []string{"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
			{"forged and unreadable", "203.0.113.9", []string{"nonsense,,203.0.113.9"}, "203.0.113.9"},
			{"no header", "203.0.113.9", nil, tooFew},
			{"empty header", "203.0.113.9", []string{""}, unreadable},
		})
	})
	t.Run("1", func(t *testing.T) {
		runClient(t, hops(1), []clientTest{
			{"one proxy", proxy, []string{"203.0.113.9, " + proxy}, "203.0.113.9"},
			{"one proxy, forged", proxy, []string{"198.51.100.1, 203.0.113.9, " + proxy}, "203.0.113.9"},
			{"forged in a header of its own", proxy, []string{"198.51.100.1", "203.0.113.9", proxy}, "203.0.113.9"},
			{"joined and apart", proxy, []string{"198.51.100.1, 203.0.113.9", proxy}, "203.0.113.9"},
			{"port", proxy, []string{"203.0.113.9:4711," + proxy}, "203.0.113.9"},
			{"loopback peer, appended as the machine", "127.0.0.1", []string{"203.0.113.9, 172.17.0.2"}, "203.0.113.9"},
			{"unreadable to the left", proxy, []string{"nonsense, 203.0.113.9, " + proxy}, "203.0.113.9"},
			{"the sender is not behind the proxy", "203.0.113.9", []string{"203.0.113.9"}, tooFew},
			{"no header", proxy, nil, tooFew},
			{"empty element", proxy, []string{", " + proxy}, unreadable},
			{"empty last element", proxy, []string{"198.51.100.1, 203.0.113.9,"}, unreadable},
			{"unreadable last element", proxy, []string{"198.51.100.1, 203.0.113.9, nonsense"}, unreadable},
			{"zone", proxy, []string{"fe80::1%eth0, " + proxy}, unreadable},
			{"pipe, where nothing was appended", "", []string{"198.51.100.1, 203.0.113.9"}, noPeer},
		})
	})
	t.Run("3", func(t *testing.T) {
		runClient(t, hops(3), []clientTest{
			{"three proxies", proxy, []string{"198.51.100.1, 203.0.113.9, 192.0.2.1, 192.0.2.2, " + proxy}, "203.0.113.9"},
			{"over several headers", proxy, []string{"203.0.113.9", "192.0.2.1, 192.0.2.2", proxy}, "203.0.113.9"},
			{"one too few", proxy, []string{"192.0.2.1, 192.0.2.2, " + proxy}, tooFew},
			{"unreadable on the way", proxy, []string{"203.0.113.9, 192.0.2.1, ?, " + proxy}, unreadable},
			{"empty header on the way", proxy, []string{"203.0.113.9, 192.0.2.1", "", proxy}, unreadable},
		})
	})
}

func TestEnvoyHeader(t *testing.T) {
	c := source.Config{From: source.HeaderValue, Header: "X-HookAuthz-Client-IP"}
	if got := source.NewResolver(c).Header(); got != "x-hookauthz-client-ip" {
		t.Errorf("reads the header %q", got)
	}
	runClient(t, c, []clientTest{
		{"once", "127.0.0.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"IPv6", "127.0.0.1", []string{"2001:db8::9"}, "2001:db8::9"},
		{"blanks", "127.0.0.1", []string{" 203.0.113.9\t"}, "203.0.113.9"},
		{"port", "127.0.0.1", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv4 in IPv6", "127.0.0.1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"pipe", "", []string{"203.0.113.9"}, "203.0.113.9"},
		{"absent", "203.0.113.9", nil, notOnce},
		{"twice", "127.0.0.1", []string{"198.51.100.1", "203.0.113.9"}, notOnce},
		{"twice and equal", "127.0.0.1", []string{"203.0.113.9", "203.0.113.9"}, notOnce},
		{"twice and joined", "127.0.0.1", []string{"198.51.100.1,203.0.113.9"}, noAddress},
		{"empty", "127.0.0.1", []string{""}, noAddress},
		{"word", "127.0.0.1", []string{"-"}, noAddress},
		{"zone", "127.0.0.1", []string{"fe80::1%eth0"}, noAddress},
	})
}

func TestOtherHeader(t *testing.T) {
	c := source.Config{From: source.HeaderValue, Header: "cf-connecting-ip", TrustedProxies: prefixes(t, "10.20.30.0/28")}
	runClient(t, c, []clientTest{
		{"from the proxy", "10.20.30.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"from the proxy in IPv6 form", "::ffff:10.20.30.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"from elsewhere", "198.51.100.1", []string{"203.0.113.9"}, untrusted},
		{"from loopback", "127.0.0.1", []string{"203.0.113.9"}, untrusted},
		{"from a pipe", "", []string{"203.0.113.9"}, untrusted},
		{"twice", "10.20.30.1", []string{"203.0.113.9", "198.51.100.1"}, notOnce},
	})
	c.TrustedProxies = nil
	runClient(t, c, []clientTest{{"no proxies", "10.20.30.1", []string{"203.0.113.9"}, untrusted}})
}

// Whatever a client writes, the address is the one that the outermost trusted proxy saw: a law over chains of proxies.
func TestForgedElementsChangeNothing(t *testing.T) {
	trusted := prefixes(t, "10.0.0.0/8")
	rapid.Check(t, func(t *rapid.T) {
		forged := rapid.SliceOfN(rapid.StringMatching(`[0-9a-f:.%,\[\] ]{0,20}|10\.0\.0\.[1-9]|198\.51\.100\.[1-9]`), 0, 4).Draw(t, "forged")
		inner := rapid.IntRange(0, 3).Draw(t, "proxies behind the first")
		list := append(forged, "203.0.113.9") // what the outermost proxy saw
		for range inner {
			list = append(list, "10.0.0.7")
		}
		if rapid.Bool().Draw(t, "appended") {
			list = append(list, "10.0.0.7")
			inner++
		}
		values := list
		if rapid.Bool().Draw(t, "joined") {
			values = []string{strings.Join(list, ", ")}
		}
		peer := netip.MustParseAddr("10.0.0.7")
		for _, c := range []source.Config{
			{From: source.XForwardedFor, TrustedProxies: trusted},
			{From: source.XForwardedFor, ByHops: true, TrustedHops: inner},
		} {
			got, err := source.NewResolver(c).Client(peer, values)
			if err != nil || got.String() != "203.0.113.9" {
				t.Fatalf("by hops %v: got %s, %v", c.ByHops, got, err)
			}
		}
	})
}

func TestClientDoesNotAllocate(t *testing.T) {
	trusted := prefixes(t, "10.20.30.0/28")
	values := []string{"198.51.100.1, 203.0.113.9:4711, [::ffff:10.20.30.2]:4711", "10.20.30.1"}
	tests := []struct {
		name   string
		config source.Config
		values []string
	}{
		{"peer", source.Config{}, nil},
		{"proxies", source.Config{From: source.XForwardedFor, TrustedProxies: trusted}, values},
		{"hops", source.Config{From: source.XForwardedFor, ByHops: true, TrustedHops: 2}, values},
		{"header", source.Config{From: source.HeaderValue, Header: source.EnvoyHeader}, []string{"[2001:db8::9]:4711"}},
		{"unknown", source.Config{From: source.XForwardedFor, ByHops: true, TrustedHops: 9}, values},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := source.NewResolver(tt.config)
			peer := netip.MustParseAddr("10.20.30.1")
			if n := testing.AllocsPerRun(100, func() { r.Client(peer, tt.values) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func FuzzClient(f *testing.F) {
	f.Add("10.20.30.1", "198.51.100.1, 203.0.113.9", "10.20.30.1", 1)
	f.Add("::ffff:10.20.30.1", ",[::1]:80", "fe80::1%x", 0)
	f.Add("", "203.0.113.9:80", "", 32)
	trusted := prefixes(f, "10.20.30.0/28", "2001:db8:1::/64")
	f.Fuzz(func(t *testing.T, peer, first, second string, hops int) {
		a, _ := netip.ParseAddr(peer)
		for _, c := range []source.Config{
			{},
			{From: source.XForwardedFor, TrustedProxies: trusted},
			{From: source.XForwardedFor, ByHops: true, TrustedHops: hops},
			{From: source.HeaderValue, Header: source.EnvoyHeader},
			{From: source.HeaderValue, Header: "x-real-ip", TrustedProxies: trusted},
		} {
			for _, values := range [][]string{nil, {first}, {first, second}} {
				got, err := source.NewResolver(c).Client(a, values)
				if (err == nil) != got.IsValid() {
					t.Fatalf("%+v, %q, %q: got %s with %v", c, peer, values, got, err)
				}
				if got.Is4In6() || got.Zone() != "" {
					t.Fatalf("%+v, %q, %q: got %s", c, peer, values, got)
				}
				if c.From == source.XForwardedFor && !c.ByHops && err == nil && source.NewSet(trusted).Contains(got) {
					t.Fatalf("%q, %q: the client %s is a proxy", peer, values, got)
				}
			}
		}
	})
}

func TestFromText(t *testing.T) {
	for text, want := range map[string]source.From{"peer": source.Peer, "xForwardedFor": source.XForwardedFor, "header": source.HeaderValue} {
		got := source.From(9)
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Peer", "xforwardedfor", "x-forwarded-for", "forwarded", strings.Repeat("x", 1000)} {
		got := source.HeaderValue
		err := got.UnmarshalText([]byte(text))
		if err == nil || got != source.HeaderValue || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %s, %v", text, got, err)
		}
	}
	if got := source.From(9).String(); got != "From(9)" {
		t.Errorf("got %q", got)
	}
}

func TestParseAddr(t *testing.T) {
	tests := []struct{ text, want string }{
		{"192.0.2.7", "192.0.2.7"},
		{"192.0.2.7:443", "192.0.2.7"},
		{"192.0.2.7:0", "192.0.2.7"},
		{"2001:db8::1", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"[2001:db8::1]:65535", "2001:db8::1"},
		{"2001:DB8:0:0:0:0:0:1", "2001:db8::1"},
		{"::", "::"},
		{"::1:80", "::1:80"}, // without brackets it is no port
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"::ffff:c000:207", "192.0.2.7"},
		{"[::ffff:192.0.2.7]:443", "192.0.2.7"},
		{"::192.0.2.7", "::c000:207"}, // IPv4-compatible is long gone and not IPv4
		{"64:ff9b::192.0.2.7", "64:ff9b::c000:207"},
	}
	for _, tt := range tests {
		got, err := source.ParseAddr(tt.text)
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: got %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	faults := []string{
		"", " ", "-", "unknown", "_hidden", "localhost", "example.com:80",
		"192.0.2", "192.0.2.7.8", "192.0.2.256", "192.0.2.07", "0xc0.0.2.7", "3221225991", "192.0.2.7/32", "192.0.2.-7",
		" 192.0.2.7", "192.0.2.7 ", "192.0.2.7\n", "192.0.2.7\x00", "１92.0.2.7", "192.0.2.7,192.0.2.8",
		"192.0.2.7:", "192.0.2.7:65536", "192.0.2.7:-1", "192.0.2.7:+1", "192.0.2.7:http", "192.0.2.7:80:80", ":80", ":",
		"[192.0.2.7]", "[192.0.2.7]:80", "[]", "[]:80", "[", "]", "[2001:db8::1", "2001:db8::1]", "[[2001:db8::1]]",
		"[2001:db8::1]80", "[2001:db8::1]:", "[2001:db8::1]:65536", "[2001:db8::1]:x", "x[2001:db8::1]", "[2001:db8::1] :80",
		"2001:db8:::1", "2001:db8::1::2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "2001:db8::g",
		"fe80::1%eth0", "[fe80::1%eth0]", "[fe80::1%eth0]:80", "fe80::1%", "::ffff:192.0.2.7%eth0", "192.0.2.7%eth0",
		strings.Repeat("1", 1<<16),
	}
	for _, text := range faults {
		got, err := source.ParseAddr(text)
		if err == nil || got.IsValid() {
			t.Errorf("%.60q: got %s, %v, want an error", text, got, err)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"192.0.2.7:443", "[2001:db8::1]:443", "[::1]", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4:", "[1.2.3.4]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := source.ParseAddr(s)
		if err != nil {
			if got.IsValid() {
				t.Fatalf("%q: got %s with the error", s, got)
			}
			return
		}
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%q: got %s", s, got)
		}
		for _, spelling := range []string{got.String(), netip.AddrPortFrom(got, 443).String()} {
			if again, err := source.ParseAddr(spelling); err != nil || again != got {
				t.Fatalf("%q: got %s, which as %q gives %s, %v", s, got, spelling, again, err)
			}
		}
	})
}

func TestParsePrefix(t *testing.T) {
	tests := []struct{ text, want string }{
		{"192.0.2.7", "192.0.2.7/32"},
		{"192.0.2.0/24", "192.0.2.0/24"},
		{"192.0.2.7/32", "192.0.2.7/32"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"2001:db8::1", "2001:db8::1/128"}, // never /32
		{"2001:db8::/32", "2001:db8::/32"},
		{"::/0", "::/0"},
		{"::ffff:192.0.2.7", "192.0.2.7/32"},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
	}
	for _, tt := range tests {
		got, err := source.ParsePrefix(tt.text)
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: got %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	faults := []struct{ text, want string }{
		{"192.0.2.7/24", `"192.0.2.7/24" has host bits set; the range is 192.0.2.0/24`},
		{"0.0.0.1/0", `"0.0.0.1/0" has host bits set; the range is 0.0.0.0/0`},
		{"2001:db8::1/64", `"2001:db8::1/64" has host bits set; the range is 2001:db8::/64`},
		{"::ffff:192.0.2.7/120", `"::ffff:192.0.2.7/120" has host bits set; the range is 192.0.2.0/24`},
		{"::ffff:0:0/90", `"::ffff:0:0/90" has host bits set; the range is ::ffc0:0:0/90`},
	}
	for _, text := range []string{"", "/", "/24", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/024", "192.0.2.0/24/24", "192.0.2/24",
		"192.0.2.0 - 192.0.2.9", "192.0.2.*", "192.0.2.0/255.255.255.0", "192.0.2.7:443", "[2001:db8::1]", "2001:db8::/129",
		"fe80::1%eth0", "fe80::%eth0/64", " 192.0.2.0/24", "example.com"} {
		faults = append(faults, struct{ text, want string }{text, `"` + text + `" is not an address or a range`})
	}
	long := strings.Repeat("9", 1000)
	faults = append(faults, struct{ text, want string }{long, `"` + long[:64] + `..." is not an address or a range`})
	for _, tt := range faults {
		got, err := source.ParsePrefix(tt.text)
		if err == nil || err.Error() != tt.want || got.IsValid() {
			t.Errorf("%.60q: got %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "2001:db8::/32", "::ffff:1.2.3.0/120", "::ffff:0:0/90", "1.2.3.4", "fe80::%e/64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := source.ParsePrefix(s)
		if err != nil {
			if got.IsValid() {
				t.Fatalf("%q: got %s with the error", s, got)
			}
			return
		}
		if !got.IsValid() || got != got.Masked() || got.Addr().Is4In6() || got.Addr().Zone() != "" {
			t.Fatalf("%q: got %s", s, got)
		}
		if again, err := source.ParsePrefix(got.String()); err != nil || again != got {
			t.Fatalf("%q: got %s, which gives %s, %v", s, got, again, err)
		}
		if !source.NewSet([]netip.Prefix{got}).Contains(got.Addr()) {
			t.Fatalf("%q: %s does not contain its own address", s, got)
		}
	})
}

func TestSet(t *testing.T) {
	set := source.NewSet(append(prefixes(t, "192.0.2.0/24", "192.0.2.128/25", "203.0.113.9", "2001:db8::/32", "2001:db9::1"),
		netip.MustParsePrefix("::ffff:198.51.100.0/120"), netip.MustParsePrefix("::ffff:0:0/90"))) // not from ParsePrefix
	if set.Len() != 7 {
		t.Errorf("Len is %d, want 7", set.Len())
	}
	tests := []struct {
		address string
		want    bool
	}{
		{"192.0.2.0", true}, {"192.0.2.255", true}, {"192.0.1.255", false}, {"192.0.3.0", false},
		{"203.0.113.9", true}, {"203.0.113.8", false}, {"203.0.113.10", false},
		{"198.51.100.7", true}, {"198.51.101.0", false},
		{"2001:db8::", true}, {"2001:db8:ffff::1", true}, {"2001:db7:ffff::1", false},
		{"2001:db9::1", true}, {"2001:db9::2", false}, {"2001:db9:1::", false}, // not widened to its /32
		{"::ffff:192.0.2.7", true}, {"::ffff:192.0.3.7", false}, {"::192.0.2.7", false},
		{"::ffc0:0:1", true}, {"::ffbf:0:1", false}, {"198.51.101.1", false},
		{"2001:db8::1%eth0", false}, {"", false},
	}
	for _, tt := range tests {
		if got := set.Contains(addr(t, tt.address)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.address, got, tt.want)
		}
	}
	for name, empty := range map[string]*source.Set{"nil": nil, "zero": {}, "of nothing": source.NewSet(nil)} {
		if empty.Len() != 0 || empty.Contains(addr(t, "192.0.2.7")) || empty.Contains(addr(t, "::1")) {
			t.Errorf("the %s set holds something", name)
		}
	}
}

// A set holds exactly what its prefixes hold.
func TestSetLaw(t *testing.T) {
	octets := rapid.SliceOfN(rapid.Byte(), 4, 4)
	rapid.Check(t, func(t *rapid.T) {
		var all []netip.Prefix
		for range rapid.IntRange(0, 5).Draw(t, "prefixes") {
			a := netip.AddrFrom4([4]byte(octets.Draw(t, "prefix")))
			p, _ := a.Prefix(rapid.IntRange(0, 32).Draw(t, "bits"))
			all = append(all, p)
		}
		set := source.NewSet(all)
		a := netip.AddrFrom4([4]byte(octets.Draw(t, "address")))
		want := slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
		if got := set.Contains(a); got != want {
			t.Fatalf("%v, %s: got %v, want %v", all, a, got, want)
		}
	})
}

func TestBucket(t *testing.T) {
	tests := []struct{ address, want string }{
		{"192.0.2.7", "192.0.2.7"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"},
		{"2001:db8:1:3::", "2001:db8:1:3::"},
		{"fe80::1%eth0", "fe80::"},
	}
	for _, tt := range tests {
		if got := source.Bucket(addr(t, tt.address)); got.String() != tt.want {
			t.Errorf("%s: got %s, want %s", tt.address, got, tt.want)
		}
	}
	if got := source.Bucket(netip.Addr{}); got.IsValid() {
		t.Errorf("the bucket of no address is %s", got)
	}
}

func BenchmarkClient(b *testing.B) {
	r := source.NewResolver(source.Config{From: source.XForwardedFor, TrustedProxies: prefixes(b, "10.20.30.0/28", "192.0.2.1")})
	peer := netip.MustParseAddr("10.20.30.1")
	values := []string{"198.51.100.1, 203.0.113.9, 192.0.2.1, 10.20.30.1"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Client(peer, values); err != nil {
			b.Fatal(err)
		}
	}
}
