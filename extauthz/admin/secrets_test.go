package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/policy"
)

func TestSecrets(t *testing.T) {
	var asked SecretsQuery
	h := Handler(Config{Registry: prometheus.NewRegistry(), Secrets: func(_ context.Context, q SecretsQuery) Secrets {
		asked = q
		var s Secrets
		for _, name := range []string{"b/2", "a/2", "a/1", "a.b/1", "b/1"} {
			endpoint, version, _ := strings.Cut(name, "/")
			s.Secrets = append(s.Secrets, policy.SecretStatus{Endpoint: endpoint, Version: version})
		}
		return s
	}})
	get := func(query url.Values) (int, Secrets, Error) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "http://localhost/api/v1/secrets?"+query.Encode(), nil)
		h.ServeHTTP(w, r)
		var s Secrets
		var e Error
		into := any(&s)
		if w.Code != http.StatusOK {
			into = &e
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return w.Code, s, e
	}
	names := func(s Secrets) (names []string) {
		for _, v := range s.Secrets {
			names = append(names, v.Endpoint+"/"+v.Version)
		}
		return names
	}
	// In pages of any size it is the same list.
	want := []string{"a/1", "a/2", "a.b/1", "b/1", "b/2"}
	for _, limit := range []string{"1", "2", "3", "100"} {
		var got []string
		query := url.Values{"limit": {limit}}
		for {
			status, s, e := get(query)
			if status != http.StatusOK {
				t.Fatalf("%d %+v", status, e)
			}
			got = append(got, names(s)...)
			if s.Next == "" {
				break
			}
			query.Set("after", s.Next)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %s (-want +got):\n%s", limit, diff)
		}
	}
	_, s, _ := get(url.Values{"endpoint": {"a"}, "quiet": {"3d"}, "within": {"12h"}})
	if diff := cmp.Diff([]string{"a/1", "a/2"}, names(s)); diff != "" {
		t.Errorf("of one endpoint (-want +got):\n%s", diff)
	}
	if asked != (SecretsQuery{72 * time.Hour, 12 * time.Hour}) {
		t.Errorf("asked for %+v", asked)
	}
	for _, query := range []string{"quiet=", "quiet=0s", "quiet=-1d", "within=soon", "version=1", "endpoint=a&endpoint=b", "limit=0"} {
		values, _ := url.ParseQuery(query)
		if status, _, e := get(values); status != http.StatusBadRequest || e.Code == "" {
			t.Errorf("%s: %d %+v, want 400", query, status, e)
		}
	}
	for _, endpoint := range []string{"", "c", strings.Repeat("x", 5000)} {
		if status, _, e := get(url.Values{"endpoint": {endpoint}}); status != http.StatusNotFound || e.Code != "unknown_endpoint" || len(e.Message) > 200 {
			t.Errorf("%.10q: %d %+v, want 404", endpoint, status, e)
		}
	}
}
