package extauthz

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// HistoryStep is the length of one step of a History.
	HistoryStep = 10 * time.Second
	// HistorySteps is how many steps a History goes back: one hour.
	HistorySteps = 360
	// maxSeries bounds the memory of a History: a series takes 1.5 KB.
	maxSeries = 8192
)

// History keeps how many decisions there were in each ten seconds of the last hour, by endpoint, decision and reason. It reads the
// counters of Metrics from time to time, so that a check pays nothing for it.
type History struct {
	metrics *Metrics

	mu    sync.Mutex // guards what follows
	step  int64      // the newest, counted from the epoch
	seen  map[DecisionKind]uint64
	rings map[DecisionKind]*ring
	full  bool
}

// DecisionKind is what decisions are counted by.
type DecisionKind struct {
	Endpoint string `json:"endpoint"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
}

// ring is the counts of the last steps: step n stands at n modulo HistorySteps.
type ring struct {
	last   int64 // newest step with a decision
	counts [HistorySteps]uint32
}

// Series is how many decisions of a kind there were in each step, the oldest first.
type Series struct {
	DecisionKind
	Counts []uint32 `json:"counts"`
}

// NewHistory makes a History that knows nothing yet. Run must be called for it to learn.
func NewHistory(m *Metrics) *History {
	return &History{metrics: m, rings: make(map[DecisionKind]*ring)}
}

// Run samples the counters until ctx ends.
func (h *History) Run(ctx context.Context, now func() time.Time) {
	ticker := time.NewTicker(HistoryStep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			h.Sample(now())
		}
	}
}

// Sample takes what the counters have gained since the last call as the decisions of the step in which now lies.
func (h *History) Sample(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now.Unix() / int64(HistoryStep/time.Second))
	seen := make(map[DecisionKind]uint64, len(h.seen))
	h.metrics.eachDecision(func(k DecisionKind, total uint64) {
		seen[k] = total
		gained := total - h.seen[k]
		if total < h.seen[k] { // the endpoint had left the policies, and is back
			gained = total
		}
		if gained > 0 {
			h.add(k, gained)
		}
	})
	h.seen = seen
}

// advance makes step the newest one, if it is. Rings without a decision within the hour go.
func (h *History) advance(step int64) {
	if step <= h.step {
		return
	}
	fresh := min(step-h.step, HistorySteps)
	for k, s := range h.rings {
		if step-s.last >= HistorySteps {
			delete(h.rings, k)
			continue
		}
		for n := range fresh {
			s.counts[(step-n)%HistorySteps] = 0
		}
	}
	h.step, h.full = step, false
}

func (h *History) add(k DecisionKind, gained uint64) {
	s := h.rings[k]
	if s == nil {
		if len(h.rings) >= maxSeries {
			h.full = true
			return
		}
		s = new(ring)
		h.rings[k] = s
	}
	s.last = h.step
	s.counts[h.step%HistorySteps] += uint32(gained)
}

// Past is what a History knows.
type Past struct {
	// End is when the newest step ends.
	End time.Time
	// Series are sorted by endpoint, decision and reason.
	Series []Series
	// Partial says that there was no room for some series.
	Partial bool
}

// All is the history of all endpoints up to now. What has no policy stands under the endpoint "".
func (h *History) All(now time.Time) Past {
	h.Sample(now)
	return h.read(func(string) bool { return true })
}

// Of is the history of one endpoint up to now.
func (h *History) Of(endpoint string, now time.Time) Past {
	h.Sample(now)
	return h.read(func(e string) bool { return e == endpoint })
}

func (h *History) read(wanted func(endpoint string) bool) Past {
	h.mu.Lock()
	defer h.mu.Unlock()
	past := Past{End: time.Unix((h.step+1)*int64(HistoryStep/time.Second), 0).UTC(), Partial: h.full}
	for k, s := range h.rings {
		if !wanted(k.Endpoint) {
			continue
		}
		at := int((h.step + 1) % HistorySteps) // the oldest
		past.Series = append(past.Series, Series{k, slices.Concat(s.counts[at:], s.counts[:at])})
	}
	slices.SortFunc(past.Series, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Decision, b.Decision), cmp.Compare(a.Reason, b.Reason))
	})
	return past
}

// eachDecision tells how many decisions of each kind there have been.
func (m *Metrics) eachDecision(tell func(k DecisionKind, total uint64)) {
	counters := make(chan prometheus.Metric, 64)
	go func() {
		defer close(counters)
		m.decisions.Collect(counters)
	}()
	for counter := range counters {
		var d dto.Metric
		if counter.Write(&d) != nil {
			continue
		}
		var k DecisionKind
		for _, l := range d.GetLabel() {
			switch l.GetName() {
			case "endpoint":
				k.Endpoint = l.GetValue()
			case "decision":
				k.Decision = l.GetValue()
			case "reason":
				k.Reason = l.GetValue()
			}
		}
		tell(k, uint64(d.GetCounter().GetValue()))
	}
}
