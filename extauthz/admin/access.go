package admin

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/source"
)

// access decides who may ask what. Nothing here depends on cookies: a browser sends no token on its own.
type access struct {
	tokens  *Tokens // nil: none is asked for
	hosts   []string
	cross   *http.CrossOriginProtection
	logger  *slog.Logger
	now     func() time.Time
	refused func(n int, from string) // tells of refused tokens; nil: nobody

	mu      sync.Mutex // guards what follows
	budgets map[netip.Addr]int64
	failed  int // refused tokens that were not told yet
	from    netip.Addr
	told    time.Time
}

func newAccess(c *Config) *access {
	return &access{
		tokens: c.Tokens, hosts: c.Hosts, cross: http.NewCrossOriginProtection(), logger: c.Logger, now: c.Now, refused: c.Refused,
		budgets: make(map[netip.Addr]int64),
	}
}

// guard lets through what may be asked here, and says who asks.
func (a *access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.knownHost(r) {
			fail(w, &Error{http.StatusMisdirectedRequest, "unknown_host", "this listener does not answer to the name in Host",
				"ask by its address, or start serve with --admin-host NAME"})
			return
		}
		if a.cross.Check(r) != nil || costly(r) && fromElsewhere(r) {
			fail(w, &Error{http.StatusForbidden, "cross_origin", "the request comes from another site", "ask from the console of this listener, or with the hookauthz command"})
			return
		}
		if open(r) {
			next.ServeHTTP(w, r)
			return
		}
		who, err := a.who(r)
		if err != nil {
			if err.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="hookauthz"`)
			}
			if err.retryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(err.retryAfter/time.Second)+1))
			}
			fail(w, &err.Error)
			return
		}
		if !who.may(r) {
			fail(w, &Error{http.StatusForbidden, "role", "the token of " + strconv.Quote(who.Name) + " is " + who.Role.String() + ": it may not do this", "take a token of an operator"})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), personKey{}, who)))
	})
}

// open says what never needs a token: what probes ask, and the console's own files, which are the same for everybody.
func open(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return true
	}
	_, _, static := consoleFile(r.URL.Path)
	return static
}

// costly says that a request makes the server work for as long as it likes, also where it only looks.
func costly(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/debug/") }

// fromElsewhere says that a browser sends it for another site. CrossOriginProtection lets those that only look pass.
func fromElsewhere(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

// may says whether a request is within the role. Profiles show the command line, which may hold a password of the store.
func (p Person) may(r *http.Request) bool {
	looks := r.Method == http.MethodGet || r.Method == http.MethodHead
	if p.Role == ReadOnly {
		return looks && !strings.HasPrefix(r.URL.Path, "/debug/")
	}
	return p.Role == Operator
}

type personKey struct{}

// personOf is who asks.
func personOf(r *http.Request) Person {
	p, _ := r.Context().Value(personKey{}).(Person)
	return p
}

// knownHost guards against names that an attacker's DNS points here (DNS rebinding): a browser sends the name in Host. A unix socket has
// no names.
func (a *access) knownHost(r *http.Request) bool {
	here, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if here != nil && here.Network() == "unix" {
		return true
	}
	name := r.Host
	if host, port, err := net.SplitHostPort(name); err == nil && port != "" {
		name = host
	}
	name = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	if name == "localhost" {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
		if ip.IsLoopback() {
			return true
		}
		if here != nil {
			if at, err := netip.ParseAddrPort(here.String()); err == nil && at.Addr().Unmap() == ip.Unmap() {
				return true
			}
		}
	}
	for _, h := range a.hosts {
		if strings.EqualFold(h, name) {
			return true
		}
	}
	return false
}

// denial is an Error that may be tried again later.
type denial struct {
	Error
	retryAfter time.Duration
}

// who finds out who asks, by the token.
func (a *access) who(r *http.Request) (Person, *denial) {
	if a.tokens == nil {
		return local, nil
	}
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		return Person{}, &denial{Error: Error{http.StatusUnauthorized, "token_missing", "this listener wants a token", "send Authorization: Bearer TOKEN; the hookauthz command takes --admin-token-file"}}
	}
	kind, token, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(kind, "bearer") || token == "" {
		return Person{}, &denial{Error: Error{http.StatusUnauthorized, "token_malformed", "the Authorization header holds no bearer token", "send Authorization: Bearer TOKEN"}}
	}
	who, after, err := a.try(remote(r), token)
	if err == nil {
		return who, nil
	}
	a.tell(false)
	switch {
	case errors.Is(err, errTooMany):
		return Person{}, &denial{Error{http.StatusTooManyRequests, "too_many_failures", "too many wrong tokens came from this address", "wait, then send a right one"}, after}
	case errors.Is(err, errExpiredToken):
		return Person{}, &denial{Error: Error{http.StatusUnauthorized, "token_expired", "the token of " + strconv.Quote(who.Name) + " has expired", "take another, or write a later moment in the token file"}}
	}
	return Person{}, &denial{Error: Error{http.StatusUnauthorized, "token_unknown", "the token is not one of those that this server knows", "take one of the file that serve was given as --admin-token-file"}}
}

// remote is the address that asks, as budgets are kept by it; one for all who ask over a unix socket.
func remote(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return source.Bucket(at.Addr().Unmap())
}

// guesses is how many wrong tokens an address may send.
var guesses = rate.Limit{Count: 20, Period: time.Minute, Burst: 20}

// maxBudgets bounds the addresses that are remembered.
const maxBudgets = 4096

var errTooMany = errors.New("too many wrong tokens")

// try looks for a token, at most as often as guesses says: one that comes later is not compared. The lock makes that exact.
func (a *access) try(from netip.Addr, token string) (who Person, after time.Duration, err error) {
	now := a.now().UnixNano()
	a.mu.Lock()
	defer a.mu.Unlock()
	next, ok, after := guesses.Take(a.budgets[from], now)
	if !ok {
		err = errTooMany
	} else if who, err = a.tokens.find(token); err == nil {
		return who, 0, nil
	} else {
		a.makeRoom(now)
		a.budgets[from] = next
	}
	a.failed++
	a.from = from
	return who, after, err
}

// makeRoom forgets the addresses whose budget is whole again; in a flood from everywhere each address starts again.
func (a *access) makeRoom(now int64) {
	if len(a.budgets) < maxBudgets {
		return
	}
	maps.DeleteFunc(a.budgets, func(_ netip.Addr, stored int64) bool { return stored <= now })
	if len(a.budgets) >= maxBudgets {
		clear(a.budgets)
	}
}

// tellEvery bounds the log of refused tokens: the first is told at once, later ones every 10 s together.
const tellEvery = 10 * time.Second

// tell logs the refused tokens that were not told yet.
func (a *access) tell(last bool) {
	now := a.now()
	a.mu.Lock()
	n, from := a.failed, "unix socket"
	if a.from.IsValid() {
		from = a.from.String()
	}
	since := now.Sub(a.told)
	if n == 0 || (!last && since >= 0 && since < tellEvery) {
		a.mu.Unlock()
		return
	}
	a.failed, a.told = 0, now
	a.mu.Unlock()
	a.logger.Warn("admin tokens refused", "count", n, "last_from", from)
	if a.refused != nil {
		a.refused(n, from)
	}
}

// run tells of refused tokens until ctx ends, those that came last too.
func (a *access) run(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.tell(false)
		case <-ctx.Done():
			a.tell(true)
			return
		}
	}
}
