package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hookauthz/hookauthz/policy"
)

// listed asks whether a delivery from an address passes at an endpoint that takes deliveries from lists alone.
func listed(t *testing.T, e *policy.Engine, address string) bool {
	t.Helper()
	r := signed(t, e, "hook", now, address)
	r.Peer = netip.MustParseAddr(address)
	switch got := verdict(e.Decide(t.Context(), r)); got {
	case "allow ok", "allow duplicate":
		return true
	case "deny source_denied 403":
		return false
	default:
		t.Fatalf("%s: %s", address, got)
		return false
	}
}

// Every address of the catalogue is in its list, and its neighbour is not.
func TestShippedLists(t *testing.T) {
	lists := policy.ShippedLists()
	if len(lists) < 16 {
		t.Fatalf("%d lists", len(lists))
	}
	for _, l := range lists {
		e := engine(t, webhook(githubScheme, "source: {lists: ["+l.Name+"]}"))
		if len(l.Addresses) == 0 && (l.URL == "" || len(e.Set().Warnings()) != 1) {
			t.Errorf("%s: no addresses, URL %q, warnings %v", l.Name, l.URL, e.Set().Warnings())
		}
		if l.Confidence == "" || l.Date == "" || l.Provider == "" {
			t.Errorf("%s: confidence %q, date %q, provider %q", l.Name, l.Confidence, l.Date, l.Provider)
		}
		for _, text := range l.Addresses {
			address, _, _ := strings.Cut(text, "/")
			if !listed(t, e, address) {
				t.Errorf("%s: %s is denied", l.Name, address)
			}
		}
		for _, address := range []string{"203.0.113.1", "2001:db8::1", "127.0.0.1"} {
			if listed(t, e, address) {
				t.Errorf("%s: %s passes", l.Name, address)
			}
		}
	}
}

const ownList = `---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookAddressList
metadata: {name: github-hooks}
spec: {interval: 1h}
---
apiVersion: hookauthz.io/v1alpha1
kind: WebhookAddressList
metadata: {name: own}
spec: {url: "https://example.com/addresses", format: lines}
`

func TestTakeList(t *testing.T) {
	e := engine(t, webhook(githubScheme, "source: {lists: [github-hooks, own], deny: [198.51.100.9]}")+ownList)
	want := []policy.AddressList{
		{Name: "github-hooks", URL: "https://api.github.com/meta", Format: "json", Pointer: "/hooks", Interval: 3600e9},
		{Name: "own", URL: "https://example.com/addresses", Format: "lines", Interval: 24 * 3600e9},
	}
	for i, got := range e.Set().AddressLists() {
		if got.Name != want[i].Name || got.URL != want[i].URL || got.Format != want[i].Format || got.Pointer != want[i].Pointer || got.Interval != want[i].Interval {
			t.Errorf("list %d is %+v, want %+v", i, got, want[i])
		}
	}
	if listed(t, e, "192.30.252.1") {
		t.Error("an address passes before the list was fetched")
	}
	if n, err := e.TakeList("github-hooks", []byte(`{"hooks":["192.30.252.0/22","2a0a:a440::/29","185.199.108.0/22"],"web":["0.0.0.0/0"]}`)); n != 3 || err != nil {
		t.Fatalf("got %d entries, %v", n, err)
	}
	if !listed(t, e, "192.30.252.1") || !listed(t, e, "2a0a:a440::1") || listed(t, e, "192.30.251.255") {
		t.Error("the fetched list is not in force")
	}
	if _, err := e.TakeList("own", []byte("# ours\n198.51.100.7\n198.51.100.9 # denied below\n")); err != nil {
		t.Fatal(err)
	}
	if !listed(t, e, "198.51.100.7") || listed(t, e, "198.51.100.9") {
		t.Error("deny does not stand above the lists")
	}
	for name, data := range map[string]string{
		"empty":          `{"hooks":[]}`,
		"no such key":    `{}`,
		"every address":  `{"hooks":["192.30.252.0/22","0.0.0.0/0","185.199.108.0/22"]}`,
		"unreadable":     `{"hooks":["192.30.252.0/22","example.com","185.199.108.0/22"]}`,
		"host bits":      `{"hooks":["192.30.252.1/22","185.199.108.0/22"]}`,
		"shrunk":         `{"hooks":["185.199.108.0/22"]}`,
		"not JSON":       `<html>`,
		"not addresses":  `{"hooks":[1,2,3]}`,
		"a map of lists": `{"hooks":{"a":["185.199.108.0/22"]}}`,
	} {
		if n, err := e.TakeList("github-hooks", []byte(data)); err == nil {
			t.Errorf("%s: %d entries were taken", name, n)
		}
	}
	if !listed(t, e, "192.30.252.1") {
		t.Error("the last good list is gone")
	}
	if _, err := e.TakeList("stripe", []byte(`{"WEBHOOKS":["3.18.12.63"]}`)); err == nil {
		t.Error("a list that no policy file refreshes was taken")
	}
	e.Swap(load(t, webhook(githubScheme, "source: {lists: [github-hooks]}")+ownList))
	if !listed(t, e, "192.30.252.1") {
		t.Error("a reload of policies lost the list")
	}
}
