package admin

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Pages put together are the list, whatever their size.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfDistinct(rapid.StringN(1, 8, 32), rapid.ID[string]).Draw(t, "all")
		slices.Sort(all)
		query := url.Values{"limit": {strconv.Itoa(rapid.IntRange(1, 10).Draw(t, "limit"))}}
		var got []string
		for range len(all) + 2 {
			p, err := readPage(query)
			if err != nil {
				t.Fatal(err)
			}
			part, next := pageOf(p, all, func(s string) string { return s })
			if len(part) > p.limit {
				t.Fatalf("%d entries, want at most %d", len(part), p.limit)
			}
			got = append(got, part...)
			if next == "" {
				break
			}
			query.Set("after", next)
		}
		if !slices.Equal(got, all) {
			t.Fatalf("got %q, want %q", got, all)
		}
	})
}

func TestBadPages(t *testing.T) {
	for _, text := range []string{"limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "after=", "after=***", "after=YQ==", "page=2"} {
		query, err := readQuery(text, pageParameters)
		if err == nil {
			_, err = readPage(query)
		}
		var e *Error
		if !errors.As(err, &e) || e.Status != 400 {
			t.Errorf("%s: %v, want 400", text, err)
		}
	}
}

// An action is one JSON object with known fields; anything else is refused before it does something.
func TestActions(t *testing.T) {
	type action struct {
		Name string `json:"name"`
	}
	done := 0
	a := &api{config: &Config{Logger: slog.New(slog.DiscardHandler)}}
	h := act(a, func(r *http.Request, given action) (any, error) {
		done++
		switch given.Name {
		case "":
			return nil, badRequest("name", "give one", "the name is missing")
		case "broken":
			return nil, errors.New("the disk says no")
		}
		return map[string]string{"hello": given.Name, "to": personOf(r).Name}, nil
	})
	tests := []struct {
		name, media, query, body string
		status                   int
		answer                   string
	}{
		{"good", "application/json", "", `{"name":"x"}`, 200, `{"hello":"x","to":""}` + "\n"},
		{"with a character set", "application/json; charset=utf-8", "", ` {"name":"<x>"} `, 200, `{"hello":"<x>","to":""}` + "\n"},
		{"refused", "application/json", "", `{}`, 400, `{"error":"name","message":"the name is missing","hint":"give one"}` + "\n"},
		{"our own fault", "application/json", "", `{"name":"broken"}`, 500, `{"error":"internal_error","message":"the request failed","hint":"the log of the server says why"}` + "\n"},
		{"a form", "application/x-www-form-urlencoded", "", `name=x`, 415, ""},
		{"text, as another site may send", "text/plain", "", `{"name":"x"}`, 415, ""},
		{"two types", "application/json|text/plain", "", `{"name":"x"}`, 415, ""},
		{"no type", "", "", `{"name":"x"}`, 415, ""},
		{"unknown field", "application/json", "", `{"name":"x","role":"y"}`, 400, ""},
		{"two values", "application/json", "", `{"name":"x"}{"name":"y"}`, 400, ""},
		{"cut off", "application/json", "", `{"name":"x"`, 400, ""},
		{"a wrong type", "application/json", "", `{"name":7}`, 400, ""},
		{"empty", "application/json", "", ``, 400, ""},
		{"a parameter", "application/json", "?name=x", `{"name":"x"}`, 400, ""},
		{"large", "application/json", "", `{"name":"` + strings.Repeat("x", maxAction) + `"}`, 413, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := done
			r := httptest.NewRequest("POST", "/x"+tt.query, strings.NewReader(tt.body))
			r.Header["Content-Type"] = strings.Split(tt.media, "|")
			w := httptest.NewRecorder()
			h(w, r)
			if w.Code != tt.status || (tt.answer != "" && w.Body.String() != tt.answer) || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tt.status, tt.answer)
			}
			if tt.answer == "" && done != before {
				t.Error("it was done")
			}
		})
	}
}
