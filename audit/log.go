package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Config says what a Log works with.
type Config struct {
	// Path is the file. It is made where it is not there, with the mode 0600, and only ever added to. Its head is kept beside it, in Path.head.
	Path string
	// Now is the clock for what the Log itself writes. Default: time.Now.
	Now func() time.Time
	// Failed is told of each failed write, and Lost of lines that were lost. Nil: nobody is.
	Failed func()
	Lost   func(n int)
	// Logger gets what goes wrong. Required.
	Logger *slog.Logger
}

// Log writes lines. One goroutine, Run, owns the file, so that nobody who has something to tell waits for the disk unless they want to: Note
// never waits. A disk that is full or broken stops nothing: what cannot be written is counted, logged, and told in a line of its own
// once lines can be written again.
//
// A line of Record is on the disk (fsync) when it returns; those of Note follow within a second.
type Log struct {
	config Config
	queue  chan noted
	reopen chan struct{}
	lost   atomic.Int64
	ended  chan struct{}

	head atomic.Pointer[Head] // of what is in the file
	size atomic.Int64

	// What follows belongs to Run.
	file   *os.File
	beside *os.File // Path.head
	dirty  bool     // something is written that is not on the disk yet
	broken bool     // the last write failed
}

// noted is an entry to be written; done, if there is one, is told the result.
type noted struct {
	entry Entry
	done  chan<- error
}

const (
	// queueLength bounds what waits to be written.
	queueLength = 8192
	syncEvery   = time.Second
	// tail is how much of a file is read when it is opened: some lines, of which the newest must hold together.
	tail = 4 * maxLine
	// headLength is that of what is kept beside the file: number, blank, hash, newline.
	headLength = 20 + 1 + hashLength + 1
)

// Open opens a file and sees whether it goes on where it ended: with the head that is kept beside it. What is wrong is logged and told in a line
// of its own, and does not keep the server from starting; a file that cannot be written does.
func Open(c Config) (*Log, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Failed == nil {
		c.Failed = func() {}
	}
	if c.Lost == nil {
		c.Lost = func(int) {}
	}
	l := &Log{config: c, queue: make(chan noted, queueLength), reopen: make(chan struct{}, 1), ended: make(chan struct{})}
	var err error
	if l.file, err = openFile(c.Path); err != nil {
		return nil, err
	}
	if l.beside, err = os.OpenFile(headPath(c.Path), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("opening the head of the audit file: %w", err)
	}
	if err := l.resume(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func headPath(path string) string { return path + ".head" }

func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the audit file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		err = lock(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the audit file %q: %w", path, err)
	}
	return f, nil
}

// ReadHead reads the head that is kept beside a file; nil where there is none.
func ReadHead(path string) (*Head, error) {
	f, err := os.Open(headPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the head of the audit file: %w", err)
	}
	defer f.Close()
	return readHead(f)
}

func readHead(f *os.File) (*Head, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, headLength+1))
	if err != nil {
		return nil, fmt.Errorf("reading the head of the audit file: %w", err)
	}
	if len(text) == 0 {
		return nil, nil
	}
	number, hash, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || len(text) != headLength || !IsHash(hash) {
		return nil, fmt.Errorf("the head of the audit file, %q, is not what was written there", f.Name())
	}
	return &Head{seq, hash}, nil
}

// resume finds where the file ends.
func (l *Log) resume() error {
	kept, err := readHead(l.beside)
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	last, cut, err := readTail(l.file)
	if err != nil {
		return err
	}
	if cut > 0 {
		problems = append(problems, fmt.Sprintf("the last line was cut off: its %d bytes were removed", cut))
	}
	head := beginning
	switch {
	case last.err != nil:
		problems = append(problems, "the last line is not what was written: "+last.err.Error())
		if kept != nil {
			head = *kept
		}
	case last.entry.Seq > 0:
		head = Head{last.entry.Seq, last.entry.Hash}
		switch {
		case kept == nil:
			problems = append(problems, "the head that is kept beside the file is missing")
		case kept.Seq > head.Seq:
			problems = append(problems, "at the end "+missing(kept.Seq-head.Seq))
			head = *kept
		case kept.Seq == head.Seq && kept.Hash != head.Hash:
			problems = append(problems, "the last line is another than was written")
			head = *kept
		}
	case kept != nil: // the file is new, or was emptied
		head = *kept
	}
	l.head.Store(&head)
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("opening the audit file: %w", err)
	}
	l.size.Store(size)
	if size == 0 && head.Seq > 0 {
		if err := l.write(Entry{Time: l.config.Now(), Kind: Continued}); err != nil {
			return err
		}
	}
	for _, p := range problems {
		l.config.Logger.Error("the audit file is damaged", "file", l.config.Path, "problem", p, "fix", "hookauthz audit verify tells the lines")
		if err := l.write(Entry{Time: l.config.Now(), Kind: Damaged, Problem: p}); err != nil {
			return err
		}
	}
	return l.sync()
}

// lastLine is the newest line of a file.
type lastLine struct {
	entry Entry
	err   error
}

// readTail reads the last line, and removes one that has no end.
func readTail(f *os.File) (last lastLine, cut int, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return last, 0, fmt.Errorf("reading the audit file: %w", err)
	}
	text := make([]byte, min(size, tail))
	if _, err := f.ReadAt(text, size-int64(len(text))); err != nil {
		return last, 0, fmt.Errorf("reading the audit file: %w", err)
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	if cut = len(text) - end; cut > 0 {
		if end == 0 && size > tail {
			return lastLine{err: errForm}, 0, nil
		}
		if err := f.Truncate(size - int64(cut)); err != nil {
			return last, 0, fmt.Errorf("removing what is left of the last line of the audit file: %w", err)
		}
	}
	text = text[:end]
	if len(text) > 0 {
		last.entry, last.err = read(text[bytes.LastIndexByte(text[:end-1], '\n')+1:])
	}
	return last, cut, nil
}

// Head is the newest line in the file.
func (l *Log) Head() Head { return *l.head.Load() }

// Path is where the file is, and Size how long it is: what is behind that may be half a line.
func (l *Log) Path() string { return l.config.Path }

// Size is how much of the file is written.
func (l *Log) Size() int64 { return l.size.Load() }

// Note has an entry written soon, and never waits. Where too many wait already it is lost, and counted.
func (l *Log) Note(e Entry) {
	select {
	case l.queue <- noted{entry: e}:
	default:
		l.lost.Add(1)
		l.config.Lost(1)
	}
}

var errEnded = errors.New("the audit file is closed")

// Record writes an entry. When it returns nil the entry is on the disk.
func (l *Log) Record(ctx context.Context, e Entry) error {
	done := make(chan error, 1)
	select {
	case l.queue <- noted{e, done}:
	case <-l.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-l.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reopen goes on in a new file where the one before was moved away (logrotate).
func (l *Log) Reopen() {
	select {
	case l.reopen <- struct{}{}:
	default: // it is under way
	}
}

// Run writes until ctx ends, and then what still waits.
func (l *Log) Run(ctx context.Context) {
	defer close(l.ended)
	defer l.close()
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case n := <-l.queue:
			l.take(n)
		case <-l.reopen:
			l.goOn()
		case <-tick.C:
			l.tellLost()
			l.settle()
		case <-ctx.Done():
			for {
				select {
				case n := <-l.queue:
					l.take(n)
				default:
					l.tellLost()
					l.settle()
					return
				}
			}
		}
	}
}

// take writes what was noted.
func (l *Log) take(n noted) {
	l.tellLost()
	err := l.write(n.entry)
	if err == nil && n.done != nil {
		err = l.sync()
	}
	l.report(err)
	if err != nil {
		l.lost.Add(1)
		l.config.Lost(1)
	}
	if n.done != nil {
		n.done <- err
	}
}

// tellLost writes how many lines were lost, where that is known.
func (l *Log) tellLost() {
	n := l.lost.Swap(0)
	if n == 0 {
		return
	}
	err := l.write(Entry{Time: l.config.Now(), Kind: Dropped, Count: int(n)})
	l.report(err)
	if err != nil {
		l.lost.Add(n)
	}
}

func (l *Log) settle() {
	if l.dirty {
		l.report(l.sync())
	}
}

// report tells of a fault when it begins, and of its end.
func (l *Log) report(err error) {
	switch {
	case err != nil:
		l.config.Failed()
		if !l.broken {
			l.config.Logger.Error("the audit file cannot be written: lines are lost until it can", "error", err)
		}
		l.broken = true
	case l.broken:
		l.broken = false
		l.config.Logger.Info("the audit file can be written again")
	}
}

// write adds a line, whole or not at all.
func (l *Log) write(e Entry) error {
	text, head, err := l.Head().line(e)
	if err != nil {
		return err
	}
	size := l.size.Load()
	if _, err := l.file.Write(text); err != nil {
		if e := l.file.Truncate(size); e != nil {
			err = errors.Join(err, e)
		}
		return fmt.Errorf("writing the audit file: %w", err)
	}
	l.head.Store(&head)
	l.size.Store(size + int64(len(text)))
	l.dirty = true
	return nil
}

// sync brings what is written to the disk, and then the head: it is never newer than the lines.
func (l *Log) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("writing the audit file: %w", err)
	}
	head := l.Head()
	if head.Seq > 0 {
		if _, err := l.beside.WriteAt(fmt.Appendf(nil, "%020d %s\n", head.Seq, head.Hash), 0); err != nil {
			return fmt.Errorf("writing the head of the audit file: %w", err)
		}
	}
	l.dirty = false
	return nil
}

// goOn goes on in another file.
func (l *Log) goOn() {
	before, err := l.file.Stat()
	if err == nil {
		if now, e := os.Stat(l.config.Path); e == nil && os.SameFile(before, now) {
			return
		}
		err = l.sync()
	}
	var next *os.File
	if err == nil {
		next, err = openFile(l.config.Path)
	}
	if err == nil {
		if info, e := next.Stat(); e != nil || info.Size() > 0 {
			next.Close()
			err = errors.Join(e, errors.New("there is another file, and it is not empty"))
		}
	}
	if err != nil {
		l.config.Failed()
		l.config.Logger.Error("the audit goes on in the file before, which was moved away", "error", err)
		return
	}
	l.file.Close()
	l.file = next
	l.size.Store(0)
	l.report(errors.Join(l.write(Entry{Time: l.config.Now(), Kind: Continued}), l.sync()))
	l.config.Logger.Info("the audit goes on in a new file", "file", l.config.Path, "seq", l.Head().Seq)
}

func (l *Log) close() {
	l.file.Close()
	l.beside.Close()
}
