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
	instance [8]byte // tells the Takes of this process from those of others
	client   atomic.Pointer[connection]
	connect  sync.Mutex
	closed   bool     // guarded by connect
	offsets  sync.Map // endpoint -> *atomic.Int64; where there is one server, endpoint is ""
	seen     atomic.Int64
}

type connection struct{ rueidis.Client }

// NewRedis makes a Redis that is not connected yet.
func NewRedis(c RedisConfig) *Redis {
	if c.CallTimeout <= 0 {
		c.CallTimeout = 50 * time.Millisecond
	}
	r := &Redis{config: c, scripts: newScripts()}
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
	r.client.Store(&connection{client})
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

// call is the arguments of one script. Every one begins with the prefix and the time.
type call struct {
	keys, args []string
}

func (c *call) key(prefix, kind string, id []byte) { c.keys = append(c.keys, prefix+kind+string(id)) }
func (c *call) bytes(b []byte)                     { c.args = append(c.args, string(b)) }
func (c *call) number(n int64)                     { c.args = append(c.args, strconv.FormatInt(n, 10)) }

func (r *Redis) begin(prefix string, now time.Time, keys, args int) *call {
	c := &call{keys: make([]string, 0, keys), args: make([]string, 0, args+3)}
	c.args = append(c.args, prefix)
	if !r.config.callersClock {
		c.args = append(c.args, "", "")
		return c
	}
	c.number(now.Unix())
	c.number(int64(now.Nanosecond()))
	return c
}

// Bits of the flags of a Take and of its reply, as take.lua has them.
const (
	flagTag, flagPeek                                      = 1, 2
	flagRetry, flagDuplicate, flagInFlight, flagLate int64 = 1, 2, 4, 8
)

// Take implements policy.Store. Times of deliveries count in microseconds, rounded up; limits in nanoseconds.
func (r *Redis) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	client := r.client.Load()
	if client == nil {
		return policy.Taken{}, errNotConnected
	}
	if r.config.callersClock {
		r.seen.Store(t.Time.UnixNano())
	}
	offset := r.offset(t.Endpoint)
	taken, err := r.take(ctx, client, t, offset)
	if errors.Is(err, errLate) && ctx.Err() == nil {
		// The caller still waits, so the clocks have moved apart; the reply has said by how much.
		taken, err = r.take(ctx, client, t, offset)
	}
	return taken, err
}

func (r *Redis) take(ctx context.Context, client *connection, t *policy.Take, offset *atomic.Int64) (policy.Taken, error) {
	prefix := prefixOf(t.Endpoint)
	c := r.begin(prefix, t.Time, len(t.Messages)+len(t.Buckets)+1, 7+2*len(t.Buckets))
	messages := c.messages(prefix, t.Messages)
	for i := range t.Buckets {
		c.key(prefix, bucketKind, t.Buckets[i].Key[:])
	}
	c.stream(prefix, t)
	c.number(r.lastMoment(ctx, offset))
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
	var id policy.Token
	rand.Read(id[:])
	c.bytes(id[:])
	by := r.taker(t)
	c.bytes(by[:])
	for i := range t.Buckets {
		interval, early := t.Buckets[i].Limit.Schedule()
		c.number(interval)
		c.number(early)
	}
	reply, err := r.scripts.take.Exec(ctx, client, c.keys, c.args).ToArray()
	if err != nil {
		return policy.Taken{}, failure(err)
	}
	return r.taken(t, reply, id, offset)
}

// taken reads the script's reply.
func (r *Redis) taken(t *policy.Take, reply []rueidis.RedisMessage, id policy.Token, offset *atomic.Int64) (taken policy.Taken, err error) {
	if len(reply) < 4 {
		return taken, fmt.Errorf("the store's reply has %d parts, not 4", len(reply))
	}
	var numbers [4]int64
	for i := range numbers {
		if numbers[i], err = reply[i].AsInt64(); err != nil {
			return taken, fmt.Errorf("part %d of the store's reply: %w", i+1, err)
		}
	}
	flags, limited, wait := numbers[0], numbers[1], numbers[2]
	// The server was at this moment before now: the offset is never too large.
	offset.Store(numbers[3] - time.Now().UnixMicro())
	if flags&flagLate != 0 {
		return taken, errLate
	}
	taken = policy.Taken{
		Retry:      flags&flagRetry != 0,
		Duplicate:  flags&flagDuplicate != 0,
		InFlight:   flags&flagInFlight != 0,
		Limited:    int(limited),
		RetryAfter: time.Duration(wait),
	}
	if wait < 0 {
		taken.RetryAfter = math.MaxInt64
	}
	switch {
	case taken.Retry && len(reply) > 4:
		token, err := reply[4].ToString()
		if err != nil || len(token) != len(taken.Token) {
			return policy.Taken{}, errors.New("the store's reply has a token that is none")
		}
		copy(taken.Token[:], token)
	case !taken.Retry && !taken.Duplicate && taken.Limited == 0 && !t.Peek && t.Reservation > 0 && len(t.Messages) > 0:
		taken.Token = id
	}
	return taken, nil
}

// lastMoment is the last at which a call may act, in the server's microseconds: 0 where nothing is known of its clock.
func (r *Redis) lastMoment(ctx context.Context, offset *atomic.Int64) int64 {
	deadline, ok := ctx.Deadline()
	if o := offset.Load(); ok && o != 0 && !r.config.callersClock {
		return deadline.UnixMicro() + o
	}
	return 0
}

// offset is how far the server's clock is ahead of ours, at least: 0 where that is not known. The nodes of a cluster have a clock each.
func (r *Redis) offset(endpoint string) *atomic.Int64 {
	if !r.config.Cluster {
		endpoint = ""
	}
	if o, ok := r.offsets.Load(endpoint); ok {
		return o.(*atomic.Int64)
	}
	o, _ := r.offsets.LoadOrStore(endpoint, new(atomic.Int64))
	return o.(*atomic.Int64)
}

// messages adds the keys of the messages, each once, and gives their number.
func (c *call) messages(prefix string, ids []signature.MessageID) int {
	for i := range ids {
		if !slices.Contains(ids[:i], ids[i]) {
			c.key(prefix, messageKind, ids[i][:])
		}
	}
	return len(c.keys)
}

// stream adds the key of the stream: the same stream with other messages is another one.
func (c *call) stream(prefix string, t *policy.Take) {
	if t.Stream == "" {
		return
	}
	h := sha256.New()
	h.Write([]byte{byte(len(t.Messages))}) // tells where the messages end
	for i := range t.Messages {
		h.Write(t.Messages[i][:])
	}
	h.Write([]byte(t.Stream))
	var sum [sha256.Size]byte
	c.key(prefix, streamKind, h.Sum(sum[:0])[:16])
}

// taker tells the Takes of one endpoint apart.
func (r *Redis) taker(t *policy.Take) (by [8]byte) {
	b := make([]byte, 0, 64)
	b = append(b, r.instance[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Time.UnixNano()))
	b = append(b, t.Stream...)
	sum := sha256.Sum256(b)
	copy(by[:], sum[:])
	by[0] |= 1 // never that of nobody
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
	prefix := prefixOf(t.Endpoint)
	c := r.begin(prefix, r.latest(), len(t.Messages)+1, 2)
	messages := c.messages(prefix, t.Messages)
	c.stream(prefix, t)
	if len(c.keys) == 0 {
		return nil
	}
	c.number(int64(messages))
	by := r.taker(t)
	c.bytes(by[:])
	return failure(r.scripts.release.Exec(ctx, client, c.keys, c.args).Error())
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
	prefix := prefixOf(endpoint)
	c := r.begin(prefix, now, 1, 2)
	c.key(prefix, tokenKind, token[:])
	if confirmed {
		c.number(1)
	} else {
		c.number(0)
	}
	c.bytes(token[:])
	settled, err := r.scripts.settle.Exec(ctx, client, c.keys, c.args).AsInt64()
	return settled == 1, failure(err)
}

// Probe asks whether the store takes writes where the keys of an endpoint are.
func (r *Redis) Probe(ctx context.Context, endpoint string) error {
	client := r.client.Load()
	if client == nil {
		return errNotConnected
	}
	key := prefixOf(endpoint) + probeKind
	return failure(client.Do(ctx, client.B().Set().Key(key).Value("1").PxMilliseconds(10_000).Build()).Error())
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
