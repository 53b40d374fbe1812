package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/policy"
)

// AuditPage is some lines of the audit file, as they were written.
type AuditPage struct {
	Entries []json.RawMessage `json:"entries"`
	Head    audit.Head        `json:"head"`             // the newest line
	Unread  int               `json:"unread,omitempty"` // lines that cannot be read: the file was changed
	// Begins is the first line of a file that goes on from one that was moved away, on the first page: what is older is there.
	Begins *audit.Begin `json:"begins,omitempty"`
	// Next is where the next page begins. There may be one after a page without entries: each takes a part of the file.
	Next string `json:"next,omitempty"`
}

// maxScan is how much of the file one page takes.
const maxScan = 16 << 20

var auditParameters = append([]string{"kind", "endpoint", "secret_version", "decision", "since", "until"}, pageParameters...)

// AuditDecisions are what decisions a query may ask for.
var AuditDecisions = []string{policy.Allow.String(), policy.Deny.String(), policy.Answer.String()}

func (a *api) audit(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/audit", a.read(auditParameters, func(_ *http.Request, query url.Values) (any, error) {
		p, err := readPage(query)
		if err != nil {
			return nil, err
		}
		q, err := auditQuery(query)
		if err != nil {
			return nil, err
		}
		return auditPage(a.config.Audit, q, p)
	}))
	verifying := make(chan struct{}, 1) // one at a time: it reads the whole file
	mux.HandleFunc("GET /api/v1/audit/verify", a.read([]string{"head"}, func(r *http.Request, query url.Values) (any, error) {
		select {
		case verifying <- struct{}{}:
			defer func() { <-verifying }()
		default:
			return nil, &Error{http.StatusServiceUnavailable, "busy", "the file is being verified", "try again"}
		}
		head := query.Get("head")
		if query.Has("head") && !audit.IsHash(head) {
			return nil, badRequest("head", "take it from an earlier verify or from the log of serve", "%.70q is no hash of 64 hex digits", head)
		}
		return verifyAudit(a.config.Audit, head)
	}))
}

func noAudit(w http.ResponseWriter, _ *http.Request) {
	fail(w, &Error{http.StatusNotFound, "no_audit", "this server keeps no audit file", "start serve with --audit FILE"})
}

func auditQuery(query url.Values) (q audit.Query, err error) {
	q = audit.Query{Kind: query.Get("kind"), Endpoint: query.Get("endpoint"), SecretVersion: query.Get("secret_version"), Decision: query.Get("decision")}
	for _, one := range []struct {
		name string
		of   []string
	}{{"kind", audit.Kinds}, {"decision", AuditDecisions}} {
		if query.Has(one.name) && !slices.Contains(one.of, query.Get(one.name)) {
			return q, badRequest(one.name, "there are "+strings.Join(one.of, ", "), "there is no %s %.64q", one.name, query.Get(one.name))
		}
	}
	moment := func(name string) (at time.Time) {
		if text := query.Get(name); text != "" && err == nil {
			if at, err = time.Parse(time.RFC3339, text); err != nil {
				err = badRequest(name, "write it as 2026-11-24T08:00:00Z", "%.64q is no moment", text)
			}
		}
		return at
	}
	q.Since, q.Until = moment("since"), moment("until")
	return q, err
}

// auditPage reads on behind the line that the cursor names, by where it ends and by its hash.
func auditPage(l *audit.Log, q audit.Query, p page) (AuditPage, error) {
	page := AuditPage{Entries: []json.RawMessage{}, Head: l.Head()}
	f, err := os.Open(l.Path())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return page, &Error{http.StatusServiceUnavailable, "audit_file_gone", "the audit file is not there: it was moved away or removed",
			"after SIGHUP the server goes on in a new one; 'hookauthz audit query FILE' reads the one that was moved away"}
	case err != nil:
		return page, fmt.Errorf("opening the audit file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return page, fmt.Errorf("reading the audit file: %w", err)
	}
	begin, size := int64(0), info.Size() // where somebody put something between the lines it is longer than what was written
	if p.after != "" {
		end, hash, _ := strings.Cut(p.after, " ")
		if begin, err = strconv.ParseInt(end, 10, 64); err != nil || begin <= 0 || begin > size || audit.HashBefore(f, begin) != hash {
			return page, badRequest("after", "begin again without it", "the file is not the one that the last page came from: it was moved away or changed")
		}
	}
	if begin == 0 {
		page.Begins = audit.BeginOf(f)
	}
	found, err := audit.Find(io.NewSectionReader(f, begin, min(size-begin, maxScan)), q, func(_ audit.Entry, line []byte) error {
		page.Entries = append(page.Entries, json.RawMessage(string(line[:len(line)-1])))
		if len(page.Entries) == p.limit {
			return audit.ErrEnough
		}
		return nil
	})
	if err != nil {
		return page, err
	}
	page.Unread = found.Unread
	if end := begin + found.End; end < size && found.End > 0 {
		page.Next = cursor(strconv.FormatInt(end, 10) + " " + audit.HashBefore(f, end))
	}
	return page, nil
}

// verifyAudit verifies the file against the head that the server knows.
func verifyAudit(l *audit.Log, head string) (audit.Report, error) {
	known := l.Head()
	f, err := os.Open(l.Path())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return audit.Report{Faults: []audit.Fault{{File: l.Path(), Line: 1, Problem: "the file is not there"}}}, nil
	case err != nil:
		return audit.Report{}, fmt.Errorf("opening the audit file: %w", err)
	}
	defer f.Close()
	wanted := []string{}
	if known.Seq > 0 {
		wanted = append(wanted, known.Hash)
	}
	if head != "" {
		wanted = append(wanted, head)
	}
	v := audit.NewVerifier(wanted...)
	// What is written meanwhile is left out.
	if err := v.Read(l.Path(), io.NewSectionReader(f, 0, l.Size())); err != nil {
		return audit.Report{}, err
	}
	return v.Report(&known), nil
}
