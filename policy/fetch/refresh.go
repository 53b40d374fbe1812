package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Source is a document that is fetched again and again. It has a URL or a File.
type Source struct {
	Name      string
	URL, File string
	Interval  time.Duration
}

// Refresher keeps documents fresh.
type Refresher struct {
	Client *Client
	// Cache is a folder in which fetched documents outlive the process. Empty: none.
	Cache string
	// Sources are the documents that are wanted now.
	Sources func() []Source
	// Take is given each document. An error keeps the one before in force, and out of the cache.
	Take func(name string, data []byte) error
	// Report is told how each attempt went. May be nil.
	Report func(name string, at time.Time, err error)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Attempts are made again after this time where one failed, or sooner if the interval is shorter.
const retryAfter = 5 * time.Minute

// look is how often the wanted sources are looked at.
const look = time.Second

// Run refreshes until ctx ends. Documents in the cache are given first, as old as they are; then each is fetched when it is due.
func (r *Refresher) Run(ctx context.Context) {
	defer r.Client.Close()
	due := make(map[Source]time.Time)
	ticks := time.NewTicker(look)
	defer ticks.Stop()
	for {
		r.round(ctx, due)
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// round makes one attempt for each source that is due.
func (r *Refresher) round(ctx context.Context, due map[Source]time.Time) {
	wanted := r.Sources()
	for source := range due {
		if !contains(wanted, source) {
			delete(due, source)
		}
	}
	for _, source := range wanted {
		at, known := due[source]
		if !known {
			due[source] = r.start(source)
			at = due[source]
		}
		if ctx.Err() != nil || r.now().Before(at) {
			continue
		}
		wait := source.Interval
		err := r.refresh(ctx, source)
		if err != nil {
			wait = min(wait, retryAfter)
		}
		// Servers that many fetch from should not be asked by all at once.
		due[source] = r.now().Add(wait + rand.N(wait/10+1))
		r.report(source.Name, err)
	}
}

func contains(sources []Source, s Source) bool {
	for _, other := range sources {
		if other == s {
			return true
		}
	}
	return false
}

// start gives a document from the cache and says when it is due.
func (r *Refresher) start(s Source) time.Time {
	if r.Cache == "" || s.File != "" {
		return r.now()
	}
	path := r.cached(s)
	info, err := os.Stat(path)
	if err != nil {
		return r.now()
	}
	data, err := readFile(path, r.Client.config.MaxBytes)
	if err != nil || r.Take(s.Name, data) != nil {
		return r.now()
	}
	if r.Report != nil {
		r.Report(s.Name, info.ModTime(), nil)
	}
	return info.ModTime().Add(s.Interval)
}

func (r *Refresher) refresh(ctx context.Context, s Source) error {
	var data []byte
	var err error
	if s.File != "" {
		data, err = readFile(s.File, r.Client.config.MaxBytes)
	} else {
		data, err = r.Client.Get(ctx, s.URL)
	}
	if err != nil {
		return err
	}
	if err := r.Take(s.Name, data); err != nil {
		return err
	}
	if r.Cache == "" || s.File != "" {
		return nil
	}
	if err := writeFile(r.cached(s), data); err != nil {
		return fmt.Errorf("the document is in force but cannot be cached: %w", err)
	}
	return nil
}

// cached is the file of a source in the cache: another URL is another document.
func (r *Refresher) cached(s Source) string {
	sum := sha256.Sum256([]byte(s.URL))
	return filepath.Join(r.Cache, s.Name+"-"+hex.EncodeToString(sum[:6]))
}

func (r *Refresher) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

func (r *Refresher) report(name string, err error) {
	if r.Report != nil {
		r.Report(name, r.now(), err)
	}
}

func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = ErrTooLarge
	}
	return data, err
}

// writeFile replaces a file in one step, so that a crash leaves the old one or the new one.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
