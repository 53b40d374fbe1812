//go:build unix

package audit

import (
	"errors"
	"os"
	"syscall"
)

// lock keeps a second server from writing the same file: their lines would not follow one another.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errors.New("another server writes to it")
	}
	return err
}
