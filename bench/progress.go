package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress tells what is going on: a terminal in one line that changes, anything else a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	last     time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// tell says how far it is, and what comes now.
func (p *progress) tell(where, what string) {
	const rarely = 20 * time.Second
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\033[K%s%s", where, what)
	case time.Since(p.last) >= rarely:
		fmt.Fprintf(p.out, "%s%s\n", where, what)
		p.last = time.Now()
	}
}

// end removes the line.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
