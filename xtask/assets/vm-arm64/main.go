// The first process of the arm64 test VM, which has no shell: mounts, runs the tests that its kernel command line names and says
// the verdict. Every line of ours begins with VM; the serial line is the only thing the host believes.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	for _, at := range []struct{ kind, path string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"},
		{"tracefs", "/sys/kernel/tracing"}, {"bpf", "/sys/fs/bpf"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := syscall.Mount(at.kind, at.path, at.kind, 0, ""); err != nil {
			fmt.Println("VM no", at.kind+":", err)
		}
	}
	if err := loopback(); err != nil {
		verdict(101, "no loopback: "+err.Error())
	}
	fmt.Printf("VM kernel %s up after %s s\n", line("/proc/sys/kernel/osrelease"), uptime())
	os.Setenv("PATH", "/bin")
	os.Setenv("WHYWAIT_DEMO_DIR", "/bin")
	os.Setenv("WHYWAIT_PROGRAM", "/bin/whywait")
	os.Setenv("WHYWAIT_SLOW_MACHINE", "1")
	os.Setenv("CI", "true")
	fmt.Println("VM selftest begins")
	failed := 0
	for _, test := range tests() {
		program, filter, _ := strings.Cut(test, ":")
		args := []string{"--test-threads=1", "--nocapture"}
		if filter != "" {
			args = append(args, strings.Split(filter, "+")...)
		}
		fmt.Printf("VM test %s at %s s\n", test, uptime())
		command := exec.Command("/bin/"+program, args...)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		if err := command.Run(); err != nil {
			fmt.Printf("VM test %s: %v\n", test, err)
			failed++
		}
	}
	verdict(failed, "after "+uptime()+" s")
}

// tests are words of the kernel's command line: test=FILE[:NAME+NAME]. NAME=VALUE words that the kernel does not know are in the environment.
func tests() []string {
	var found []string
	for _, word := range strings.Fields(line("/proc/cmdline")) {
		if test, is := strings.CutPrefix(word, "test="); is {
			found = append(found, test)
		}
	}
	if len(found) == 0 {
		verdict(102, "the kernel's command line names no test")
	}
	return found
}

func verdict(rc int, said string) {
	fmt.Printf("VM verdict rc=%d %s\n", rc, said)
	syscall.Sync()
	err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("VM cannot power off:", err)
	select {}
}

func line(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func uptime() string {
	seconds, _, _ := strings.Cut(line("/proc/uptime"), " ")
	return seconds
}

// loopback brings lo up: struct ifreq is a name of 16 bytes and, here, its flags.
func loopback() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	request := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errors.New(errno.Error())
	}
	return nil
}
