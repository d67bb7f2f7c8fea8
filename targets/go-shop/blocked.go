package main

import (
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// blockedReads reads n times from pipes that nobody writes to for ms, one read after the other in each
// of the given number of goroutines. A pipe of the kernel's own, not of package os: the read blocks its
// thread, and the runtime does not know beforehand that it will.
func blockedReads(w http.ResponseWriter, r *http.Request) {
	ms, ok := intParam(w, r, "ms", 50, 1, maxMillis)
	if !ok {
		return
	}
	n, ok := intParam(w, r, "n", 1, 1, 1000)
	if !ok {
		return
	}
	goroutines, ok := intParam(w, r, "goroutines", 1, 1, 100)
	if !ok {
		return
	}
	times := make([]int64, goroutines)
	var reading sync.WaitGroup
	begin := monotonic()
	for i := range times {
		reading.Add(1)
		go readBlocked(&reading, time.Duration(ms)*time.Millisecond, n, &times[i])
	}
	reading.Wait()
	answer := since("reads", begin)
	answer.WaitNs = 0
	for _, time := range times {
		answer.WaitNs += time
	}
	writeJSON(w, answer)
}

func readBlocked(reading *sync.WaitGroup, hold time.Duration, n int, sum *int64) {
	defer reading.Done()
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		panic(err) // no descriptors are left
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	for range n {
		go writeLater(pipe[1], hold)
		var one [1]byte
		begin := monotonic()
		syscall.Read(pipe[0], one[:])
		*sum += monotonic() - begin
	}
}

// writeLater sleeps by a timer of the runtime's, and then writes without telling it.
func writeLater(fd int, hold time.Duration) {
	time.Sleep(hold)
	one := [1]byte{1}
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 1)
	runtime.KeepAlive(&one)
}
