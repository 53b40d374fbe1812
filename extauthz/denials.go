package extauthz

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

const (
	// denialsOfKind is how many denials of one endpoint and reason are remembered.
	denialsOfKind = 10
	// maxDenialKinds bounds the memory of Denials: a kind takes about 5 KB. The kind that was seen longest ago goes first.
	maxDenialKinds = 1024
)

// Denial is a denial, or what shadow mode let through, as its log line tells of it.
type Denial struct {
	Number        uint64    `json:"-"` // counts up
	Time          time.Time `json:"time"`
	Endpoint      string    `json:"endpoint"` // "" where no policy was found
	Reason        string    `json:"reason"`
	Shadowed      bool      `json:"shadowed,omitempty"` // the delivery went on all the same
	Status        int       `json:"status,omitempty"`
	ClientAddress string    `json:"client_address,omitempty"`
	Method        string    `json:"method,omitempty"`
	Path          string    `json:"path,omitempty"` // without the query
	EventType     string    `json:"event_type,omitempty"`
	DeliveryID    string    `json:"delivery_id,omitempty"`
	SecretVersion string    `json:"secret_version,omitempty"`
	BodyBytes     int       `json:"body_bytes"`
	RequestID     string    `json:"request_id,omitempty"`
	TraceID       string    `json:"trace_id,omitempty"`
}

// Denials remembers the newest denials of each endpoint and reason, so that a flood of one kind does not hide the others.
// A nil *Denials remembers nothing.
type Denials struct {
	mu    sync.Mutex // guards what follows
	n     uint64     // denials so far
	kinds map[denialKind]*denialRing
}

// denialKind is what denials are kept by.
type denialKind struct {
	endpoint string
	reason   policy.Reason
}

// denialRing holds the newest denials of a kind: the n-th stands at n modulo denialsOfKind.
type denialRing struct {
	n    int
	ring [denialsOfKind]Denial
}

func (r *denialRing) newest() uint64 { return r.ring[(r.n-1)%denialsOfKind].Number }

// NewDenials makes a memory without denials.
func NewDenials() *Denials { return &Denials{kinds: make(map[denialKind]*denialRing)} }

// add remembers a denial, or what would have been one but for shadow mode.
func (l *Denials) add(d *policy.Decision, r *policy.Request, trace string, now time.Time) {
	reason, shadowed := d.Reason, d.Reason == policy.Shadow
	if shadowed {
		reason = d.Shadow
	}
	path, _, _ := strings.Cut(r.Path, "?")
	text := func(s string) string { return strings.Clone(quotable(s)) } // r is views of a message that is given back
	denial := Denial{
		Time: now, Endpoint: d.Endpoint, Reason: reason.String(), Shadowed: shadowed, Status: d.Status, Method: text(r.Method), Path: text(path),
		EventType: text(d.Event), DeliveryID: text(d.DeliveryID), SecretVersion: d.SecretVersion, BodyBytes: r.BodyLen(),
		RequestID: text(r.RequestID), TraceID: strings.Clone(trace),
	}
	if d.ClientAddress.IsValid() {
		denial.ClientAddress = d.ClientAddress.String()
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	key := denialKind{d.Endpoint, reason}
	kind := l.kinds[key]
	if kind == nil {
		l.makeRoom()
		kind = new(denialRing)
		l.kinds[key] = kind
	}
	l.n++
	denial.Number = l.n
	kind.ring[kind.n%denialsOfKind] = denial
	kind.n++
}

// makeRoom forgets the kind that was seen longest ago, if there are too many.
func (l *Denials) makeRoom() {
	if len(l.kinds) < maxDenialKinds {
		return
	}
	var oldest denialKind
	least := l.n + 1
	for key, kind := range l.kinds {
		if newest := kind.newest(); newest < least {
			oldest, least = key, newest
		}
	}
	delete(l.kinds, oldest)
}

// Newest is what is remembered, the newest first.
func (l *Denials) Newest() []Denial {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Denial
	for _, kind := range l.kinds {
		out = append(out, kind.ring[:min(kind.n, denialsOfKind)]...)
	}
	slices.SortFunc(out, func(a, b Denial) int { return cmp.Compare(b.Number, a.Number) })
	return out
}
