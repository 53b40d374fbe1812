package incident

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// document is how incidents are kept, in a file and in a shared store: JSON, sorted by what they are about.
type document struct {
	Version   int        `json:"version"`
	Incidents []Incident `json:"incidents"`
}

const (
	documentVersion = 1
	// maxDocument bounds what is read.
	maxDocument = 4 << 20
	// maxRecords bounds the records, those of what has ended among them.
	maxRecords = 4 * MaxInForce
)

// remembered is how long the record of what has ended stays, so that a server that was away does not bring it back.
const remembered = 24 * time.Hour

func encode(all map[string]Incident) []byte {
	d := document{Version: documentVersion, Incidents: []Incident{}}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		d.Incidents = append(d.Incidents, all[key])
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(d); err != nil {
		panic(err) // times are within years that can be written: check has seen to it
	}
	return b.Bytes()
}

// decode reads a document strictly. Nothing at all is a document without incidents.
func decode(data []byte) (map[string]Incident, error) {
	all := make(map[string]Incident)
	if len(data) == 0 {
		return all, nil
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("it has more than %d bytes", maxDocument)
	}
	var d document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return nil, fmt.Errorf("after byte %d: %s", decoder.InputOffset(), strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("after byte %d: something follows the object", decoder.InputOffset())
	}
	if d.Version != documentVersion {
		return nil, fmt.Errorf("it has the version %d; this program knows %d", d.Version, documentVersion)
	}
	if len(d.Incidents) > maxRecords {
		return nil, fmt.Errorf("it holds %d incidents; %d are the most", len(d.Incidents), maxRecords)
	}
	for n, i := range d.Incidents {
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("incident %d: %w", n+1, err)
		}
		if _, again := all[i.key()]; again {
			return nil, fmt.Errorf("incident %d: there are two of %s", n+1, i.What())
		}
		all[i.key()] = i
	}
	return all, nil
}

// later says which of two records of one thing counts. Equal moments fall to either, but to the same one everywhere.
func later(a, b Incident) bool {
	if !a.Changed.Equal(b.Changed) {
		return a.Changed.After(b.Changed)
	}
	one := func(i Incident) string { return string(encode(map[string]Incident{"": i})) }
	return one(a) > one(b)
}

// merge takes over what others know that is newer, and reports whether they lack something that is known here.
func merge(mine, theirs map[string]Incident, now time.Time) (theyLack bool) {
	for key, t := range theirs {
		if m, known := mine[key]; !known || later(t, m) {
			mine[key] = t
		}
	}
	for key, m := range mine {
		if t, known := theirs[key]; known && later(m, t) || !known && !old(m, now) {
			theyLack = true
		}
	}
	forget(mine, now)
	return theyLack
}

// old says that an incident has ended long ago.
func old(i Incident, now time.Time) bool {
	ended := i.Until
	if i.Undone {
		ended = i.Changed
	}
	return !ended.IsZero() && now.Sub(ended) > remembered
}

// forget drops what ended long ago, and what ended first where there is too much.
func forget(all map[string]Incident, now time.Time) {
	maps.DeleteFunc(all, func(_ string, i Incident) bool { return old(i, now) })
	for len(all) > maxRecords {
		first := ""
		for key, i := range all {
			if !i.InForce(now) && (first == "" || i.Changed.Before(all[first].Changed)) {
				first = key
			}
		}
		if first == "" {
			return
		}
		delete(all, first)
	}
}
