package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz/admin"
)

func newStatus(p process) *cobra.Command {
	var flags adminFlags
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what a running server serves, and how it is",
		Long: `status asks the admin listener of a running serve for its version, the policies in force, how their last reload
went with every fault, and whether the store answers.

Exit code 1 if the last reload failed, the store is away or the server is stopping.`,
		Example: "  hookauthz status\n  hookauthz status --admin-url https://hooks.example.com:9002 --admin-token-file token -o json",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := flags.client()
			if err != nil {
				return err
			}
			var s admin.Status
			if err := client.get(c.Context(), "/api/v1/status", nil, &s); err != nil {
				return err
			}
			if output.value == "json" {
				err = printJSON(p.stdout, s)
			} else {
				err = printStatus(p.stdout, &s)
			}
			if err == nil && (!s.Reload.Success || s.Breaker == "open" || s.Draining) {
				return errSaid
			}
			return err
		},
	}
	flags.add(c)
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

func printStatus(w io.Writer, s *admin.Status) error {
	rows := [][]string{
		{"version", s.Version},
		{"started", stamp(s.Started)},
		{"policies", fmt.Sprintf("%s, revision %s", count(s.Webhooks, "webhook"), s.Revision)},
		{"environment", s.Environment},
		{"store", s.Store},
	}
	if s.Breaker != "" {
		rows[4][1] += ", breaker " + s.Breaker
	}
	if s.Environment == "" {
		rows[3][1] = "none"
	}
	reload := "good, " + stamp(s.Reload.At)
	switch {
	case s.Reload.Error != "":
		reload = fmt.Sprintf("failed, %s: %s", stamp(s.Reload.At), s.Reload.Error)
	case !s.Reload.Success:
		reload = fmt.Sprintf("failed, %s: %s; the policies before stay in force", stamp(s.Reload.At), count(len(s.Reload.Faults), "fault"))
	}
	rows = append(rows, []string{"reload", reload})
	if s.Draining {
		rows = append(rows, []string{"stopping", "it finishes the checks in flight"})
	}
	text := columns(rows)
	if len(s.Reload.Faults) > 0 {
		text += s.Reload.Faults.Error() + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// stamp writes a moment for people.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
