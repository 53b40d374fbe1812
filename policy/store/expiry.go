package store

// expiryQueue gives keys in the order in which they end: a binary heap.
type expiryQueue[K any] struct {
	items []expiry[K]
}

type expiry[K any] struct {
	end int64
	key K
}

func (q *expiryQueue[K]) first() (end int64, key K, ok bool) {
	if len(q.items) == 0 {
		return 0, key, false
	}
	return q.items[0].end, q.items[0].key, true
}

func (q *expiryQueue[K]) push(end int64, key K) {
	q.items = append(q.items, expiry[K]{end, key})
	for i := len(q.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if q.items[parent].end <= q.items[i].end {
			return
		}
		q.items[parent], q.items[i] = q.items[i], q.items[parent]
		i = parent
	}
}

func (q *expiryQueue[K]) pop() {
	last := len(q.items) - 1
	q.items[0] = q.items[last]
	q.items = q.items[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if right := child + 1; right < last && q.items[right].end < q.items[child].end {
			child = right
		}
		if q.items[i].end <= q.items[child].end {
			return
		}
		q.items[i], q.items[child] = q.items[child], q.items[i]
		i = child
	}
}
