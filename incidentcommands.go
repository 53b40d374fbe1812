package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy/incident"
)

// actionCommand describes one of the commands that put something in force or undo it.
type actionCommand struct {
	action  string
	use     string
	short   string
	long    string
	example string
	what    string // it takes
	args    int
	lasts   bool // it wants --for
	why     bool // it wants --why
}

// aboutActions is what each of them says about itself.
const aboutActions = `

It is asked of a running serve through its admin listener, in force there at once, and on every server within a second where
they share a store. It outlives a restart where there is a shared store or serve has a --state file; the answer says so. Every action is logged, and
audited where serve has an --audit file, with the name of the token and --by.`

var actionCommands = []actionCommand{
	{
		action: "pause", use: "pause ENDPOINT --for TIME --why TEXT", short: "Refuse every delivery to a webhook for a while",
		long:    "pause has every delivery to a webhook answered with 503 and Retry-After, so that senders try again later. It ends by itself.",
		example: "  hookauthz pause github --for 1h --why \"INC-1234: signing key leaked\"",
		what:    "one webhook", args: 1, lasts: true, why: true,
	},
	{
		action: "unpause", use: "unpause ENDPOINT", short: "End the pause of a webhook",
		long: "unpause ends what pause began. A pausedUntil of the policy stays.", example: "  hookauthz unpause github",
		what: "one webhook", args: 1,
	},
	{
		action: "revoke", use: "revoke ENDPOINT VERSION --why TEXT", short: "Refuse what is signed with one version of a secret",
		long: `revoke makes a secret version count as revoked: what is signed with it is denied (secret_expired). It lasts until restore; write
revoked: true into the policy, or delete the version, as soon as you can.`,
		example: "  hookauthz revoke github 2026-04 --why \"INC-1234: key in a public repository\"",
		what:    "a webhook and a version", args: 2, why: true,
	},
	{
		action: "restore", use: "restore ENDPOINT VERSION", short: "Undo the revocation of a secret version",
		long: "restore undoes what revoke did. A revoked: true of the policy stays.", example: "  hookauthz restore github 2026-04",
		what: "a webhook and a version", args: 2,
	},
	{
		action: "block", use: "block ADDRESS|CIDR --for TIME --why TEXT", short: "Deny every delivery from an address for a while",
		long: `block denies every delivery from an address or a range (source_denied), to every webhook, those in shadow mode too. The address is that of the
client, as the log has it in client_address. Every address, ranges of more than a /8 (IPv6: /16) and the trusted proxies of a policy are refused.
It ends by itself.`,
		example: "  hookauthz block 203.0.113.7 --for 1h --why \"INC-1234: guessing\"\n  hookauthz block 2001:db8::/32 --for 2d --why \"INC-1234: scanning\"",
		what:    "one address or range", args: 1, lasts: true, why: true,
	},
	{
		action: "unblock", use: "unblock ADDRESS|CIDR", short: "End the block of an address",
		long: "unblock ends what block began, for the same address or range.", example: "  hookauthz unblock 203.0.113.7",
		what: "one address or range", args: 1,
	},
}

func newActions(p process) (commands []*cobra.Command) {
	for _, a := range actionCommands {
		commands = append(commands, newAction(p, a))
	}
	return commands
}

func newAction(p process, a actionCommand) *cobra.Command {
	var flags adminFlags
	var lasts span
	var why, by string
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use: a.use, Short: a.short, Long: a.long + aboutActions, Example: a.example, DisableFlagsInUseLine: true,
		Args: takes(a.args, a.args, a.what),
		RunE: func(c *cobra.Command, args []string) error {
			action := admin.Action{Action: a.action, Why: why, By: by}
			if strings.HasSuffix(a.action, "block") {
				if _, err := incident.ParseAddress(args[0]); err != nil {
					r, _ := incident.IsRefused(err)
					return misused(r.Fix, "%s", r.Problem)
				}
				action.Address = args[0]
			} else if action.Endpoint = args[0]; a.args == 2 {
				action.Version = args[1]
			}
			switch {
			case a.lasts && lasts.Duration == 0:
				return required(c, "for")
			case a.lasts && (lasts.Duration < time.Second || lasts.Duration > incident.MaxLength):
				return misused("what is meant for longer belongs in the policy files", "--for %s is not between 1s and 30d", lasts.Duration)
			case a.why && strings.TrimSpace(why) == "":
				return required(c, "why")
			case a.lasts:
				action.For = lasts.Duration.String()
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			var done admin.Done
			if err := client.post(c.Context(), "/api/v1/incidents", action, &done); err != nil {
				return err
			}
			if output.value == "json" {
				return printJSON(p.stdout, done)
			}
			return printDone(p.stdout, &done)
		},
	}
	f := c.Flags()
	if a.lasts {
		f.Var(&lasts, "for", "how long it lasts, at most 30d")
	}
	if a.why {
		f.StringVar(&why, "why", "", "`text` for those who find it later")
	}
	user, _ := p.lookup("USER")
	f.StringVar(&by, "by", user, "who does it, beside the name of the token")
	flags.add(c)
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

// printDone says what an action did, until when, where it is kept and how to undo it.
func printDone(w io.Writer, d *admin.Done) error {
	i := &d.Incident
	version := fmt.Sprintf("Version %s of %s", printable(i.Version), printable(i.Endpoint))
	var text, undo string
	switch d.Action {
	case "pause":
		text, undo = fmt.Sprintf("%s is paused until %s: senders get 503 and try again.", printable(i.Endpoint), stamp(i.Until)), "unpause "+i.Endpoint
	case "unpause":
		text = printable(i.Endpoint) + " is not paused any more."
	case "revoke":
		text, undo = version+" is revoked until it is restored: what is signed with it is denied.", "restore "+i.Endpoint+" "+i.Version
	case "restore":
		text = version + " is not revoked any more."
	case "block":
		text, undo = fmt.Sprintf("%s is blocked until %s, for every webhook.", printable(i.Address), stamp(i.Until)), "unblock "+i.Address
	case "unblock":
		text = printable(i.Address) + " is not blocked any more."
	}
	text += "\n" + whereKept(d.Kept) + "\n"
	for _, note := range d.Notes {
		text += "note: " + printable(note) + "\n"
	}
	if undo != "" {
		text += "Undo: hookauthz " + printable(undo) + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// whereKept says how far an action reaches.
func whereKept(k admin.Kept) string {
	switch {
	case k.Pending != "" && k.Kept == incident.InStore:
		return "On this server only: the store does not answer (" + printable(k.Pending) + "). It is written there when it does."
	case k.Pending != "":
		return "It ends with the process: it cannot be kept (" + printable(k.Pending) + "). The server tries again."
	case k.Kept == incident.InStore:
		return "On every server within a second; kept in the store."
	case k.Kept == incident.InFile:
		return "On this server; kept over a restart."
	}
	return "On this server, and it ends with the process: start serve with --state FILE or a shared --store to keep it."
}

func newIncidents(p process) *cobra.Command {
	var flags adminFlags
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "incidents",
		Short: "List what is paused, revoked and blocked",
		Long: `incidents lists what the people on call have put in force with pause, revoke and block, and what the policies
pause and revoke: since when, until when, by whom and why.`,
		Example: "  hookauthz incidents\n  hookauthz incidents -o json",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := flags.client()
			if err != nil {
				return err
			}
			all := admin.IncidentList{Incidents: []admin.Incident{}}
			for query := (url.Values{}); ; query.Set("after", all.Next) {
				var page admin.IncidentList
				if err := client.get(c.Context(), "/api/v1/incidents", query, &page); err != nil {
					return err
				}
				all.Incidents = append(all.Incidents, page.Incidents...)
				all.Kept, all.Next = page.Kept, page.Next
				if page.Next == "" {
					break
				}
			}
			if output.value == "json" {
				return printJSON(p.stdout, all)
			}
			return printIncidents(p.stdout, &all)
		},
	}
	flags.add(c)
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

func printIncidents(w io.Writer, all *admin.IncidentList) error {
	if len(all.Incidents) == 0 {
		_, err := io.WriteString(w, "Nothing is paused, revoked or blocked.\n")
		return err
	}
	rows := [][]string{{"KIND", "WHAT", "UNTIL", "SINCE", "BY", "WHY"}}
	for _, i := range all.Incidents {
		what, until, since, by := strings.TrimSpace(i.Endpoint+" "+i.Version)+i.Address, "undone", "", i.By
		if !i.Until.IsZero() {
			until = stamp(i.Until)
		}
		if !i.Since.IsZero() {
			since = stamp(i.Since)
		}
		if i.Token != "" {
			by = strings.TrimSpace(by + " (" + i.Token + ")")
		}
		why := i.Why
		switch i.State {
		case "policy":
			by = "the policy"
			if i.Kind == string(incident.Revoke) {
				until = "changed"
			}
		case "dormant":
			why += " [not in the policies now]"
		}
		rows = append(rows, []string{i.Kind, what, until, since, by, why})
	}
	_, err := io.WriteString(w, columns(rows)+whereKept(all.Kept)+"\n")
	return err
}
