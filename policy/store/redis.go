package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// RedisConfig says where a Redis or Valkey server is. ParseRedisURL makes one.
type RedisConfig struct {
	// Addresses are host:port of the server, of some nodes of the cluster, or of the sentinels. At least one.
	Addresses []string
	// Username and Password are those of the ACL user; both may be empty.
	Username, Password string
	// ReadPassword, if set, gives the password instead, for each connection anew.
	ReadPassword func() (string, error)
	// TLS secures the connections; nil: none.
	TLS *tls.Config
	// Database is the number of the database. Default: 0, the only one of a cluster.
	Database int
	// Cluster says that the server is a node of a cluster.
	Cluster bool
	// Sentinel is the name of the primary that sentinels watch. Empty: Addresses are no sentinels.
	Sentinel string
	// CallTimeout is for how long the caller waits for a call. It bounds how long a connection may be silent. Default: 50 ms.
	CallTimeout time.Duration

	// callersClock makes the store go by the time of each call instead of the server's. For the tests that all engines share.
	callersClock bool
}

// Redis is a Store in a Redis or Valkey server, shared by many processes. Each call is one command. It has no breaker: see Guard.
//
// A call that the caller gives up does nothing from then on, even where the server gets to it later: each Take carries the last moment at
// which it may act, in the server's time.
type Redis struct {
	config   RedisConfig
	scripts  scripts
	instance [8]byte // tells this process from others
	client   atomic.Pointer[connection]
	connect  sync.Mutex
	closed   bool         // guarded by connect
	slots    sync.Map     // endpoint -> *slot, for those of policies
	ahead    atomic.Int64 // of the only server
	seed     maphash.Seed
	seen     atomic.Int64
}

// slot is where an endpoint's keys are.
type slot struct {
	prefix string
	// ahead is by how many microseconds the server's clock is ahead of ours, at least; 0 where that is not known. The nodes of a cluster have a
	// clock each; until an endpoint's has spoken, that of the node which was asked first counts.
	ahead *atomic.Int64
}

type connection struct{ rueidis.Client }

// NewRedis makes a Redis that is not connected yet.
func NewRedis(c RedisConfig) *Redis {
	if c.CallTimeout <= 0 {
		c.CallTimeout = 50 * time.Millisecond
	}
	r := &Redis{config: c, scripts: newScripts(), seed: maphash.MakeSeed()}
	rand.Read(r.instance[:])
	return r
}

var (
	// errNotConnected says that no connection was ever made.
	errNotConnected = errors.New("the store is not connected")
	// errLate says that the server got to a call after its caller had given up. It has done nothing.
	errLate = errors.New("the store was too late")
)

// Connect connects and checks that the server will do. It may be called again; once it has worked it does nothing.
func (r *Redis) Connect(ctx context.Context) error {
	r.connect.Lock()
	defer r.connect.Unlock()
	if r.client.Load() != nil {
		return nil
	}
	if r.closed {
		return errNotConnected
	}
	client, err := rueidis.NewClient(r.options())
	if err != nil {
		return r.config.explain(err)
	}
	if err := r.config.check(ctx, client); err != nil {
		client.Close()
		return err
	}
	err = r.readClock(ctx, client)
	if err == nil {
		err = r.probe(ctx, client, aliveKey)
	}
	if err != nil && !errors.Is(err, policy.ErrStoreFull) {
		client.Close()
		return r.config.explain(err)
	}
	r.client.Store(&connection{client})
	return nil
}

// readClock learns how far the server's clock is ahead, so that the first call can be too late as any other.
func (r *Redis) readClock(ctx context.Context, client rueidis.Client) error {
	now, err := client.Do(ctx, client.B().Time().Build()).AsIntSlice()
	if err != nil {
		return err
	}
	if len(now) != 2 {
		return errors.New("the store's clock cannot be read")
	}
	r.ahead.Store(now[0]*1e6 + now[1] - time.Now().UnixMicro())
	return nil
}

func (r *Redis) options() rueidis.ClientOption {
	c := r.config
	// A connection that is silent for this long is given up, so that a new one finds the way around a fault in the network.
	silence := max(10*c.CallTimeout, time.Second)
	o := rueidis.ClientOption{
		InitAddress: c.Addresses, Username: c.Username, Password: c.Password, TLSConfig: c.TLS, SelectDB: c.Database,
		ClientName: "hookauthz", ClientSetInfo: rueidis.DisableClientSetInfo, ForceSingleClient: !c.Cluster && c.Sentinel == "", DisableCache: true, DisableRetry: true,
		ConnWriteTimeout: silence, RingScaleEachConn: 12, PipelineMultiplex: -1, ReadBufferEachConn: 64 << 10, WriteBufferEachConn: 64 << 10,
		DialCtxFn:     dial,
		ClusterOption: rueidis.ClusterOption{ShardsRefreshInterval: 5 * time.Second, MaxMovedRedirections: 4},
		Sentinel: rueidis.SentinelOption{MasterSet: c.Sentinel, Username: c.Username, Password: c.Password, TLSConfig: c.TLS,
			TopologyRefreshInterval: 5 * time.Second},
	}
	o.Dialer.Timeout = silence
	o.Dialer.KeepAlive = time.Second
	o.Sentinel.Dialer = o.Dialer
	if c.ReadPassword != nil {
		o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			password, err := c.ReadPassword()
			return rueidis.AuthCredentials{Username: c.Username, Password: password}, err
		}
	}
	return o
}

// Close ends the connections. Calls that are under way fail.
func (r *Redis) Close() {
	r.connect.Lock()
	defer r.connect.Unlock()
	r.closed = true
	if c := r.client.Swap(nil); c != nil {
		c.Close()
	}
}

// Keys. The endpoint is the hash tag, so that all keys of a decision are in one slot of a cluster. Nothing of a sender's is in a key but hashes.
const (
	namespace   = "hookauthz:"
	messageKind = "m:"
	bucketKind  = "b:"
	streamKind  = "s:"
	tokenKind   = "t:"
	probeKind   = "probe"
	aliveKey    = namespace + "replicas"
	usesKey     = namespace + "secrets"
)

// prefixOf is the beginning of an endpoint's keys. The names of policies are the tag as they are; any other is hashed.
func prefixOf(endpoint string) string {
	if len(endpoint) > 128 || endpoint == "" || strings.Trim(endpoint, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.ContainsAny(endpoint, "{}") {
		sum := sha256.Sum256([]byte(endpoint))
		endpoint = "#" + hex.EncodeToString(sum[:16])
	}
	return namespace + "{" + endpoint + "}:"
}

// slot is where the keys of a policy's endpoint are.
func (r *Redis) slot(endpoint string) *slot {
	if s, ok := r.slots.Load(endpoint); ok {
		return s.(*slot)
	}
	s := &slot{prefixOf(endpoint), &r.ahead}
	if r.config.Cluster {
		s.ahead = new(atomic.Int64)
		s.ahead.Store(r.ahead.Load())
	}
	known, _ := r.slots.LoadOrStore(endpoint, s)
	return known.(*slot)
}

// call is the keys and the argument of one script, in one piece of memory.
type call struct {
	prefix string
	keys   int
	text   strings.Builder // the keys, which are of one length, and then the argument
}

func (s *slot) begin() *call {
	c := &call{prefix: s.prefix}
	c.text.Grow(384) // what most need
	return c
}

func (c *call) key(kind string, id []byte) {
	c.text.WriteString(c.prefix)
	c.text.WriteString(kind)
	c.text.Write(id)
	c.keys++
}

// What follows the keys is the argument. Numbers are doubles, which is what Lua has.
func (c *call) bytes(b []byte) { c.text.Write(b) }

func (c *call) number(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], math.Float64bits(float64(n)))
	c.text.Write(b[:])
}

// run runs a script.
func (r *Redis) run(ctx context.Context, client *connection, script *rueidis.Lua, c *call, now time.Time) rueidis.RedisResult {
	const kindAndID = 2 + 16
	text, size := c.text.String(), len(c.prefix)+kindAndID
	var space [8]string
	keys := space[:0]
	for range c.keys {
		keys = append(keys, text[:size])
		text = text[size:]
	}
	if r.config.callersClock {
		return script.Exec(ctx, client, keys, []string{text, strconv.FormatInt(now.Unix(), 10), strconv.Itoa(now.Nanosecond())})
	}
	return script.Exec(ctx, client, keys, []string{text})
}

// Bits of the flags of a Take and of its reply, as take.lua has them.
const (
	flagTag, flagPeek                                      = 1, 2
	flagRetry, flagDuplicate, flagInFlight, flagLate int64 = 1, 2, 4, 8
)

// Take implements policy.Store. Times of deliveries count in microseconds, rounded up; limits in nanoseconds.
func (r *Redis) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	return r.TakeAs(ctx, t, policy.Token{})
}

// TakeAs implements Shared.
func (r *Redis) TakeAs(ctx context.Context, t *policy.Take, token policy.Token) (policy.Taken, error) {
	client := r.client.Load()
	if client == nil {
		return policy.Taken{}, errNotConnected
	}
	if r.config.callersClock {
		r.seen.Store(t.Time.UnixNano())
	}
	if token == (policy.Token{}) {
		rand.Read(token[:]) // it tells records apart too
	}
	s := r.slot(t.Endpoint)
	taken, err := r.take(ctx, client, t, s, token)
	if errors.Is(err, errLate) && ctx.Err() == nil {
		// The caller still waits, so the clocks have moved apart; the reply has said by how much.
		taken, err = r.take(ctx, client, t, s, token)
	}
	return taken, err
}

func (r *Redis) take(ctx context.Context, client *connection, t *policy.Take, s *slot, id policy.Token) (policy.Taken, error) {
	c := s.begin()
	messages := c.messages(t.Messages)
	for i := range t.Buckets {
		c.key(bucketKind, t.Buckets[i].Key[:])
	}
	c.stream(t)
	c.bytes(id[:])
	by := r.taker(t)
	c.bytes(by[:])
	c.number(r.lastMoment(ctx, s))
	c.number(int64(messages))
	flags := int64(0)
	if t.Tag {
		flags |= flagTag
	}
	if t.Peek {
		flags |= flagPeek
	}
	c.number(flags)
	c.number(micros(t.Window))
	c.number(micros(t.Reservation))
	for i := range t.Buckets {
		interval, early := t.Buckets[i].Limit.Schedule()
		c.number(interval)
		c.number(early)
	}
	result := r.run(ctx, client, r.scripts.take, c, t.Time)
	reply, err := result.ToString()
	if err != nil {
		return policy.Taken{}, failure(err)
	}
	return s.taken(t, reply, id)
}

// taken reads the script's reply.
func (s *slot) taken(t *policy.Take, reply string, id policy.Token) (policy.Taken, error) {
	const fixed = 4 * 8
	if len(reply) != fixed && len(reply) != fixed+len(id) {
		return policy.Taken{}, fmt.Errorf("the store's reply has %d bytes, not %d or %d", len(reply), fixed, fixed+len(id))
	}
	var numbers [fixed]byte
	copy(numbers[:], reply)
	number := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(numbers[8*i:])) }
	within := func(i int, least, most float64) bool { return number(i) >= least && number(i) <= most } // what is no number is within nothing
	if !within(0, 0, float64(2*flagLate-1)) || !within(1, 0, float64(len(t.Buckets))) || !within(3, 1, 1<<53) {
		return policy.Taken{}, errors.New("the store's reply makes no sense")
	}
	flags, limited, wait, now := int64(number(0)), int(number(1)), number(2), int64(number(3))
	// The server was at this moment before now: the offset is never too large.
	s.ahead.Store(now - time.Now().UnixMicro())
	if flags&flagLate != 0 {
		return policy.Taken{}, errLate
	}
	taken := policy.Taken{
		Retry:      flags&flagRetry != 0,
		Duplicate:  flags&flagDuplicate != 0,
		InFlight:   flags&flagInFlight != 0,
		Limited:    limited,
		RetryAfter: math.MaxInt64,
	}
	if wait >= 0 && wait < math.MaxInt64 {
		taken.RetryAfter = time.Duration(wait)
	}
	switch {
	case taken.Retry:
		copy(taken.Token[:], reply[fixed:])
	case !taken.Duplicate && taken.Limited == 0 && !t.Peek && t.Reservation > 0 && len(t.Messages) > 0:
		taken.Token = id
	}
	return taken, nil
}

// lastMoment is the last at which a call may act, in the server's microseconds: 0 where nothing is known of its clock.
func (r *Redis) lastMoment(ctx context.Context, s *slot) int64 {
	deadline, ok := ctx.Deadline()
	if ahead := s.ahead.Load(); ok && ahead != 0 && !r.config.callersClock {
		return deadline.UnixMicro() + ahead
	}
	return 0
}

// messages adds the keys of the messages, each once, and gives their number.
func (c *call) messages(ids []signature.MessageID) int {
	for i := range ids {
		if !slices.Contains(ids[:i], ids[i]) {
			c.key(messageKind, ids[i][:])
		}
	}
	return c.keys
}

// stream adds the key of the stream: the same stream with other messages is another one.
func (c *call) stream(t *policy.Take) {
	if t.Stream == "" {
		return
	}
	var space [256]byte
	text := append(space[:0], byte(len(t.Messages))) // tells where the messages end
	for i := range t.Messages {
		text = append(text, t.Messages[i][:]...)
	}
	text = append(text, t.Stream...)
	sum := sha256.Sum256(text)
	c.key(streamKind, sum[:16])
}

// taker tells the Takes of one endpoint apart, those of other processes too: the seed is random.
func (r *Redis) taker(t *policy.Take) (by [8]byte) {
	var h maphash.Hash
	h.SetSeed(r.seed)
	maphash.WriteComparable(&h, t.Time.UnixNano())
	h.WriteString(t.Stream)
	binary.LittleEndian.PutUint64(by[:], h.Sum64()|1) // never that of nobody
	return by
}

// micros rounds up.
func micros(d time.Duration) int64 {
	n := d.Microseconds()
	if d%time.Microsecond > 0 {
		n++
	}
	return n
}

// latest is the moment of the last Take or Settle, where the caller's clock counts.
func (r *Redis) latest() time.Time { return time.Unix(0, r.seen.Load()) }

// Release implements policy.Store.
func (r *Redis) Release(ctx context.Context, t *policy.Take) error {
	client := r.client.Load()
	if client == nil {
		return errNotConnected
	}
	c := r.slot(t.Endpoint).begin()
	messages := c.messages(t.Messages)
	c.stream(t)
	if c.keys == 0 {
		return nil
	}
	by := r.taker(t)
	c.bytes(by[:])
	c.number(int64(messages))
	return failure(r.run(ctx, client, r.scripts.release, c, r.latest()).Error())
}

// Settle implements policy.Store. The server's clock counts, not now.
func (r *Redis) Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	client := r.client.Load()
	if client == nil {
		return false, errNotConnected
	}
	if r.config.callersClock {
		r.seen.Store(now.UnixNano())
	}
	c := (&slot{prefix: prefixOf(endpoint)}).begin()
	c.key(tokenKind, token[:])
	if confirmed {
		c.bytes([]byte("1"))
	} else {
		c.bytes([]byte("0"))
	}
	settled, err := r.run(ctx, client, r.scripts.settle, c, now).AsInt64()
	return settled == 1, failure(err)
}

// Probe asks whether the store runs scripts that write where the keys of an endpoint are.
func (r *Redis) Probe(ctx context.Context, endpoint string) error {
	client := r.client.Load()
	if client == nil {
		return errNotConnected
	}
	return r.probe(ctx, client, endpoint)
}

func (r *Redis) probe(ctx context.Context, client rueidis.Client, endpoint string) error {
	return failure(r.scripts.probe.Exec(ctx, client, []string{prefixOf(endpoint) + probeKind}, nil).Error())
}

// Alive notes that this process is alive and counts those that were within the last while.
func (r *Redis) Alive(ctx context.Context, while time.Duration) (replicas int, err error) {
	client := r.client.Load()
	if client == nil {
		return 0, errNotConnected
	}
	n, err := r.scripts.alive.Exec(ctx, client, []string{aliveKey}, []string{hex.EncodeToString(r.instance[:]), strconv.FormatInt(while.Milliseconds(), 10)}).AsInt64()
	return int(n), failure(err)
}

// failure translates what the server answers where it has no room.
func failure(err error) error {
	if refusal, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(refusal.Error(), "OOM ") {
		return fmt.Errorf("%w: %w", policy.ErrStoreFull, err)
	}
	return err
}
