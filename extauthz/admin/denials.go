package admin

import (
	"fmt"
	"math"
	"net/http"
	"net/url"

	"github.com/hookauthz/hookauthz/extauthz"
)

// explainedDenial is a denial with what likely went wrong.
type explainedDenial struct {
	extauthz.Denial
	Step string `json:"step"` // of the decision, that failed
	Hint string `json:"hint"`
}

// key sorts the newest first.
func (d explainedDenial) key() string { return fmt.Sprintf("%020d", math.MaxUint64-d.Number) }

// denials lists the newest denials, those of one endpoint or reason where the query asks for them.
func (a *api) denials(_ *http.Request, query url.Values) (any, error) {
	p, err := readPage(query)
	if err != nil {
		return nil, err
	}
	if reason := query.Get("reason"); query.Has("reason") && hintOf(reason) == (hint{}) {
		return nil, badRequest("reason", "docs/decisions.md lists them", "nothing is denied for the reason %.64q", reason)
	}
	is := func(parameter, value string) bool { return !query.Has(parameter) || query.Get(parameter) == value }
	wanted := []explainedDenial{}
	for _, d := range a.config.Denials.Newest() {
		if is("endpoint", d.Endpoint) && is("reason", d.Reason) {
			h := hintOf(d.Reason)
			wanted = append(wanted, explainedDenial{d, h.step, h.text})
		}
	}
	part, next := pageOf(p, wanted, explainedDenial.key)
	return struct {
		Denials []explainedDenial `json:"denials"`
		Next    string            `json:"next,omitempty"`
	}{part, next}, nil
}

func hintOf(reason string) hint {
	for r, h := range hints {
		if r.String() == reason {
			return h
		}
	}
	return hint{}
}
