package main

import (
	"log/slog"
	"time"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/fetch"
)

// newRefresher keeps the address lists fresh that the policies in force want.
func newRefresher(engine *policy.Engine, cache string, metrics *extauthz.ListMetrics, logger *slog.Logger, now func() time.Time) *fetch.Refresher {
	return &fetch.Refresher{
		Client: fetch.New(fetch.Config{}),
		Cache:  cache,
		Now:    now,
		Sources: func() []fetch.Source {
			var sources []fetch.Source
			for _, l := range engine.Set().AddressLists() {
				sources = append(sources, fetch.Source{Name: l.Name, URL: l.URL, File: l.File, Interval: l.Interval})
			}
			return sources
		},
		Take: func(name string, data []byte) error {
			entries, err := engine.TakeList(name, data)
			if err == nil {
				metrics.Taken(name, entries)
			}
			return err
		},
		Report: func(name string, at time.Time, err error) {
			metrics.Refreshed(name, at, err == nil)
			if err != nil {
				logger.Error("address list not refreshed: the last good one stays in force", "list", name, "error", err)
				return
			}
			logger.Info("address list refreshed", "list", name, "fetched", at.UTC().Format(time.RFC3339))
		},
	}
}
