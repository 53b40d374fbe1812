package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// What the client sends, and how it takes what comes back.
func TestAdminClient(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	put(t, file, "operator a operator-token-0123456789\n")
	tests := []struct {
		name, media, body string
		status            int
		want              string // in the error; empty: none
	}{
		{"good", "application/json", `{"x":1}`, 200, ""},
		{"refused", "application/json", `{"error":"a","message":"no\u001b[2J","hint":"ask"}`, 400, `says: "no\x1b[2J"`},
		{"not JSON", "text/html", "<html>", 200, "is not what a hookauthz does"},
		{"JSON of something else", "application/json", `[1]`, 200, "is not what a hookauthz does"},
		{"an error of something else", "application/json", `{"message":"no"}`, 404, "is not what a hookauthz does"},
		{"a redirect is not followed", "text/plain", "", 302, "answers 302 Found"},
		{"large", "application/json", `"` + strings.Repeat("x", maxAnswer) + `"`, 200, "cannot be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sent string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				sent = r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + r.Header.Get("Content-Type") + " " + string(body)
				w.Header().Set("Content-Type", tt.media)
				w.Header().Set("Location", "http://192.0.2.1/")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer s.Close()
			c, err := (&adminFlags{url: s.URL, tokenFile: file}).client()
			if err != nil {
				t.Fatal(err)
			}
			var into struct{ X int }
			err = c.post(t.Context(), "/api/v1/x", map[string]string{"do": "it"}, &into)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if want := `POST /api/v1/x Bearer operator-token-0123456789 application/json {"do":"it"}`; sent != want {
				t.Errorf("sent %q, want %q", sent, want)
			}
		})
	}
}
