package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// Status says what serves, and how it is.
type Status struct {
	Version     string    `json:"version"`
	Revision    string    `json:"revision"` // of the policies in force
	Webhooks    int       `json:"webhooks"`
	Started     time.Time `json:"started"`
	Environment string    `json:"environment,omitempty"`
	Store       string    `json:"store"`             // where it is, without user and password
	Breaker     string    `json:"breaker,omitempty"` // closed, half-open or open; only with a shared store
	Reload      Reload    `json:"reload"`
	Draining    bool      `json:"draining"`
}

// Reload says how the last load of the policy folder went. One that failed keeps the policies before in force.
type Reload struct {
	Success bool          `json:"success"`
	At      time.Time     `json:"at"`
	Faults  policy.Faults `json:"faults,omitempty"`
	// Error is why the folder could not be read at all.
	Error string `json:"error,omitempty"`
}

// api answers below /api/.
type api struct {
	config *Config
}

func (a *api) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/status", a.read(nil, func(*http.Request, url.Values) (any, error) {
		s := a.config.Status()
		s.Draining = a.config.Ready() != nil
		return s, nil
	}))
	mux.HandleFunc("GET /api/v1/secrets", a.read(secretsParameters, a.secrets))
	if a.config.Incidents != nil {
		a.incidents(mux)
	}
	if a.config.Policies != nil {
		mux.HandleFunc("GET /api/v1/endpoints", a.read(pageParameters, a.endpoints))
		mux.HandleFunc("GET /api/v1/endpoints/{name}", a.read(nil, a.endpoint))
		mux.HandleFunc("GET /api/v1/denials", a.read(append([]string{"endpoint", "reason"}, pageParameters...), a.denials))
	}
	if a.config.Audit != nil {
		a.audit(mux)
	} else {
		mux.HandleFunc("GET /api/v1/audit", noAudit)
		mux.HandleFunc("GET /api/v1/audit/verify", noAudit)
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &Error{http.StatusNotFound, "not_found", fmt.Sprintf("there is no %.16s %.200q", r.Method, r.URL.Path), "docs/admin.md lists what there is"})
	})
}
