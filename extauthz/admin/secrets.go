package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// Secrets says where each secret version is in its life.
type Secrets struct {
	// Since is when this server began to look.
	Since time.Time `json:"since"`
	// Shared says that last_used is of all servers that share the store; else it is of this one.
	Shared bool `json:"shared"`
	// Error is why what the other servers have seen is missing, where the store is shared.
	Error   string                `json:"error,omitempty"`
	Secrets []policy.SecretStatus `json:"secrets"`
	Next    string                `json:"next,omitempty"`
}

// SecretsQuery says what to report. Zero durations take the defaults.
type SecretsQuery struct{ Quiet, Soon time.Duration }

// secrets lists the versions of one endpoint, or of all.
func (a *api) secrets(r *http.Request, query url.Values) (any, error) {
	p, err := readPage(query)
	if err != nil {
		return nil, err
	}
	var q SecretsQuery
	for name, into := range map[string]*time.Duration{"quiet": &q.Quiet, "within": &q.Soon} {
		if !query.Has(name) {
			continue
		}
		if *into, err = policy.ParseDuration(query.Get(name)); err != nil || *into <= 0 {
			return nil, badRequest(name, "write it as 7d or 12h", "the parameter %s is no duration: %.32q", name, query.Get(name))
		}
	}
	s := a.config.Secrets(r.Context(), q)
	if endpoint := query.Get("endpoint"); query.Has("endpoint") {
		s.Secrets = slices.DeleteFunc(s.Secrets, func(v policy.SecretStatus) bool { return v.Endpoint != endpoint })
		if len(s.Secrets) == 0 {
			return nil, &Error{http.StatusNotFound, "unknown_endpoint", fmt.Sprintf("no webhook with secrets is named %.128q", endpoint), "hookauthz secrets status lists them all"}
		}
	}
	key := func(v policy.SecretStatus) string { return v.Endpoint + "\x00" + v.Version }
	slices.SortStableFunc(s.Secrets, func(a, b policy.SecretStatus) int { return cmp.Compare(key(a), key(b)) })
	s.Secrets, s.Next = pageOf(p, s.Secrets, key)
	if s.Secrets == nil {
		s.Secrets = []policy.SecretStatus{}
	}
	return s, nil
}

// secretsParameters are those of GET /api/v1/secrets.
var secretsParameters = append([]string{"endpoint", "quiet", "within"}, pageParameters...)

func noSecrets(context.Context, SecretsQuery) Secrets { return Secrets{} }
