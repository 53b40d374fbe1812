package reload

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxRead is how much of a file is compared. The caps on policy and secret files are below it.
const maxRead = 16 << 20

// content identifies what the files hold. It is comparable and holds no part of a file.
type content struct {
	policies, secrets [sha256.Size]byte
}

// look reads the policy files in dir and those of files that are not among them. Of a folder among them it reads the names.
func look(dir string, files []string) content {
	var c content
	h := sha256.New()
	names, err := policyFiles(dir)
	if err != nil {
		add(h, "unreadable", kind(err))
	}
	for _, n := range names {
		addFile(h, filepath.Join(dir, n))
	}
	h.Sum(c.policies[:0])

	h.Reset()
	files = slices.Clone(files)
	slices.Sort(files)
	for _, f := range slices.Compact(files) {
		if filepath.Dir(f) != dir || !isPolicyFile(filepath.Base(f)) {
			addFile(h, f)
		}
	}
	h.Sum(c.secrets[:0])
	return c
}

// policyFiles lists the names of the policy files in dir, sorted.
func policyFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isPolicyFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// isPolicyFile says whether policy.Load reads a file of this name.
func isPolicyFile(name string) bool {
	ext := filepath.Ext(name)
	return !strings.HasPrefix(name, ".") && (ext == ".yaml" || ext == ".yml")
}

// maxNames is how many names in a folder of secrets are compared. A folder with more is a fault.
const maxNames = 1025

// addFile adds a file's name and what it holds, or why that cannot be had. Of a folder it adds which files are in it.
func addFile(h hash.Hash, path string) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		addFolder(h, path)
		return
	}
	sum, err := fileSum(path)
	if err != nil {
		add(h, path, kind(err))
		return
	}
	add(h, path, "holds", string(sum))
}

// addFolder adds the names in a folder that are not hidden, and whether each is a regular file.
func addFolder(h hash.Hash, path string) {
	f, err := os.Open(path)
	if err != nil {
		add(h, path, kind(err))
		return
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		add(h, path, kind(err))
		return
	}
	slices.Sort(names)
	for _, n := range names {
		if strings.HasPrefix(n, ".") {
			continue
		}
		file := filepath.Join(path, n)
		info, err := os.Stat(file)
		add(h, file, fmt.Sprint(err == nil && info.Mode().IsRegular()))
	}
	add(h, path, "ends")
}

func fileSum(path string) ([]byte, error) {
	// A pipe would block the one who opens it.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxRead)); err != nil {
		return nil, err
	}
	return fmt.Appendf(h.Sum(nil), " of %d", info.Size()), nil
}

// kind is the text of an error that stays the same as long as its cause does.
func kind(err error) string {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}

// add adds words so that no other words give the same sum.
func add(h hash.Hash, words ...string) {
	var n [8]byte
	for _, w := range words {
		binary.BigEndian.PutUint64(n[:], uint64(len(w)))
		h.Write(n[:])
		io.WriteString(h, w)
	}
}
