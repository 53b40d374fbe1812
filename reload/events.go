package reload

import (
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// events are the file system's events in the folders that matter. The zero value has none.
type events struct {
	fs      *fsnotify.Watcher
	watched map[string]bool
	dir     string // the policy folder
	inner   map[string]bool
}

func (e *events) events() <-chan fsnotify.Event {
	if e.fs == nil {
		return nil
	}
	return e.fs.Events
}

func (e *events) errors() <-chan error {
	if e.fs == nil {
		return nil
	}
	return e.fs.Errors
}

func (e *events) close() {
	if e.fs != nil {
		e.fs.Close()
	}
}

// watch listens in the policy folder and in the folders of the other files, as named and behind symbolic links, and in the folder
// that holds the policy folder, where that is replaced. A folder that cannot be watched is left to polling.
func (e *events) watch(dir string, files []string) {
	if e.fs == nil {
		return
	}
	want := map[string]bool{}
	for _, f := range files {
		want[filepath.Dir(f)] = true
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			want[f] = true
		}
		if real, err := filepath.EvalSymlinks(f); err == nil {
			want[filepath.Dir(real)] = true
		}
	}
	want[dir] = true
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		want[real] = true
	}
	e.dir, e.inner = dir, want

	for d := range e.watched {
		if !want[d] && d != filepath.Dir(dir) {
			e.fs.Remove(d)
			delete(e.watched, d)
		}
	}
	for d := range want {
		e.add(d)
	}
	e.add(filepath.Dir(dir))
}

// add watches a folder. One that is watched already is added again: it may have been replaced by another of its name.
func (e *events) add(d string) {
	if e.fs.Add(d) == nil {
		e.watched[d] = true
	} else {
		delete(e.watched, d)
	}
}

// concerns says whether an event is in a folder that matters. What happens beside the policy folder does not.
func (e *events) concerns(ev fsnotify.Event) bool {
	return e.inner[filepath.Dir(ev.Name)] || e.inner[ev.Name] || ev.Name == e.dir
}
