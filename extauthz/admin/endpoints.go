package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/policy"
)

// Endpoint says what an endpoint is and what came of its deliveries in the last hour. The one without a name stands for deliveries that
// no policy is for.
type Endpoint struct {
	Endpoint           string            `json:"endpoint"`
	Scheme             string            `json:"scheme,omitempty"`
	Mode               string            `json:"mode,omitempty"` // enforce or shadow
	Labels             map[string]string `json:"labels,omitempty"`
	Hosts              []string          `json:"hosts,omitempty"`
	Paths              []string          `json:"paths,omitempty"`
	PausedUntil        time.Time         `json:"paused_until,omitzero"`
	SecretsUnavailable int               `json:"secrets_unavailable,omitempty"`
	Counts             Outcomes[uint64]  `json:"counts"`
	Reasons            map[string]uint64 `json:"reasons,omitempty"`
	// Series is Counts minute by minute, the oldest first.
	Series Outcomes[[]uint64] `json:"series"`
}

// Outcomes holds something for each outcome of a decision.
type Outcomes[T any] struct {
	Allow  T `json:"allow"`
	Answer T `json:"answer"`
	Deny   T `json:"deny"`
}

func (o *Outcomes[T]) of(decision string) *T {
	switch decision {
	case policy.Allow.String():
		return &o.Allow
	case policy.Answer.String():
		return &o.Answer
	}
	return &o.Deny
}

// endpointList is the answer to GET /api/v1/endpoints.
type endpointList struct {
	End         time.Time          `json:"end"` // of the newest minute
	StepSeconds int                `json:"step_seconds"`
	Total       Outcomes[[]uint64] `json:"total"`
	Partial     bool               `json:"partial"` // there was no room for the history of all
	Endpoints   []*Endpoint        `json:"endpoints"`
	Next        string             `json:"next,omitempty"`
}

// endpointDetail is the answer to GET /api/v1/endpoints/NAME.
type endpointDetail struct {
	End         time.Time         `json:"end"`
	StepSeconds int               `json:"step_seconds"`
	Endpoint    *Endpoint         `json:"endpoint"`
	Series      []extauthz.Series `json:"series"`
}

const (
	// perMinute is how many steps of the history a minute has.
	perMinute = int(time.Minute / extauthz.HistoryStep)
	minutes   = extauthz.HistorySteps / perMinute
)

func emptySeries() Outcomes[[]uint64] {
	return Outcomes[[]uint64]{make([]uint64, minutes), make([]uint64, minutes), make([]uint64, minutes)}
}

// add adds what a history says of an endpoint.
func (e *Endpoint) add(s extauthz.Series) {
	counts, total := *e.Series.of(s.Decision), uint64(0)
	for i, n := range s.Counts {
		counts[i/perMinute] += uint64(n)
		total += uint64(n)
	}
	*e.Counts.of(s.Decision) += total
	if e.Reasons == nil {
		e.Reasons = make(map[string]uint64)
	}
	e.Reasons[s.Reason] += total
}

// describe is an endpoint before anything is known of its deliveries. paused holds the ends of pauses that are incident actions.
func describe(info *policy.EndpointInfo, paused map[string]time.Time, now time.Time) *Endpoint {
	e := &Endpoint{Endpoint: info.Name, Scheme: info.Scheme, Mode: "enforce", Labels: info.Labels, Hosts: info.Hosts, Paths: info.Paths, Series: emptySeries()}
	if info.Shadow {
		e.Mode = "shadow"
	}
	for _, until := range []time.Time{info.PausedUntil, paused[info.Name]} {
		if until.After(now) && until.After(e.PausedUntil) {
			e.PausedUntil = until
		}
	}
	for _, v := range info.Versions {
		if !v.Available {
			e.SecretsUnavailable++
		}
	}
	return e
}

// pauses are the ends of the pauses that are incident actions, by endpoint.
func (a *api) pauses() map[string]time.Time {
	if a.config.Incidents == nil {
		return nil
	}
	all, _ := a.config.Incidents.List()
	ends := make(map[string]time.Time)
	for _, i := range all {
		if i.Kind == "pause" && i.Until.After(ends[i.Endpoint]) {
			ends[i.Endpoint] = i.Until
		}
	}
	return ends
}

// endpoints lists the endpoints of the policies in force, and what came of their deliveries.
func (a *api) endpoints(_ *http.Request, query url.Values) (any, error) {
	p, err := readPage(query)
	if err != nil {
		return nil, err
	}
	now := a.config.Now()
	past := a.config.History.All(now)
	list := endpointList{End: past.End, StepSeconds: 60, Total: emptySeries(), Partial: past.Partial}
	byName, paused := make(map[string]*Endpoint), a.pauses()
	for _, info := range a.config.Policies().Endpoints() {
		byName[info.Name] = describe(&info, paused, now)
	}
	for _, s := range past.Series {
		e := byName[s.Endpoint]
		if e == nil { // no policy, or one that has left
			if s.Endpoint != "" {
				continue
			}
			e = &Endpoint{Series: emptySeries()}
			byName[""] = e
		}
		e.add(s)
	}
	all := make([]*Endpoint, 0, len(byName))
	for _, e := range byName {
		all = append(all, e)
		for _, decision := range []policy.Outcome{policy.Allow, policy.Answer, policy.Deny} {
			total := *list.Total.of(decision.String())
			for i, n := range *e.Series.of(decision.String()) {
				total[i] += n
			}
		}
	}
	slices.SortFunc(all, func(a, b *Endpoint) int { return cmp.Compare(a.key(), b.key()) })
	list.Endpoints, list.Next = pageOf(p, all, (*Endpoint).key)
	return list, nil
}

// key is the name with something before it: no key may be empty.
func (e *Endpoint) key() string { return "." + e.Endpoint }

// endpoint says more about one endpoint.
func (a *api) endpoint(r *http.Request, _ url.Values) (any, error) {
	name := r.PathValue("name")
	for _, info := range a.config.Policies().Endpoints() {
		if info.Name != name {
			continue
		}
		now := a.config.Now()
		past := a.config.History.Of(name, now)
		e := describe(&info, a.pauses(), now)
		for _, s := range past.Series {
			e.add(s)
		}
		return endpointDetail{End: past.End, StepSeconds: int(extauthz.HistoryStep / time.Second), Endpoint: e, Series: append([]extauthz.Series{}, past.Series...)}, nil
	}
	return nil, noEndpoint(name)
}

func noEndpoint(name string) *Error {
	return &Error{http.StatusNotFound, "unknown_endpoint", fmt.Sprintf("there is no endpoint %.200q in the policies in force", name), "GET /api/v1/endpoints lists them"}
}
