//go:build unix && !linux

package redistest

import "syscall"

// processAttributes keeps Ctrl-C away from the program, for us to end it in order.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
