package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy"
)

// secrets reports on the secret versions in force, for the admin listener.
func (s *server) secrets(now func() time.Time, started time.Time) func(context.Context, admin.SecretsQuery) admin.Secrets {
	return func(ctx context.Context, q admin.SecretsQuery) admin.Secrets {
		elsewhere, err := s.store.lastUses(ctx)
		report := admin.Secrets{Since: started, Shared: s.store != nil && err == nil}
		if err != nil {
			report.Error = "the store does not say what the other servers have seen"
		}
		report.Secrets = s.policies.engine.Rotation(policy.RotationOptions{Now: now(), Since: started, Elsewhere: elsewhere, Quiet: q.Quiet, Soon: q.Soon})
		return report
	}
}

func newSecretsStatus(p process) *cobra.Command {
	var flags adminFlags
	var endpoint string
	quiet, within := span{policy.DefaultQuiet}, span{policy.DefaultSoon}
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "status",
		Short: "Say which version of each secret its sender uses, what ends soon and what may go",
		Long: `status asks the admin listener of a running serve for every secret version: whether it is in force, when it was last
used, when it ends. Below the table it says what to do.

With a shared store the last use is that of all servers; a server with a memory of its own knows only what it has seen
itself since its start. Matches are always those of the server that is asked.`,
		Example: `  hookauthz secrets status
  hookauthz secrets status --endpoint github
  hookauthz secrets status --quiet 3d --within 30d -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := flags.client()
			if err != nil {
				return err
			}
			query := url.Values{"limit": {"1000"}, "quiet": {quiet.String()}, "within": {within.String()}}
			if endpoint != "" {
				query.Set("endpoint", endpoint)
			}
			var all admin.Secrets
			for {
				var page admin.Secrets
				if err := client.get(c.Context(), "/api/v1/secrets", query, &page); err != nil {
					return err
				}
				page.Secrets = append(all.Secrets, page.Secrets...)
				all = page
				if page.Next == "" {
					break
				}
				query.Set("after", page.Next)
			}
			if output.value == "json" {
				return printJSON(p.stdout, all)
			}
			return printSecrets(p.stdout, &all)
		},
	}
	flags.add(c)
	f := c.Flags()
	f.StringVar(&endpoint, "endpoint", "", "only the secrets of the webhook of this `name`")
	f.Var(&quiet, "quiet", "how long a version must not have been used, while another is, before it may go")
	f.Var(&within, "within", "how long before its end a version is told of")
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

func printSecrets(w io.Writer, s *admin.Secrets) error {
	rows := [][]string{{"ENDPOINT", "VERSION", "STATE", "LAST USED", "MATCHES", "ENDS", ""}}
	var advice string
	for i := range s.Secrets {
		v := &s.Secrets[i]
		row := []string{v.Endpoint, v.Version, string(v.State), "never", strconv.FormatUint(v.Matches, 10), "", ""}
		if !v.LastUsed.IsZero() {
			row[3] = stamp(v.LastUsed)
		}
		if !v.NotAfter.IsZero() {
			row[5] = stamp(v.NotAfter)
		}
		switch {
		case v.SafeToRemove:
			row[6] = "may go"
		case v.Current:
			row[6] = "in use"
		}
		rows = append(rows, row)
		if v.Note != "" {
			advice += printable(fmt.Sprintf("%s, version %s: %s", v.Endpoint, v.Version, v.Note)) + "\n"
		}
	}
	if len(s.Secrets) == 0 {
		_, err := fmt.Fprintln(w, "no webhook has a secret")
		return err
	}
	known := "of this server alone, since " + stamp(s.Since)
	switch {
	case s.Shared:
		known = "of all servers that share the store"
	case s.Error != "":
		known += ": " + printable(s.Error)
	}
	text := columns(rows) + "last used: " + known + "\n"
	if advice != "" {
		text += "\n" + advice
	}
	_, err := io.WriteString(w, text)
	return err
}
