package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"slices"
)

// keyedSum is the sum of one template under one key.
type keyedSum struct {
	key      *Key
	template int
	size     int
	sum      [sha512.Size]byte
}

// Matches says whether any signature of the delivery is right under k. It compares every candidate with the sum of every template, so
// that its time does not tell which one is right.
func (v *Verification) Matches(k *Key) bool {
	if v.scheme == nil || k == nil || k.family != v.scheme.alg.family || len(v.ends) == 0 {
		return false
	}
	if v.scheme.alg.format != plainFormat {
		return v.matchesCarried(k)
	}
	switch v.scheme.alg.family {
	case tokenFamily:
		return v.anyCandidate(k.token[:]) && v.checksHold()
	case publicKeyFamily:
		return v.matchesPublic(k) && v.checksHold()
	}
	matches := false
	for i := range v.scheme.templates {
		sum := v.sum(k, i)
		if v.anyCandidate(sum.sum[:sum.size]) {
			matches = true
			if v.matched < 0 {
				v.matched = i
			}
		}
	}
	return matches && v.checksHold()
}

func (v *Verification) anyCandidate(want []byte) bool {
	found := false
	start := 0
	for _, end := range v.ends {
		if hmac.Equal(v.decoded[start:end], want) {
			found = true
		}
		start = end
	}
	return found
}

// sum is the sum of a template under k, made once.
func (v *Verification) sum(k *Key, template int) *keyedSum {
	for i := range v.sums {
		if s := &v.sums[i]; s.key == k && s.template == template {
			return s
		}
	}
	v.sums = append(v.sums, keyedSum{key: k, template: template})
	s := &v.sums[len(v.sums)-1]
	if v.scheme.alg.format != plainFormat {
		s.size = copy(s.sum[:], v.carriedMAC(k, template))
		return s
	}
	h := k.hash()
	v.feed(h, v.scheme.templates[template], k)
	s.size = len(h.Sum(s.sum[:0]))
	k.release(h)
	return s
}

// feed writes a template to a hash. The body goes in as it lies, the rest in as few pieces as can be.
func (v *Verification) feed(h hash.Hash, t template, k *Key) {
	buf := v.scratch[:0]
	for i := range t {
		p := &t[i]
		switch {
		case p.kind == bodyPart && p.filter == noFilter:
			if len(buf) > 0 {
				h.Write(buf)
				buf = buf[:0]
			}
			for _, segment := range v.delivery.Body {
				h.Write(segment)
			}
		case p.kind == secretPart:
			buf = append(buf, k.material...)
		default:
			buf, _ = v.appendPart(buf, p) // Parse has seen to it that all is there
		}
	}
	if len(buf) > 0 {
		h.Write(buf)
	}
	v.scratch = buf
}

// checksHold says whether the texts that must be equal are. They are compared once, after a match.
func (v *Verification) checksHold() bool {
	if v.checks == notTried {
		v.checks = progressOf(v.digestsHold() && !slices.ContainsFunc(v.scheme.checks, func(k check) bool { return !v.holds(&k) }))
	}
	return v.checks == done
}

func (v *Verification) holds(k *check) bool {
	if k.ifPresent >= 0 {
		if _, state := v.field(k.ifPresent); state == absent {
			return true
		}
	}
	var ok, ok2 bool
	v.scratch, ok = v.render(v.scratch[:0], k.a)
	v.scratch2, ok2 = v.render(v.scratch2[:0], k.b)
	return ok && ok2 && hmac.Equal(v.scratch, v.scratch2)
}

// MessageID is the identity of the signed message under k: of the template that matched, or of the first one before a match. A static
// token has none.
func (v *Verification) MessageID(k *Key) MessageID {
	if v.scheme == nil || v.scheme.IsToken() || k == nil || k.family != v.scheme.alg.family || len(v.ends) == 0 {
		return MessageID{}
	}
	template := max(v.matched, 0)
	var sum [sha256.Size]byte
	if v.scheme.NeedsPublicKey() {
		sum = v.messageSum(template)
	} else {
		s := v.sum(k, template)
		sum = sha256.Sum256(s.sum[:s.size])
	}
	return MessageID(sum[:len(MessageID{})])
}
