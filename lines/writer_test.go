package lines_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hookauthz/hookauthz/lines"
)

// gate is a writer whose writes wait until it is opened.
type gate struct {
	open   chan struct{}
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	return g.text.Write(p)
}

// On a quiet server each line is written at once, with nothing to push it out.
func TestALineIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		close(g.open)
		w := lines.NewWriter(g, lines.WriterConfig{})
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			synctest.Wait()
			if g.writes != i+1 {
				t.Errorf("%d writes after %d lines", g.writes, i+1)
			}
			time.Sleep(10 * time.Millisecond) // of the bubble's clock
		}
		w.Close(time.Second)
	})
}

// On a busy one they gather for 2 ms, and not for longer.
func TestLinesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		close(g.open)
		w := lines.NewWriter(g, lines.WriterConfig{})
		for i := range 1000 {
			fmt.Fprintf(w, "line %d\n", i)
			time.Sleep(10 * time.Microsecond)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if lines := strings.Count(g.text.String(), "\n"); lines != 1000 {
			t.Errorf("%d lines are written 2 ms after the last of 1000", lines)
		}
		if g.writes > 10 {
			t.Errorf("%d writes in 10 ms, want one each 2 ms", g.writes)
		}
		w.Close(time.Second)
	})
}

// What comes while a write is under way goes out with the next one, in its order, and Close waits for it.
func TestLinesThatComeMeanwhileAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := lines.NewWriter(g, lines.WriterConfig{})
		var want strings.Builder
		for i := range 1000 {
			fmt.Fprintf(w, "line %d\n", i)
			fmt.Fprintf(&want, "line %d\n", i)
			if i == 0 {
				synctest.Wait() // it is stuck with the first line
			}
		}
		close(g.open)
		if !w.Close(time.Second) {
			t.Error("not all is written")
		}
		if g.text.String() != want.String() {
			t.Errorf("got %.80q", g.text.String())
		}
		if g.writes != 2 {
			t.Errorf("%d writes, want 2", g.writes)
		}
		fmt.Fprint(w, "after\n")
		if !strings.HasSuffix(g.text.String(), "after\n") {
			t.Error("a line after Close is lost")
		}
	})
}

// A writer that takes nothing costs no more than its share of memory and holds nobody up; how much is lost is told.
func TestAStuckWriterLosesLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var w *lines.Writer
		w = lines.NewWriter(g, lines.WriterConfig{MaxPending: 100, Lost: func(n int) { fmt.Fprintf(w, "%d lost\n", n) }})
		fmt.Fprint(w, "first\n")
		synctest.Wait() // it is stuck with the first line
		for range 30 {
			fmt.Fprint(w, "ten bytes\n")
		}
		if w.Close(time.Second) {
			t.Error("all is written, it says")
		}
		fmt.Fprint(w, "in vain..\n") // does not wait
		close(g.open)
		synctest.Wait()
		if want := "first\n" + strings.Repeat("ten bytes\n", 10) + "21 lost\n"; g.text.String() != want {
			t.Errorf("got %q, want %q", g.text.String(), want)
		}
		if got := w.LostLines(); got != 21 {
			t.Errorf("%d lines are counted as lost, want 21", got)
		}
	})
}

// A log that nobody reads any more holds nobody up either, and is counted.
func TestABrokenWriterLosesLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		reader.Close()
		w := lines.NewWriter(writer, lines.WriterConfig{})
		for range 3 {
			fmt.Fprint(w, "in\nvain\n")
		}
		if !w.Close(time.Second) {
			t.Error("it waits for somebody to read")
		}
		if got := w.LostLines(); got != 6 {
			t.Errorf("%d lines are counted as lost, want 6", got)
		}
	})
}

func TestWriterByMany(t *testing.T) {
	g := newGate()
	close(g.open)
	w := lines.NewWriter(g, lines.WriterConfig{})
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 500 {
				fmt.Fprintf(w, "%s\n", strings.Repeat(string(rune('a'+i)), 20))
			}
		})
	}
	writers.Wait()
	if !w.Close(time.Minute) {
		t.Fatal("not all is written")
	}
	counts := map[string]int{}
	for line := range strings.Lines(g.text.String()) {
		counts[line]++
	}
	if len(counts) != 8 || counts["aaaaaaaaaaaaaaaaaaaa\n"] != 500 {
		t.Errorf("got %v", counts)
	}
}
