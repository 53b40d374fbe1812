package redistest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// StartCluster starts a cluster of three primaries, and a replica of each where replicated says so: that of node i is node i+3.
func StartCluster(t testing.TB, replicated bool) []*Server {
	t.Helper()
	nodes := make([]*Server, 3, 6)
	if replicated {
		nodes = nodes[:6]
	}
	for i := range nodes {
		nodes[i] = Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-allow-replica-migration", "no")
	}
	for i, n := range nodes[:3] {
		n.Do(t, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(16384*i/3), fmt.Sprint(16384*(i+1)/3-1))
		n.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, n := range nodes[1:] {
		n.Do(t, "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(nodes[0].Port))
	}
	Eventually(t, "every node knows all others", func() bool {
		for _, n := range nodes {
			if strings.Count(n.Do(t, "CLUSTER", "NODES"), "connected") != len(nodes) {
				return false
			}
		}
		return true
	})
	for i, n := range nodes[3:] {
		id := nodes[i].Do(t, "CLUSTER", "MYID")
		Eventually(t, "a replica knows its primary", func() bool {
			answer, err := n.Ask("CLUSTER", "REPLICATE", id)
			return err == nil && answer == "+OK"
		})
	}
	for i, n := range nodes[3:] {
		Eventually(t, "a replica follows", func() bool { return strings.Contains(n.Do(t, "INFO", "replication"), "master_link_status:up") })
		Eventually(t, "a primary has its replica", func() bool { return strings.Contains(nodes[i].Do(t, "INFO", "replication"), "connected_slaves:1") })
	}
	Eventually(t, "the cluster is up", func() bool {
		for _, n := range nodes {
			if !strings.Contains(n.Do(t, "CLUSTER", "INFO"), "cluster_state:ok") {
				return false
			}
		}
		return true
	})
	return nodes
}

// Replicated waits until a replica has all that its primary has.
func Replicated(t testing.TB, primary, replica *Server) {
	t.Helper()
	Eventually(t, "all is replicated", func() bool {
		return primary.info(t, "master_repl_offset") == replica.info(t, "slave_repl_offset")
	})
}

// info is one field of what the server says of its replication.
func (s *Server) info(t testing.TB, name string) string {
	t.Helper()
	for line := range strings.Lines(s.Do(t, "INFO", "replication")) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("the server at %s says nothing of %s", s.Address(), name)
	return ""
}

// Eventually polls a condition of another process.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so that %s", what)
		}
	}
}
