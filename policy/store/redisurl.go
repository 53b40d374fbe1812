package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// Refused is an error with what to change. Neither holds a password.
type Refused struct {
	Err error
	Fix string
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

const urlForm = "write it as redis://user:password@host:6379/0, rediss:// for TLS; ?cluster=true for a cluster, ?sentinel=NAME for sentinels, &addr=host:port for further nodes"

// ParseRedisURL reads redis://[user:password@]host[:port][/database] and rediss:// for TLS, with the parameters cluster (true or false),
// sentinel (the name of the primary that the addresses, which are sentinels, watch) and addr (a further host:port, repeated).
// Errors are of type *Refused.
func ParseRedisURL(text string) (RedisConfig, error) {
	var c RedisConfig
	refuse := func(format string, args ...any) (RedisConfig, error) {
		return RedisConfig{}, &Refused{fmt.Errorf(format, args...), urlForm}
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's own error shows the text, which may hold a password.
		return refuse("the URL of the store cannot be read")
	}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return refuse("the URL of the store has the scheme %q, not redis or rediss", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return refuse("the URL of the store names no host")
	case u.Fragment != "":
		return refuse("the URL of the store has a '#': in a password it is written %%23")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return refuse("the parameters of the store's URL cannot be read")
	}
	for name, values := range query {
		switch {
		case !slices.Contains([]string{"cluster", "sentinel", "addr"}, name):
			return refuse("the URL of the store has an unknown parameter %q", name)
		case name != "addr" && len(values) > 1:
			return refuse("the URL of the store has the parameter %q more than once", name)
		}
	}
	standard := "6379"
	if c.Sentinel = query.Get("sentinel"); c.Sentinel != "" {
		standard = "26379"
	} else if query.Has("sentinel") {
		return refuse("the URL of the store names no primary in the parameter sentinel")
	}
	for _, address := range append([]string{u.Host}, query["addr"]...) {
		host, port, err := splitAddress(address, standard)
		if err != nil {
			return refuse("the URL of the store has the address %q, which is not host:port", address)
		}
		c.Addresses = append(c.Addresses, net.JoinHostPort(host, port))
	}
	if query.Has("cluster") {
		if c.Cluster, err = strconv.ParseBool(query.Get("cluster")); err != nil {
			return refuse("the URL of the store says cluster=%s, not true or false", query.Get("cluster"))
		}
	}
	if database := strings.TrimPrefix(u.Path, "/"); database != "" {
		if c.Database, err = strconv.Atoi(database); err != nil || c.Database < 0 {
			return refuse("the URL of the store names the database %q, which is not a number", database)
		}
	}
	switch {
	case c.Cluster && c.Database != 0:
		return refuse("the URL of the store names the database %d: a cluster has none but 0", c.Database)
	case c.Cluster && c.Sentinel != "":
		return refuse("the URL of the store names a cluster and a sentinel: it can be one of them")
	case len(c.Addresses) > 1 && !c.Cluster && c.Sentinel == "":
		return refuse("the URL of the store has several addresses, and neither cluster nor sentinel")
	}
	if u.User != nil {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	if u.Scheme == "rediss" {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if net.ParseIP(u.Hostname()) == nil && len(c.Addresses) == 1 && !c.Cluster && c.Sentinel == "" {
			c.TLS.ServerName = u.Hostname() // elsewhere each address is its own name
		}
	}
	return c, nil
}

func splitAddress(address, standard string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(address); err != nil {
		host, port, err = net.SplitHostPort(address + ":" + standard)
	}
	if err != nil {
		return "", "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", "", errors.New("no host or no port")
	}
	return host, port, nil
}

// String is where the store is, without user and password.
func (c RedisConfig) String() string {
	scheme := "redis"
	if c.TLS != nil {
		scheme = "rediss"
	}
	text := fmt.Sprintf("%s://%s/%d", scheme, strings.Join(c.Addresses, ","), c.Database)
	switch {
	case c.Cluster:
		text += "?cluster=true"
	case c.Sentinel != "":
		text += "?sentinel=" + url.QueryEscape(c.Sentinel)
	}
	return text
}

// oldest are the first versions that will do, by the name that the server gives itself.
var oldest = map[string]int{"redis": 7, "valkey": 8}

// check asks a server what it is.
func (c RedisConfig) check(ctx context.Context, client rueidis.Client) error {
	hello, err := client.Do(ctx, client.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return c.explain(err)
	}
	text := func(name string) string {
		m := hello[name]
		s, _ := m.ToString()
		return s
	}
	server, version, mode, role := text("server"), text("version"), text("mode"), text("role")
	major, err := strconv.Atoi(version[:max(0, strings.IndexByte(version, '.'))])
	least, known := oldest[server]
	switch {
	case err != nil || !known:
		return c.refused("give the URL of a Redis 7 or Valkey 8 server, or later", "it is a server %q of version %q", server, version)
	case major < least:
		return c.refused(fmt.Sprintf("upgrade it to %d or later", least), "it is %s %s, which is too old", server, version)
	case mode == "sentinel":
		return c.refused("name the primary that it watches: ?sentinel=NAME", "it is a sentinel")
	case mode == "cluster" && !c.Cluster:
		return c.refused("add ?cluster=true to the URL", "it is a node of a cluster")
	case mode != "cluster" && c.Cluster:
		return c.refused("leave cluster=true out of the URL", "it is no node of a cluster")
	case role != "master" && !c.Cluster:
		return c.refused("give the URL of the primary, or of the sentinels with ?sentinel=NAME", "it is a %s, which takes no writes", role)
	}
	return nil
}

func (c RedisConfig) refused(fix, format string, args ...any) error {
	return &Refused{fmt.Errorf("the store %s: %w", c, fmt.Errorf(format, args...)), fix}
}

// fixes say what to change, by what the server or the network says.
var fixes = []struct{ text, fix string }{
	{"WRONGPASS", "check the user and the password: in the URL (percent-encoded), or --store-password-file"},
	{"NOAUTH", "the server wants a password: give it in the URL or with --store-password-file"},
	{"NOPERM", "let the user run EVALSHA, EVAL, SET, GET, DEL, SETRANGE, TIME, ZADD, ZCARD, ZRANGE, ZREMRANGEBYSCORE, PEXPIRE, HELLO and CLIENT on the keys hookauthz:*"},
	{"DB index is out of range", "give a database that the server has, as in redis://host:6379/0"},
	{"SELECT is not allowed in cluster", "leave the database out and add ?cluster=true: the server is a node of a cluster"},
	{"cluster support disabled", "leave cluster=true out of the URL: the server is no node of a cluster"},
	{"NOREPLICAS", "let the replicas of the primary connect, or lower its min-replicas-to-write"},
	{"READONLY", "give the URL of the primary, or of the sentinels with ?sentinel=NAME"},
	{"MISCONF", "the server cannot save its data and takes no writes: see its log"},
	{"LOADING", "wait until the server has loaded its data"},
	{"unknown message type", "it is no Redis or Valkey server: correct the host and port"},
	{"CLUSTERDOWN", "wait until the cluster is up, or repair it: redis-cli --cluster check"},
	{"No such master with that name", "name the primary that the sentinels watch: ?sentinel=NAME"},
	{"unknown command 'SENTINEL", "it is no sentinel: leave sentinel=NAME out of the URL, or give the address of one"},
	{"unknown command", "upgrade it to Redis 7 or Valkey 8"},
	{"certificate required", "have the server ask for no certificate of its clients (tls-auth-clients no): hookauthz authenticates with a user and a password"},
	{"x509:", "give the authority of the server's certificate with --store-ca, and the host name that the certificate carries"},
	{"does not look like a TLS handshake", "the server speaks no TLS at this port: write redis://, or give its TLS port"},
	{"connection refused", "start the server, or correct the host and port"},
	{"no such host", "correct the host name"},
	{"EOF", "the server closed the connection: if it speaks TLS at this port, write rediss://"},
	{"connection reset", "the server closed the connection: if it speaks TLS at this port, write rediss://"},
}

// explain adds what to change to an error of connecting.
func (c RedisConfig) explain(err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return err
	}
	fix := "check that the server runs and can be reached from here"
	if c.TLS != nil {
		fix = "the server may speak no TLS at this port: write redis://, or give its TLS port"
	}
	for _, f := range fixes {
		if strings.Contains(err.Error(), f.text) {
			fix = f.fix
			break
		}
	}
	return c.refused(fix, "%w", err)
}
