// Package lines writes the log of a server that decides many times a second: lines in the two formats of log/slog, put together without
// garbage and written several at once.
package lines

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// WriterConfig says what a Writer works with. Zero values take the defaults.
type WriterConfig struct {
	// MaxPending bounds the bytes that wait to be written. Default: 4 MiB, some 10,000 lines.
	MaxPending int
	// Lost is told, from a goroutine of the Writer, how many lines there was no room for. It may write.
	Lost func(lines int)
}

// Writer hands lines to a slow writer, such as standard error, from a goroutine of its own: no check waits for a disk or a pipe. After a
// quiet moment a line is written at once; those that come while it is written, and for 2 ms thereafter, go out together. Beyond
// WriterConfig.MaxPending a line is dropped and counted: memory is bounded and the server goes on.
type Writer struct {
	config  WriterConfig
	out     io.Writer
	wake    chan struct{} // has room for one
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when all is written
	missing atomic.Uint64 // lines that were lost

	mu       sync.Mutex // guards what follows
	pending  []byte
	lost     int
	closed   bool
	finished bool // nothing is pending and nobody writes any more
}

// NewWriter makes a Writer that is running. Close ends it.
func NewWriter(out io.Writer, c WriterConfig) *Writer {
	if c.MaxPending <= 0 {
		c.MaxPending = 4 << 20
	}
	if c.Lost == nil {
		c.Lost = func(int) {}
	}
	w := &Writer{config: c, out: out, wake: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{})}
	go w.run()
	return w
}

// Write takes lines. It keeps nothing of p, does not wait and does not fail. After Close it writes them itself.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finished {
		return w.out.Write(p)
	}
	if len(w.pending)+len(p) > w.config.MaxPending {
		w.lost++
		return len(p), nil
	}
	w.pending = append(w.pending, p...)
	select {
	case w.wake <- struct{}{}:
	default: // it will look anyway
	}
	return len(p), nil
}

// gather is how long a busy log collects lines before it writes again: a system call for each costs more than the lines do.
const gather = 2 * time.Millisecond

// run writes until Close.
func (w *Writer) run() {
	defer close(w.ended)
	rest := time.NewTimer(0)
	defer rest.Stop()
	var batch []byte
	for !w.finish() {
		select {
		case <-w.wake:
		case <-w.closing:
		}
		batch = w.writePending(batch)
		rest.Reset(gather)
		select {
		case <-rest.C:
		case <-w.closing:
		}
	}
}

// writePending writes what there is. The spare buffer takes the lines that come meanwhile; the one that is returned is the next spare one.
func (w *Writer) writePending(spare []byte) []byte {
	batch, lost := w.take(spare)
	if len(batch) > 0 {
		if _, err := w.out.Write(batch); err != nil { // there is no other place to tell of it
			w.missing.Add(uint64(bytes.Count(batch, []byte("\n"))))
		}
	}
	if lost > 0 {
		w.missing.Add(uint64(lost))
		w.config.Lost(lost)
	}
	return batch
}

// LostLines is how many lines there was no room for, or could not be written.
func (w *Writer) LostLines() uint64 { return w.missing.Load() }

// finish reports whether there will be nothing to write.
func (w *Writer) finish() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = w.closed && len(w.pending) == 0 && w.lost == 0
	return w.finished
}

// keptBytes is the largest buffer that is used again.
const keptBytes = 256 << 10

// take exchanges what is pending for a buffer that is empty.
func (w *Writer) take(spare []byte) (pending []byte, lost int) {
	if cap(spare) > keptBytes {
		spare = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	pending, w.pending = w.pending, spare[:0]
	lost, w.lost = w.lost, 0
	return pending, lost
}

// Close ends the Writer once everything is written, and reports whether that was within patience.
func (w *Writer) Close(patience time.Duration) bool {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ended:
		return true
	case <-timer.C:
		return false
	}
}
