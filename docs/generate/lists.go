package main

import (
	"fmt"
	"strings"

	"github.com/hookauthz/hookauthz/policy"
)

const listsHead = `# Address lists

Lists of addresses that senders publish. A policy names them beside, or in place of, its own ` + "`allow`" + `:

` + "```yaml" + `
source:
  lists: [github-hooks]
` + "```" + `

A list with addresses ships as a snapshot of its date, and senders do change theirs. A document of kind ` + "`WebhookAddressList`" + ` with the
name of the list keeps it up to date; a list without a snapshot denies every address until then:

` + "```yaml" + `
apiVersion: hookauthz.io/v1alpha1
kind: WebhookAddressList
metadata: {name: github-hooks}
spec: {interval: 24h}
` + "```" + `

` + "`url`, `format` and `pointer`" + ` default to what the table says; ` + "`file: PATH`" + ` reads a file instead, and a name that is not in the table is a list of
your own. An empty list, one that holds every address, and one that lost more than half of its entries leave the one before in force.

`

// listsPage is a table of the lists that are built in.
func listsPage() string {
	rows := [][]string{{"list", "sender", "addresses", "published at", "confidence", "as of"}}
	for _, l := range policy.ShippedLists() {
		addresses := codes(l.Addresses, ", ")
		if addresses == "" {
			addresses = "none: fetch it"
		}
		rows = append(rows, []string{code(l.Name), text(l.Provider), addresses, publishedCell(l), lines(text(l.Confidence), text(l.Source)), l.Date})
	}
	return listsHead + table(rows)
}

func publishedCell(l policy.AddressList) string {
	if l.URL == "" {
		return "in its docs only"
	}
	at := l.Format
	if l.Pointer != "" {
		at = fmt.Sprintf("%s, %s", l.Format, code(l.Pointer))
	}
	return lines("<"+strings.TrimSpace(l.URL)+">", at)
}
