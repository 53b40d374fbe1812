package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// What an address answers that is no config_dump is one line and the code for wrong usage.
func TestLintOfAddresses(t *testing.T) {
	tests := []struct {
		name, path, answer string
		status             int
		want               string
	}{
		{"a page to sign in", "", "<!doctype html>\n<html><body>Sign in</body></html>", 200, "it is a page of HTML"},
		{"another page of the admin interface", "/clusters?format=json", `{"cluster_statuses": []}`, 200, "none of its keys"},
		{"no page", "/config-dump", "no such page\n", 404, "answers 404 Not Found"},
		{"nothing", "", "", 200, "it is empty"},
		{"a dump that was cut", "", `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "boot`, 200, "it is neither YAML nor JSON"},
		{"an answer that breaks off", "/broken", `{"configs": [`, 200, "/broken breaks off after 13 bytes"},
		{"a dump", "", `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {}}]}`, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := ""
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.String()
				if tt.path == "/broken" {
					w.Header().Set("Content-Length", "1000")
				}
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.answer))
			}))
			defer s.Close()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), process{
				args: []string{"envoy", "lint", s.URL + tt.path}, lookup: os.LookupEnv, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
			})
			if tt.path == "" && asked != "/config_dump?include_eds" {
				t.Errorf("it asks for %s", asked)
			}
			if tt.want == "" {
				if code != 1 || !strings.Contains(stdout.String(), "nothing-guarded") {
					t.Errorf("code %d, want 1: %s%s", code, stdout.String(), stderr.String())
				}
				return
			}
			if got := stderr.String(); code != 2 || stdout.Len() > 0 || !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("code %d and %q, want 2 and one line with %q", code, got, tt.want)
			}
		})
	}
}
