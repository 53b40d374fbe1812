//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

var errLinux = errors.New("the CPU time and memory of other processes are read as Linux shows them: run it there")

func attributes() *syscall.SysProcAttr        { return nil }
func cpuTime(int) (time.Duration, error)      { return 0, errLinux }
func forgetPeak(int) error                    { return errLinux }
func memory(int) (now, peak int64, err error) { return 0, 0, errLinux }
func onCPUs([]int) error                      { return errLinux }
func usableCPUs() ([]int, error)              { return nil, errLinux }
func moveSelf([]int) error                    { return errLinux }
func machine() (cpu, kernel string)           { return "unknown CPU", "unknown kernel" }
