package policy

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"mime"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hookauthz/hookauthz/policy/incident"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/source"
)

// EngineConfig says what an Engine works with.
type EngineConfig struct {
	// Store keeps rates and replay memory. Required.
	Store Store
	// Local keeps this process's own state: budgets of failed verifications, and everything while Store is away and a policy says
	// onStoreFailure: local. Default: Store.
	Local Store
	// AllowStringBody accepts a body that arrived as text, where it holds no '!'.
	AllowStringBody bool
	// Certificates finds the certificates that deliveries name. Nil: none, and schemes that need one deny.
	Certificates Certificates
	// CertificateRoots are the authorities of senders' certificates. Nil: those of the system.
	CertificateRoots *x509.CertPool
	// Replicas is the number of servers that share the limits; each takes its share while Store is away. Default: there is one.
	Replicas func() int
}

// Engine decides about deliveries by the Set in force. It is safe for concurrent use.
type Engine struct {
	config EngineConfig
	force  atomic.Pointer[inForce]
	checks sync.Pool

	swap sync.Mutex // is held while another Set comes into force

	listMu    sync.Mutex // is held while addresses are replaced
	addresses atomic.Pointer[addresses]

	incidents atomic.Pointer[incident.Snapshot]
}

// NewEngine makes an Engine with its first Set.
func NewEngine(set *Set, c EngineConfig) *Engine {
	if c.Local == nil {
		c.Local = c.Store
	}
	if c.Replicas == nil {
		c.Replicas = func() int { return 1 }
	}
	e := &Engine{config: c}
	e.checks.New = func() any { return new(check) }
	e.Swap(set)
	return e
}

// Swap puts another Set in force. Rates, replay memory and what is known of the use of secrets stay.
func (e *Engine) Swap(set *Set) {
	e.swap.Lock()
	defer e.swap.Unlock()
	e.force.Store(newInForce(set, e.force.Load()))
}

// Set is the Set in force.
func (e *Engine) Set() *Set { return e.force.Load().set }

// Hold puts in force what the people on call hold up, in place of what they held before. It outlives the policies; nil is nothing.
func (e *Engine) Hold(s *incident.Snapshot) { e.incidents.Store(s) }

// Settle tells the store how the application answered a delivery whose Decision carried a reservation.
func (e *Engine) Settle(ctx context.Context, now time.Time, endpoint string, token Token, confirmed bool) (bool, error) {
	settled, err := e.config.Store.Settle(ctx, now, endpoint, token, confirmed)
	if settled || e.config.Local == e.config.Store {
		return settled, err
	}
	return e.config.Local.Settle(ctx, now, endpoint, token, confirmed) // reserved while the store was away
}

// Decide is the verdict on one delivery at r.Time. It never panics on any request; what cannot be decided is denied.
// An ended ctx denies with DeadlineExceeded and leaves no record of the delivery.
func (e *Engine) Decide(ctx context.Context, r *Request) Decision {
	c := e.checks.Get().(*check)
	defer e.release(c)
	c.begin(ctx, e, r)
	return c.decide()
}

// Explain is Decide with every step that led to the verdict.
func (e *Engine) Explain(ctx context.Context, r *Request) (Decision, []Step) {
	c := e.checks.Get().(*check)
	defer e.release(c)
	c.begin(ctx, e, r)
	c.explaining = true
	d := c.decide()
	return d, slices.Clone(c.steps)
}

func (e *Engine) release(c *check) {
	c.reset()
	e.checks.Put(c)
}

// check is the state of one decision. It is pooled: reset drops every view of the request.
type check struct {
	ctx     context.Context
	engine  *Engine
	request *Request
	webhook *Webhook
	uses    []*use // of the versions of the Set, by their place
	held    *incident.Snapshot
	d       Decision

	delivery     signature.Delivery
	verification signature.Verification
	values       []string // of one header
	take         Take
	matchedKey   *signature.Key
	enforced     bool // shadow mode does not soften what comes now
	asked        bool // a handshake that shadow mode leaves to the application: it need not look like a delivery
	recorded     bool // take has been written and must be released unless the decision is an allow

	explaining bool
	steps      []Step
	detail     string
	skipped    bool // the step that is being taken had nothing to do
}

func (c *check) begin(ctx context.Context, e *Engine, r *Request) {
	c.ctx, c.engine, c.request = ctx, e, r
}

func (c *check) reset() {
	c.verification.Reset()
	clear(c.values)
	messages, buckets := c.take.Messages[:0], c.take.Buckets[:0]
	*c = check{verification: c.verification, values: c.values[:0], take: Take{Messages: messages, Buckets: buckets}}
}

// decide takes the steps in their order: cheap before costly, reading before writing, local before shared.
func (c *check) decide() Decision {
	force := c.engine.force.Load()
	set := force.set
	c.uses = force.uses
	c.held = c.engine.incidents.Load()
	c.d = Decision{Revision: set.revision}
	w, reason := set.find(c.request)
	if w != nil {
		c.webhook, c.d.Endpoint, c.d.Scheme, c.d.LogShare, c.d.Audit = w, w.name, w.schemeName, w.logShare, w.audit
		if c.explaining {
			c.note("policy %q decides", w.name)
		}
	}
	if reason == OK && c.ctx.Err() != nil { // whatever it costs to decide would be for nothing
		reason = DeadlineExceeded
	}
	if c.refused("policy", reason) ||
		c.refused("paused", c.paused()) ||
		c.refused("source", c.source()) ||
		c.refused("handshake", c.unsignedHandshake()) ||
		c.refused("method", c.method()) ||
		c.refused("content-type", c.contentType()) ||
		c.refused("upgrade", c.upgrade()) ||
		c.refused("body", c.body()) ||
		c.refused("signature", c.signature()) ||
		c.refused("signed handshake", c.signedHandshake()) {
		return c.d
	}
	c.identify()
	defer c.unrecord()
	if c.refused("replay and rate", c.state()) || c.refused("deadline", c.deadline()) {
		return c.d
	}
	c.allow()
	return c.d
}

// softReasons are those that shadow mode reports and lets through.
var softReasons = [reasonCount]bool{
	SourceUnknown: true, SourceDenied: true, SignatureMissing: true, SignatureMalformed: true, SignatureMismatch: true, TimestampMissing: true,
	TimestampMalformed: true, TimestampOutOfTolerance: true, SecretExpired: true, TooManyFailures: true, Replayed: true, InFlight: true, RateLimited: true,
}

// refused takes the result of a step and reports whether the decision is made. In shadow mode a soft reason only goes on record.
func (c *check) refused(step string, r Reason) bool {
	c.explain(step, r)
	switch r {
	case OK:
		return false
	case Handshake: // answered: the decision says how
		return true
	}
	if c.webhook != nil && c.webhook.shadow && softReasons[r] && !c.enforced {
		if !c.shadowed() {
			c.d.Shadow = r
			c.d.Reason = Shadow
		}
		return false
	}
	c.d.Outcome, c.d.Reason, c.d.Shadow, c.d.Status = Deny, r, 0, r.Status()
	c.d.Reservation = "" // its record is released
	if c.d.Status == 503 && c.d.RetryAfter == 0 {
		c.d.RetryAfter = time.Second
	}
	return true
}

// shadowed reports whether the delivery would have been stopped already.
func (c *check) shadowed() bool { return c.d.Reason == Shadow }

func (c *check) allow() {
	c.d.Outcome = Allow
	if c.shadowed() {
		c.d.RetryAfter = 0
		return
	}
	switch {
	case c.d.Reason == Duplicate && !c.d.Duplicate: // acknowledged
		c.d.Outcome, c.d.Status = Answer, 200
		c.d.Reply = Reply{ContentType: "application/json", Body: []byte(`{"status":"duplicate"}`)}
	case c.d.Duplicate:
		c.d.Reason = Duplicate
	case c.d.Reason != Degraded:
		c.d.Reason = OK
	}
}

func (c *check) explain(step string, r Reason) {
	if !c.explaining {
		return
	}
	result := r.String()
	if c.skipped {
		result = "skipped"
	}
	c.steps = append(c.steps, Step{Name: step, Result: result, Detail: c.detail})
	c.detail, c.skipped = "", false
}

// note says more about the step that is being taken.
func (c *check) note(format string, args ...any) {
	if c.explaining {
		c.detail = fmt.Sprintf(format, args...)
	}
}

// skip is the result of a step that has nothing to do.
func (c *check) skip() Reason {
	c.skipped = true
	return OK
}

// longestPause bounds what a sender is told of a pause: one that lasts for years may still be ended sooner.
const longestPause = 24 * time.Hour

func (c *check) paused() Reason {
	until := c.webhook.pausedUntil
	if held := c.held.PausedUntil(c.webhook.name); held.After(until) {
		until = held
	}
	if c.request.Time.Before(until) {
		c.d.RetryAfter = min(until.Sub(c.request.Time), longestPause)
		return Paused
	}
	return OK
}

// inForce says that a signature made with this version is good now.
func (c *check) inForce(v *version) bool {
	return v.inForce(c.request.Time) && !c.held.Revoked(c.webhook.name, v.name)
}

// header is the only value of a header; found is false where it is absent, and single where it occurs more than once.
func (c *check) header(name string) (value string, found, single bool) {
	single = true
	for i := range c.request.Headers {
		if h := &c.request.Headers[i]; h.Name == name {
			if found {
				single = false
			}
			value, found = h.Value, true
		}
	}
	return value, found, single
}

func (c *check) source() Reason {
	w := c.webhook
	c.values = c.values[:0]
	if name := w.client.Header(); name != "" {
		for i := range c.request.Headers {
			if h := &c.request.Headers[i]; h.Name == name {
				c.values = append(c.values, h.Value)
			}
		}
	}
	address, err := w.client.Client(c.request.Peer, c.values)
	if err != nil {
		c.note("%v", err)
		return SourceUnknown
	}
	c.d.ClientAddress = address
	if c.explaining {
		c.note("the client is %s", address)
	}
	if c.held.Blocked(address, c.request.Time) { // in shadow mode too
		if c.explaining {
			c.note("the client %s is blocked by an incident", address)
		}
		c.enforced = true
		return SourceDenied
	}
	if w.deny.Contains(address) || (w.allow != nil && !w.allow.Contains(address) && !c.listed(address)) {
		return SourceDenied
	}
	return OK
}

func (c *check) method() Reason {
	if c.asked {
		return c.skip()
	}
	if !slices.Contains(c.webhook.methods, c.request.Method) {
		if c.explaining {
			c.note("the policy takes %s", strings.Join(c.webhook.methods, ", "))
		}
		return MethodNotAllowed
	}
	return OK
}

func (c *check) contentType() Reason {
	if c.asked {
		return c.skip()
	}
	if len(c.webhook.contentTypes) == 0 {
		return OK
	}
	value, found, single := c.header("content-type")
	if !found || !single {
		return UnsupportedMediaType
	}
	if slices.Contains(c.webhook.contentTypes, value) {
		return OK
	}
	media, _, err := mime.ParseMediaType(value)
	if err != nil || !slices.Contains(c.webhook.contentTypes, media) {
		return UnsupportedMediaType
	}
	return OK
}

// upgrade refuses requests whose body Envoy does not buffer: upgrades, CONNECT and extended CONNECT.
func (c *check) upgrade() Reason {
	if c.request.Method == "CONNECT" {
		return UpgradeRefused
	}
	for i := range c.request.Headers {
		switch h := &c.request.Headers[i]; h.Name {
		case "upgrade", ":protocol":
			return UpgradeRefused
		}
	}
	return OK
}

// body asks for proof that the bytes in hand are all of the body, as received.
func (c *check) body() Reason {
	r, n := c.request, c.request.BodyLen()
	switch {
	case r.BodyState == PartialBody, r.BodyState == NoBody && n > 0:
		return BodyPartial
	case int64(n) > c.webhook.maxBytes:
		if c.explaining {
			c.note("%d bytes; the policy takes %d", n, c.webhook.maxBytes)
		}
		return BodyTooLarge
	case r.BodyState == TextBody && !c.plainText():
		c.note("Envoy sent the body as text; set pack_as_bytes: true")
		return BodyNotRaw
	}
	length, found, single := c.header("content-length")
	if found {
		if declared, err := strconv.ParseUint(length, 10, 62); err != nil || !single || declared != uint64(n) {
			return BodyLengthMismatch
		}
	}
	if n == 0 && !c.webhook.allowEmpty && !c.asked {
		return BodyMissing
	}
	return OK
}

// plainText reports whether a text body is certainly the bytes that were received.
func (c *check) plainText() bool {
	if !c.engine.config.AllowStringBody {
		return false
	}
	for _, s := range c.request.Body {
		if slices.Contains(s, '!') {
			return false
		}
	}
	return true
}

// signature verifies the delivery; a failure is counted against its sender.
func (c *check) signature() Reason {
	if c.shadowed() {
		return c.skip()
	}
	w := c.webhook
	if w.scheme.IsToken() {
		// A token can be guessed one try at a time, so an address over its budget gets no answer at all.
		if over, after := c.failureBudget(true); over {
			c.d.RetryAfter = after
			return TooManyFailures
		}
	}
	reason := c.verify()
	if reason == OK {
		c.d.Verification = "valid"
		return OK
	}
	if c.d.Verification != DecoyUsed {
		c.d.Verification = reason.String()
	}
	if reason == SecretUnavailable {
		return reason
	}
	if over, after := c.failureBudget(false); over {
		c.note("the address has used its budget of failed verifications; this one: %s", reason)
		c.d.RetryAfter = after
		return TooManyFailures
	}
	return reason
}

// failures translates what stops a verification before any key is tried.
var failures = map[signature.Failure]Reason{
	signature.Missing:            SignatureMissing,
	signature.Malformed:          SignatureMalformed,
	signature.TimestampMissing:   TimestampMissing,
	signature.TimestampMalformed: TimestampMalformed,
}

func (c *check) verify() Reason {
	w, r := c.webhook, c.request
	c.readDelivery()
	if f := w.scheme.Parse(&c.verification, &c.delivery); f != signature.None {
		return failures[f] // a failure without a reason is our own fault, which is the zero value
	}
	if reason := c.certificate(); reason != OK {
		return reason
	}
	match, available := c.matchVersion()
	if match == nil {
		if dead := c.matchDeadVersion(); dead != nil {
			c.uses[dead.place].note(r.Time)
			c.d.SecretVersion = dead.name
			if dead.decoy {
				c.d.Verification = DecoyUsed
			}
			return SecretExpired
		}
		if !available {
			c.note("no version of the secret can be used now")
			return SecretUnavailable
		}
		return SignatureMismatch
	}
	for _, h := range w.handshakes.oracles {
		if h.Forbids(&c.verification) {
			c.note("the message looks like a challenge of %s, whose signature can be had for the asking", h.Spec().Provider)
			return SignatureMalformed
		}
	}
	c.matchedKey = match.key
	c.d.SecretVersion = match.name
	if sent, ok := c.verification.Timestamp(); ok {
		c.d.Sent = sent
	}
	if c.explaining {
		c.note("version %q matches", match.name)
	}
	if w.tolerance > 0 && !c.verification.Fresh(r.Time, w.tolerance) {
		return TimestampOutOfTolerance
	}
	c.uses[match.place].note(r.Time)
	return OK
}

// readDelivery gives the signature package its view of the request.
func (c *check) readDelivery() {
	r := c.request
	c.delivery = signature.Delivery{Method: r.Method, Path: r.Path, PublicURL: c.webhook.publicURL, Headers: r.Headers, Merged: r.Merged, Body: r.Body}
}

// matchVersion tries every version in force, those after a match too, so that time does not tell which one matched.
func (c *check) matchVersion() (match *version, available bool) {
	for i := range c.webhook.versions {
		v := &c.webhook.versions[i]
		if !c.inForce(v) {
			continue
		}
		available = true
		if c.verification.Matches(v.key) && match == nil {
			match = v
		}
	}
	return match, available
}

// matchDeadVersion tries the versions that are no longer, or not yet, good.
func (c *check) matchDeadVersion() *version {
	for i := range c.webhook.versions {
		v := &c.webhook.versions[i]
		if v.key != nil && !c.inForce(v) && c.verification.Matches(v.key) {
			return v
		}
	}
	return nil
}

// failureBudget spends one failed verification of this address at this endpoint, or only looks, and reports whether the budget is used up.
// A store that cannot say leaves the verdict as it is: the delivery is denied either way.
func (c *check) failureBudget(peek bool) (over bool, after time.Duration) {
	w := c.webhook
	if w.failuresUnlimited {
		return false, 0
	}
	bucket := [1]Bucket{{Key: addressKey("failures", "", c.d.ClientAddress), Limit: w.failures}}
	taken, err := c.engine.config.Local.Take(c.ctx, &Take{Time: c.request.Time, Endpoint: w.name, Buckets: bucket[:], Peek: peek})
	if err != nil {
		return peek, time.Second // a token is not compared while nothing counts the tries
	}
	return taken.Limited > 0, taken.RetryAfter
}

// identify notes the delivery's id and event type, which decide nothing.
func (c *check) identify() {
	if c.shadowed() && c.d.Verification != "valid" {
		return
	}
	scheme := c.webhook.scheme
	c.d.DeliveryID, c.d.DeliveryIDSigned = c.verification.DeliveryID(), scheme.IDSigned()
	c.d.Event, c.d.EventSigned = c.verification.Event(), scheme.EventSigned()
}

// state looks the delivery up and spends its quota, in one step of the store.
func (c *check) state() Reason {
	if c.shadowed() {
		return c.skip()
	}
	if reason := c.deadline(); reason != OK {
		return reason
	}
	c.fillTake()
	if len(c.take.Messages) == 0 && len(c.take.Buckets) == 0 {
		return c.skip()
	}
	taken, err := c.engine.config.Store.Take(c.ctx, &c.take)
	if err != nil {
		return c.withoutStore(err)
	}
	return c.taken(taken)
}

func (c *check) fillTake() {
	w, t := c.webhook, &c.take
	*t = Take{Time: c.request.Time, Endpoint: w.name, Stream: c.request.StreamID, Messages: t.Messages[:0], Buckets: t.Buckets[:0]}
	if w.replay.onDuplicate != "allow" {
		for i := range w.versions {
			if v := &w.versions[i]; c.inForce(v) {
				t.Messages = append(t.Messages, c.verification.MessageID(v.key))
			}
		}
		t.Window, t.Reservation, t.Tag = w.replay.window, w.replay.reservation, w.replay.onDuplicate == "tag"
	}
	for i := range w.limits {
		t.Buckets = append(t.Buckets, Bucket{Key: c.bucketKey(&w.limits[i]), Limit: w.limits[i].rate})
	}
}

func (c *check) bucketKey(l *limit) Key {
	switch l.by {
	case "clientAddress":
		return addressKey("limit", l.name, c.d.ClientAddress)
	case "header":
		value, _, _ := c.header(l.header)
		return hashKey("limit by header", l.name, l.header, value)
	}
	return l.key
}

// taken turns the store's verdict into a reason.
func (c *check) taken(t Taken) Reason {
	switch {
	case t.Duplicate && t.InFlight:
		c.d.RetryAfter = t.RetryAfter
		return InFlight
	case t.Duplicate && c.webhook.replay.onDuplicate == "deny":
		return Replayed
	case t.Duplicate && c.webhook.replay.onDuplicate == "acknowledge":
		c.d.Reason = Duplicate
		if c.webhook.shadow {
			c.d.Reason, c.d.Shadow = Shadow, Duplicate
		}
		return OK
	case t.Limited > 0:
		c.d.RetryAfter = t.RetryAfter
		if c.explaining && t.Limited <= len(c.webhook.limits) {
			c.note("the limit %q is spent", c.webhook.limits[t.Limited-1].name)
		}
		return RateLimited
	}
	c.recorded = !t.Duplicate
	c.d.Duplicate = t.Duplicate
	if t.Token != (Token{}) {
		c.d.Reservation = hex.EncodeToString(t.Token[:])
	}
	return OK
}

// withoutStore decides by onStoreFailure.
func (c *check) withoutStore(cause error) Reason {
	if reason := c.deadline(); reason != OK {
		return reason
	}
	c.note("the store did not answer: %v", cause)
	c.d.Degraded = true
	local := c.engine.config.Local
	switch {
	case c.webhook.onStoreFailure == "allow":
		c.d.Reason = Degraded
		return OK
	case c.webhook.onStoreFailure == "local" && local != c.engine.config.Store:
		replicas := c.engine.config.Replicas()
		for i := range c.take.Buckets {
			c.take.Buckets[i].Limit = c.take.Buckets[i].Limit.Divide(replicas)
		}
		taken, err := local.Take(c.ctx, &c.take)
		if err == nil {
			return c.taken(taken)
		}
	}
	return StoreUnavailable
}

// deadline denies what would be answered too late.
func (c *check) deadline() Reason {
	if c.ctx.Err() != nil {
		return DeadlineExceeded
	}
	return OK
}

// unrecord forgets a delivery that was recorded and is not let through after all.
func (c *check) unrecord() {
	if !c.recorded || c.d.Outcome == Allow {
		return
	}
	store := c.engine.config.Store
	if c.d.Degraded {
		store = c.engine.config.Local
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	// A record that stays is only a duplicate too many, which the sender's next attempt shows.
	_ = store.Release(ctx, &c.take)
}

// hashKey names a bucket by its parts, without any of their text.
func hashKey(parts ...string) Key {
	var buffer [256]byte
	b := buffer[:0]
	for _, p := range parts {
		b = strconv.AppendInt(b, int64(len(p)), 10)
		b = append(b, ':')
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return Key(sum[:len(Key{})])
}

// addressKey names the bucket of a sender: an IPv4 address, or the /64 that one IPv6 sender has.
func addressKey(kind, name string, a netip.Addr) Key {
	bytes := source.Bucket(a).As16()
	return hashKey(kind, name, string(bytes[:]))
}
