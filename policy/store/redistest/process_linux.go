package redistest

import "syscall"

// processAttributes keeps Ctrl-C away from the program, for us to end it in order, and has it killed if we are.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
