package extauthz

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/policy"
)

// endpointSeries are the series of one endpoint, each resolved when it is first counted: finding one by its labels takes longer than counting.
type endpointSeries struct {
	decisions     resolved[decisionLabels, prometheus.Counter]
	verifications resolved[verificationLabels, prometheus.Counter]
	duration      resolved[struct{}, prometheus.Observer]
	age           resolved[struct{}, prometheus.Observer]
	allowed       atomic.Int64 // when a delivery was allowed last, in Unix milliseconds; 0: none was
}

type decisionLabels struct {
	outcome policy.Outcome
	reason  policy.Reason
}

type verificationLabels struct{ version, result string }

// resolved holds the few series of one metric by the labels that differ. Reading takes no lock.
type resolved[L comparable, S any] struct {
	list atomic.Pointer[[]labelled[L, S]]
	mu   sync.Mutex // is held while list is replaced
}

type labelled[L comparable, S any] struct {
	labels L
	series S
}

// get is the series of these labels, which resolve finds where it was not asked for before.
func (r *resolved[L, S]) get(labels L, resolve func() S) S {
	if s, ok := r.find(labels); ok {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.find(labels); ok {
		return s
	}
	s := resolve()
	var list []labelled[L, S]
	if old := r.list.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, labelled[L, S]{labels, s})
	r.list.Store(&list)
	return s
}

func (r *resolved[L, S]) find(labels L) (s S, ok bool) {
	if list := r.list.Load(); list != nil {
		for i := range *list {
			if l := &(*list)[i]; l.labels == labels {
				return l.series, true
			}
		}
	}
	return s, false
}
