package policy

import (
	"net"
	"strings"
)

// index finds the policy of a delivery by host and path: a few map look-ups, however many policies there are.
type index struct {
	hosts    map[string]*pathIndex // exact names
	suffixes map[string]*pathIndex // ".example.com" for *.example.com
	any      *pathIndex            // policies without hosts
}

// pathIndex finds a policy by path within one host pattern.
type pathIndex struct {
	exact    map[string]*Webhook
	prefixes map[string]*Webhook // keys end in '/'
}

// newIndex builds the index and calls overlap for every two policies that are equally specific for the same delivery.
func newIndex(webhooks []*Webhook, overlap func(w, other *Webhook, host, path string)) *index {
	x := &index{hosts: map[string]*pathIndex{}, suffixes: map[string]*pathIndex{}, any: &pathIndex{}}
	for _, w := range webhooks {
		if !w.matched {
			continue
		}
		if len(w.hosts) == 0 {
			x.any.add(w, "", overlap)
		}
		for _, host := range w.hosts {
			into, key := x.hosts, host
			if strings.HasPrefix(host, "*.") {
				into, key = x.suffixes, host[1:]
			}
			if into[key] == nil {
				into[key] = &pathIndex{}
			}
			into[key].add(w, host, overlap)
		}
	}
	return x
}

func (p *pathIndex) add(w *Webhook, host string, overlap func(w, other *Webhook, host, path string)) {
	for _, path := range w.paths {
		into, key := &p.exact, path
		if strings.HasSuffix(path, "/*") {
			into, key = &p.prefixes, strings.TrimSuffix(path, "*")
		}
		if *into == nil {
			*into = make(map[string]*Webhook)
		}
		if other, ok := (*into)[key]; ok {
			overlap(w, other, host, path)
			continue
		}
		(*into)[key] = w
	}
}

// find is the policy for a host and a path without a query: the host exactly, by its longest suffix, or any; within it the path
// exactly or by its longest prefix. Nil where none matches.
func (x *index) find(host, path string) *Webhook {
	if p := x.hosts[host]; p != nil {
		if w := p.find(path); w != nil {
			return w
		}
	}
	if len(x.suffixes) > 0 {
		for i := strings.IndexByte(host, '.'); i >= 0; {
			if p := x.suffixes[host[i:]]; p != nil && i > 0 {
				if w := p.find(path); w != nil {
					return w
				}
			}
			next := strings.IndexByte(host[i+1:], '.')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return x.any.find(path)
}

func (p *pathIndex) find(path string) *Webhook {
	if w := p.exact[path]; w != nil {
		return w
	}
	if len(p.prefixes) == 0 {
		return nil
	}
	for end := strings.LastIndexByte(path, '/'); end >= 0; end = strings.LastIndexByte(path[:end], '/') {
		if w := p.prefixes[path[:end+1]]; w != nil {
			return w
		}
	}
	return nil
}

// matches reports whether one policy's own match holds for a host and a path. A policy without paths or hosts matches any.
func (w *Webhook) matches(host, path string) bool {
	hostHolds := len(w.hosts) == 0
	for _, pattern := range w.hosts {
		if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
			hostHolds = hostHolds || (len(host) > len(suffix) && strings.HasSuffix(host, suffix))
			continue
		}
		hostHolds = hostHolds || host == pattern
	}
	pathHolds := len(w.paths) == 0
	for _, pattern := range w.paths {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			pathHolds = pathHolds || strings.HasPrefix(path, prefix)
			continue
		}
		pathHolds = pathHolds || path == pattern
	}
	return hostHolds && pathHolds
}

// find is the policy that decides about a delivery. The reason is OK where there is one.
func (s *Set) find(r *Request) (*Webhook, Reason) {
	path, query, _ := strings.Cut(r.Path, "?")
	if ambiguous(path) || strings.ContainsAny(query, "#\x00") {
		return nil, AmbiguousPath
	}
	host := hostName(r.Host)
	if !r.Named {
		if w := s.index.find(host, path); w != nil {
			return w, OK
		}
		return nil, NoPolicy
	}
	w := s.byName[r.Endpoint]
	if w == nil || !w.matches(host, path) {
		return nil, NoPolicy
	}
	return w, OK
}

// hostName is a Host header without its port, in lower case.
func hostName(host string) string {
	if strings.IndexByte(host, ':') >= 0 {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(host)
}

// ambiguous reports whether a path may mean one thing to us and another to the application: it is not absolute, has an empty, "." or
// ".." segment, a parameter, a backslash, a fragment, bytes that no path may hold, or escapes of characters that need none or that
// separate (RFC 3986, sections 2.3 and 6.2.2).
func ambiguous(path string) bool {
	if path == "" || path[0] != '/' {
		return true
	}
	segment := 1
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			switch path[segment:i] {
			case "":
				if i < len(path) { // a slash at the end is none
					return true
				}
			case ".", "..":
				return true
			}
			segment = i + 1
			continue
		}
		switch c := path[i]; {
		case c <= ' ', c >= 0x7f, c == ';', c == '\\', c == '#':
			return true
		case c == '%':
			if i+2 >= len(path) {
				return true
			}
			decoded, ok := unhex(path[i+1], path[i+2])
			if !ok || escapeAmbiguous(decoded) {
				return true
			}
		}
	}
	return false
}

// escapeAmbiguous reports whether %XX of this byte is another spelling of a plain path, or hides what would make one ambiguous.
func escapeAmbiguous(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	case c < ' ', c == 0x7f:
		return true
	}
	return strings.IndexByte("-._~/\\;#%?", c) >= 0
}

func unhex(a, b byte) (byte, bool) {
	high, low := hexDigit(a), hexDigit(b)
	return byte(high<<4 | low), high >= 0 && low >= 0
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
