package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/extauthz/admin"
)

func newAudit(p process) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Verify and search the audit file of serve",
		Long: `serve --audit FILE adds a line for each action of the people on call, each load of the policies, refused
admin tokens, and the decisions of policies that say log: {audit: all} or denied. Each line holds the hash of
the one before.`,
		Example: "  hookauthz audit verify audit.jsonl\n  hookauthz audit query --endpoint github --secret-version 2026-04 --decision allow",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return misused("'hookauthz audit --help' lists the commands", "there is no command %q", "audit "+args[0])
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAuditVerify(p), newAuditQuery(p))
	return c
}

func newAuditVerify(p process) *cobra.Command {
	var flags adminFlags
	var head string
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "verify [FILE...]",
		Short: "Find any line of the audit file that was removed, changed or moved",
		Long: `verify reads audit files in the order in which they were written, the newest last, and tells every line that is
not as it was written. The head that serve keeps beside the newest (FILE.head) shows lines that were cut off at
its end. Somebody who can write both can make a new chain: a hash that is known from elsewhere (the log of serve,
an earlier verify) shows that, given as --head.

Without a file the running server verifies its own, against the head that it knows.

Exit code 1 if anything is wrong.`,
		Example: `  hookauthz audit verify audit.jsonl
  hookauthz audit verify audit.jsonl.2 audit.jsonl.1 audit.jsonl --head 5f0c1fa0...
  hookauthz audit verify --admin-url https://hooks.example.com:9002 --admin-token-file token`,
		RunE: func(c *cobra.Command, files []string) error {
			if head != "" && !audit.IsHash(head) {
				return misused("take it from an earlier verify or from the log of serve", "--head %.70q is no hash of 64 hex digits", head)
			}
			report, err := verifyFiles(files, head)
			if len(files) == 0 {
				var client *adminClient
				if client, err = flags.client(); err == nil {
					query := url.Values{}
					if head != "" {
						query.Set("head", head)
					}
					err = client.get(c.Context(), "/api/v1/audit/verify", query, &report)
				}
			}
			if err != nil {
				return err
			}
			if output.value == "json" {
				err = printJSON(p.stdout, report)
			} else {
				err = printReport(p.stdout, &report)
			}
			if err == nil && len(report.Faults) > 0 {
				return failed("what is missing or changed was written once: look for it in the log", "the audit file was changed: %s", count(len(report.Faults), "fault"))
			}
			return err
		},
	}
	c.Flags().StringVar(&head, "head", "", "`hash` of a line that must be there, known from elsewhere")
	flags.add(c)
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

// verifyFiles reads files and the head that is kept beside the last one. The head is read first: lines may be added meanwhile.
func verifyFiles(files []string, head string) (report audit.Report, err error) {
	if len(files) == 0 {
		return report, nil
	}
	kept, err := audit.ReadHead(files[len(files)-1])
	if err != nil {
		return report, failed("give the hash that you know as --head, and move the file away", "%w", err)
	}
	var wanted []string
	if kept != nil && kept.Seq > 0 {
		wanted = append(wanted, kept.Hash)
	}
	if head != "" {
		wanted = append(wanted, head)
	}
	v := audit.NewVerifier(wanted...)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return report, failed("", "reading the audit file: %w", err)
		}
		err = v.Read(file, f)
		f.Close()
		if err != nil {
			return report, failed("", "%w", err)
		}
	}
	return v.Report(kept), nil
}

func printReport(w io.Writer, r *audit.Report) error {
	var b strings.Builder
	for _, f := range r.Faults {
		b.WriteString(printable(f.String()) + "\n")
	}
	switch {
	case len(r.Faults) > 0:
	case r.Lines == 0:
		b.WriteString("no lines\n")
	default:
		fmt.Fprintf(&b, "%s, number %d to %d, as they were written\nhead %s\n", count(r.Lines, "line"), r.First, r.Head.Seq, r.Head.Hash)
	}
	if r.First > 1 {
		fmt.Fprintf(&b, "note: they go on from a file that was not given; give it first to verify both\n")
	}
	if !r.Anchored {
		fmt.Fprintf(&b, "note: no head is kept beside the file and no --head is given: lines that were cut off at the end are not found\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ago is a moment as a flag: RFC 3339, or how long ago it was.
type ago struct {
	text string
	at   time.Time
	span span
}

func (a *ago) Set(text string) error {
	var i instant
	if i.Set(text) != nil && a.span.Set(text) != nil {
		return errors.New("want a time such as 2026-11-24T08:00:00Z, or how long ago it was, such as 2h or 7d")
	}
	a.text, a.at = text, i.Time
	return nil
}

func (a *ago) String() string { return a.text }
func (*ago) Type() string     { return "time" }

// moment is when it was; zero where the flag was not given.
func (a *ago) moment(now time.Time) time.Time {
	if a.text == "" || !a.at.IsZero() {
		return a.at
	}
	return now.Add(-a.span.Duration)
}

func newAuditQuery(p process) *cobra.Command {
	var flags adminFlags
	var q audit.Query
	var since, until ago
	output := oneOf("text", "json")
	kind := oneOf("", audit.Kinds...)
	decision := oneOf("", admin.AuditDecisions...)
	c := &cobra.Command{
		Use:   "query [FILE...]",
		Short: "Search the audit file: which deliveries were accepted with the leaked key",
		Long: `query prints the lines of audit files that match, in their order. Without a file it asks the running server for its
own. It does not verify them: audit verify does.

With -o json the lines are as they were written, in one object.

Exit code 1 if lines could not be read: the file was changed.`,
		Example: `  # which deliveries were accepted with the leaked key
  hookauthz audit query --endpoint github --secret-version 2026-04 --decision allow --since 7d
  # who did what
  hookauthz audit query audit.jsonl --kind action -o json`,
		RunE: func(c *cobra.Command, files []string) error {
			q.Kind, q.Decision = kind.value, decision.value
			now := p.now()
			q.Since, q.Until = since.moment(now), until.moment(now)
			search := func(found func(audit.Entry, []byte) error) (searched, error) { return searchFiles(files, q, found) }
			if len(files) == 0 {
				client, err := flags.client()
				if err != nil {
					return err
				}
				search = func(found func(audit.Entry, []byte) error) (searched, error) {
					return searchServer(c, client, q, found)
				}
			}
			s, err := printEntries(p.stdout, output.value == "json", search)
			if s.begins != nil && q.Since.Before(s.begins.Time) {
				fmt.Fprintf(p.stderr, "note: the file begins with number %d, of %s: what is older is in the file before it, which was moved away; 'audit query FILE...' reads both\n",
					s.begins.Seq, stamp(s.begins.Time))
			}
			if err == nil && s.unread > 0 {
				return failed("'hookauthz audit verify' tells them", "%s could not be read: the file was changed", count(s.unread, "line"))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&q.Endpoint, "endpoint", "", "`name` of the webhook")
	f.StringVar(&q.SecretVersion, "secret-version", "", "`version` of the secret that the delivery was signed with")
	f.Var(&since, "since", "from this moment on: RFC 3339, or how long ago (2h, 7d)")
	f.Var(&until, "until", "before this moment: RFC 3339, or how long ago")
	choose(c, decision, "decision", "", "how it was decided")
	choose(c, kind, "kind", "", "kind of line")
	flags.add(c)
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

// searched is what a search came to, beside what it found.
type searched struct {
	unread int          // lines
	begins *audit.Begin // where the first file goes on from another
}

// searchFiles reads files line by line.
func searchFiles(files []string, q audit.Query, found func(audit.Entry, []byte) error) (s searched, err error) {
	for n, file := range files {
		f, err := os.Open(filepath.Clean(file))
		if err != nil {
			return s, failed("", "reading the audit file: %w", err)
		}
		if n == 0 {
			s.begins = audit.BeginOf(f)
		}
		part, err := audit.Find(f, q, found)
		f.Close()
		s.unread += part.Unread
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// searchServer asks a running server page by page.
func searchServer(c *cobra.Command, client *adminClient, q audit.Query, found func(audit.Entry, []byte) error) (s searched, err error) {
	query := url.Values{"limit": {"1000"}}
	for name, value := range map[string]string{"kind": q.Kind, "endpoint": q.Endpoint, "secret_version": q.SecretVersion, "decision": q.Decision} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			query.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	for {
		var page admin.AuditPage
		if err := client.get(c.Context(), "/api/v1/audit", query, &page); err != nil {
			return s, err
		}
		s.unread += page.Unread
		if page.Begins != nil {
			s.begins = page.Begins
		}
		for _, line := range page.Entries {
			var e audit.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				return s, failed("", "the answer of %s holds a line that cannot be read", client.shown)
			}
			if err := found(e, line); err != nil {
				return s, err
			}
		}
		if page.Next == "" {
			return s, nil
		}
		query.Set("after", page.Next)
	}
}

// printEntries prints what is found, as it is found.
func printEntries(w io.Writer, asJSON bool, search func(found func(audit.Entry, []byte) error) (searched, error)) (s searched, err error) {
	if !asJSON {
		return search(func(e audit.Entry, _ []byte) error {
			_, err := io.WriteString(w, entryText(&e)+"\n")
			return err
		})
	}
	between := "{\"entries\": ["
	s, err = search(func(_ audit.Entry, line []byte) error {
		_, err := fmt.Fprintf(w, "%s\n%s", between, bytes.TrimSuffix(line, []byte("\n")))
		between = ","
		return err
	})
	if between != "," {
		fmt.Fprint(w, between)
	}
	if _, e := fmt.Fprintf(w, "\n], \"unread\": %d}\n", s.unread); err == nil {
		err = e
	}
	return s, err
}

// entryText is a line for people.
func entryText(e *audit.Entry) string {
	parts := []string{stamp(e.Time), e.Kind}
	add := func(label, value string) {
		if value != "" {
			parts = append(parts, strings.TrimSpace(label+" "+printable(value)))
		}
	}
	number := func(label string, n int) {
		if n != 0 {
			add(label, strconv.Itoa(n))
		}
	}
	add("", e.Action)
	add("", e.Decision)
	add("", e.Reason)
	add("but for shadow mode", e.Shadow)
	add("", e.Endpoint)
	add("version", e.SecretVersion)
	add("", e.Address)
	add("", e.Result)
	number("faults", e.Faults)
	number("count", e.Count)
	if !e.Until.IsZero() {
		add("until", stamp(e.Until))
	}
	add("id", e.DeliveryID)
	add("event", e.EventType)
	add("from", e.ClientAddress+e.From)
	add("request", e.RequestID)
	add("by", e.By)
	add("token", e.Token)
	add("why", e.Why)
	add("", e.Problem)
	add("program", e.Version)
	if e.Kind == audit.Start || e.Kind == audit.Reload {
		add("revision", e.PolicyRevision)
	}
	return strings.Join(parts, "  ")
}
