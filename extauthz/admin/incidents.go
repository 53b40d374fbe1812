package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Incident is what is in force: an endpoint that is paused, a secret version that is revoked or an address that is blocked.
type Incident struct {
	Kind     string    `json:"kind"` // pause, revoke or block
	Endpoint string    `json:"endpoint,omitempty"`
	Version  string    `json:"version,omitempty"`
	Address  string    `json:"address,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"` // zero where it has no end
	By       string    `json:"by,omitempty"`   // who says to have done it
	Token    string    `json:"token,omitempty"`
	Why      string    `json:"why,omitempty"`
	// State is in_force, dormant (its endpoint or version is not in the policies) or policy (it stands in the policy files).
	State string `json:"state"`
}

// Kept says where incidents are kept.
type Kept struct {
	// Kept is store (for all servers and over a restart), file (over a restart) or process (until it ends).
	Kept string `json:"kept"`
	// Pending is why they are not there yet: they are in force on this server, which tries again.
	Pending string `json:"pending,omitempty"`
}

// IncidentList is a page of what is in force.
type IncidentList struct {
	Incidents []Incident `json:"incidents"`
	Kept
	Next string `json:"next,omitempty"`
}

// Action is what somebody on call wants.
type Action struct {
	Action   string `json:"action"` // pause, unpause, revoke, restore, block or unblock
	Endpoint string `json:"endpoint,omitempty"`
	Version  string `json:"version,omitempty"`
	Address  string `json:"address,omitempty"`
	For      string `json:"for,omitempty"` // 90s, 1h, 2d
	Why      string `json:"why,omitempty"`
	By       string `json:"by,omitempty"`
}

// Done is what an action did.
type Done struct {
	Action   string   `json:"action"`
	Incident Incident `json:"incident"` // as it is in force, or as it was undone
	Kept
	Notes []string `json:"notes,omitempty"` // what else is to be known
}

// Incidents is who knows what is in force.
type Incidents interface {
	// List is what is in force, sorted, and where it is kept.
	List() ([]Incident, Kept)
	// Do does what is wanted. An error that is an *Error goes out as it is.
	Do(ctx context.Context, who Person, a Action) (Done, error)
}

func (a *api) incidents(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/incidents", a.read(pageParameters, func(_ *http.Request, query url.Values) (any, error) {
		p, err := readPage(query)
		if err != nil {
			return nil, err
		}
		all, kept := a.config.Incidents.List()
		part, next := pageOf(p, all, func(i Incident) string {
			return i.Kind + "\x00" + i.Endpoint + "\x00" + i.Version + "\x00" + i.Address + "\x00" + i.State
		})
		if part == nil {
			part = []Incident{}
		}
		return IncidentList{part, kept, next}, nil
	}))
	mux.HandleFunc("POST /api/v1/incidents", act(a, func(r *http.Request, action Action) (any, error) {
		return a.config.Incidents.Do(r.Context(), personOf(r), action)
	}))
}
