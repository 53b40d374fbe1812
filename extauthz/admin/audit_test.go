package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/extauthz/admin"
)

// An audit file is read page by page, and a page of another file is refused.
func TestAuditPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(audit.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { l.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	const n = 25
	for i := range n {
		if err := l.Record(t.Context(), audit.Entry{Time: moment.Add(time.Duration(i) * time.Minute), Kind: audit.Decision, Endpoint: fmt.Sprint("e", i%2), DeliveryID: fmt.Sprint("id-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	h := admin.Handler(admin.Config{Registry: prometheus.NewRegistry(), Audit: l})
	ask := func(query string, want int) (page admin.AuditPage) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "/api/v1/audit"+query))
		if w.Code != want {
			t.Fatalf("%s: %d %s, want %d", query, w.Code, w.Body, want)
		}
		if want == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
		}
		return page
	}
	for _, limit := range []int{1, 3, 12, 13, 1000} {
		got, pages := "", 0
		for query := fmt.Sprintf("?endpoint=e1&limit=%d", limit); ; pages++ {
			page := ask(query, 200)
			for _, entry := range page.Entries {
				var e audit.Entry
				if err := json.Unmarshal(entry, &e); err != nil {
					t.Fatal(err)
				}
				got += e.DeliveryID + " "
			}
			if page.Head != l.Head() || page.Unread != 0 || len(page.Entries) > limit || pages > n {
				t.Fatalf("limit %d, page %d: %+v", limit, pages, page)
			}
			if page.Next == "" {
				break
			}
			query = fmt.Sprintf("?endpoint=e1&limit=%d&after=%s", limit, page.Next)
		}
		if want := "id-1 id-3 id-5 id-7 id-9 id-11 id-13 id-15 id-17 id-19 id-21 id-23 "; got != want {
			t.Errorf("limit %d: got %s", limit, got)
		}
	}
	if page := ask("?since=2026-11-26T08:10:00Z&until=2026-11-26T08:12:00Z", 200); len(page.Entries) != 2 {
		t.Errorf("two minutes: %d entries", len(page.Entries))
	}
	for _, query := range []string{"?since=now", "?until=1", "?limit=0", "?after=eHh4", "?after=OTk5OTk5OTk5IHg", "?colour=red", "?endpoint=a&endpoint=b", "?kind=decisions", "?kind=", "?decision=denied", "/verify?head=5f0c", "/verify?head="} {
		ask(query, 400)
	}
	for _, kind := range audit.Kinds {
		ask("?kind="+kind, 200)
	}
	ask("?decision=allow", 200)
	verify := func() (report audit.Report) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", "/api/v1/audit/verify"))
		if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	if report := verify(); len(report.Faults) != 0 || report.Lines != n || report.Head != l.Head() {
		t.Errorf("%+v", report)
	}

	// Somebody changes the file behind the server's back.
	next := ask("?limit=3", 200).Next
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "id-2\"", "id-7\"", 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if report := verify(); len(report.Faults) != 1 || report.Faults[0].Line != 3 {
		t.Errorf("a changed line: %+v", report.Faults)
	}
	if page := ask("?limit=1000", 200); page.Unread != 1 {
		t.Errorf("%d lines cannot be read, want 1", page.Unread)
	}
	put(t, path, strings.Repeat("hello\n", 200)+changed)
	if page := ask("?limit=1000", 200); page.Unread != 201 || len(page.Entries) != n-1 {
		t.Errorf("%d lines cannot be read, %d can; want 201 and %d", page.Unread, len(page.Entries), n-1)
	}
	put(t, path, changed)
	if page := ask("", 200); page.Begins != nil {
		t.Errorf("a whole file begins with %+v", page.Begins)
	}
	_, rest, _ := strings.Cut(changed, "\n")
	if err := os.WriteFile(path, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	page := ask("?limit=1&kind=decision", 200)
	if page.Begins == nil || page.Begins.Seq != 2 || !page.Begins.Time.Equal(moment.Add(time.Minute)) {
		t.Errorf("a file that goes on begins with %+v", page.Begins)
	}
	if page := ask("?limit=1&kind=decision&after="+page.Next, 200); page.Begins != nil {
		t.Errorf("the second page begins with %+v", page.Begins)
	}
	if err := os.WriteFile(path, []byte(changed[300:]), 0o600); err != nil {
		t.Fatal(err)
	}
	ask("?limit=3&after="+next, 400)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ask("", 503) // between the move and SIGHUP
	if report := verify(); len(report.Faults) != 1 || report.Faults[0].Problem != "the file is not there" {
		t.Errorf("a file that is gone: %+v", report.Faults)
	}
}
