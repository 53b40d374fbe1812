package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a running program. Its output goes to a file.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  string
	// ended is closed when the program has ended; err is set before.
	ended  chan struct{}
	err    error
	killed bool // by Kill: an end that is meant
}

// Start runs a program with its output in dir/NAME.log, behind what is there already.
func Start(name, dir string, env []string, path string, args ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	p.cmd.SysProcAttr = processAttributes()

	started := make(chan error)
	go func() {
		defer close(p.ended)
		defer out.Close()
		// The program is killed when the thread that started it ends, so that thread must stay as long as we do.
		runtime.LockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = p.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Alive says whether the program is running.
func (p *Process) Alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Log is what the program has written.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail is the end of what the program has written.
func (p *Process) Tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.Log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the program at once. Stop has no complaint about that.
func (p *Process) Kill() {
	p.killed = true
	p.cmd.Process.Kill()
	<-p.ended
}

// errForced says that a program did not end when it was asked to.
var errForced = errors.New("did not end when asked to, and was killed")

// Stop asks the program to end and waits for it: the error is about an end that is not clean.
func (p *Process) Stop(patience time.Duration) error {
	if !p.Alive() {
		if p.killed {
			return nil
		}
		return p.err
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("%s: %w", p.Name, errForced)
	}
}
