package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// process is a running program. What it writes goes into a pipe, as it does in a container, and is counted and dropped.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines atomic.Int64
	ended chan struct{} // closed when it has ended and its output is read
	err   error         // set before

	mu   sync.Mutex
	tail []byte // the end of what it wrote
}

// tailLen is how much of the output is kept, for complaints and for what is waited for.
const tailLen = 4 << 10

// start starts a program; with cpus, on these only.
func start(name string, cpus []int, env []string, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = input, input
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		defer close(p.ended)
		// The program is killed when the thread that started it ends, so that thread must stay as long as we do. It is not used again.
		runtime.LockOSThread()
		err := error(nil)
		if len(cpus) > 0 {
			err = onCPUs(cpus)
		}
		if err == nil {
			err = p.cmd.Start()
		}
		input.Close()
		started <- err
		if err != nil {
			output.Close()
			return
		}
		var read sync.WaitGroup
		read.Go(func() { p.drain(output) })
		p.err = p.cmd.Wait()
		read.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

func (p *process) drain(output *os.File) {
	defer output.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := output.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.tail = append(p.tail, buffer[max(0, n-tailLen):n]...)
		if extra := len(p.tail) - tailLen; extra > 0 {
			p.tail = append(p.tail[:0], p.tail[extra:]...)
		}
		p.mu.Unlock()
		p.lines.Add(int64(bytes.Count(buffer[:n], []byte("\n"))))
	}
}

// lastWords is the end of what the program wrote.
func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.TrimSpace(string(p.tail))
}

// forgetWords has lastWords begin anew.
func (p *process) forgetWords() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail = p.tail[:0]
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait polls until ok has no complaint.
func (p *process) wait(ctx context.Context, ok func() error) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s has ended (%v); its last words:\n%s", p.name, p.err, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w); its last words:\n%s", p.name, err, context.Cause(ctx), p.lastWords())
		}
	}
}

// says waits until the program has written this since forgetWords.
func (p *process) says(ctx context.Context, what string) error {
	return p.wait(ctx, func() error {
		if !strings.Contains(p.lastWords(), what) {
			return fmt.Errorf("did not say %q", what)
		}
		return nil
	})
}

// stop asks the program to end and waits for it.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// parseMemory reads VmRSS and VmHWM of /proc/PID/status, in bytes.
func parseMemory(status []byte) (now, peak int64, err error) {
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		var into *int64
		switch name {
		case "VmRSS":
			into = &now
		case "VmHWM":
			into = &peak
		default:
			continue
		}
		text, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || !ok {
			return 0, 0, fmt.Errorf("%s is %q, want a number of kB", name, strings.TrimSpace(value))
		}
		*into = n << 10
	}
	if now == 0 || peak == 0 {
		return 0, 0, errors.New("no VmRSS or no VmHWM")
	}
	return now, peak, nil
}
