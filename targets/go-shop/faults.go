package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// longest bounds a fault's time: a typing error shall not take the demo away for an hour.
const longest = 60_000 // milliseconds

// took is a fault's answer: what really happened, to compare with what was seen from outside.
type took struct {
	Goid    uint64 `json:"goid"`     // of the handler's goroutine
	TookNs  int64  `json:"took_ns"`  // of the fault, without the answer
	StartNs int64  `json:"start_ns"` // on CLOCK_MONOTONIC
	// LateNs is, of /spin alone, how long after it was made runnable a bystander ran.
	LateNs *int64 `json:"bystander_late_ns,omitempty"`
}

func answerTook(w http.ResponseWriter, started int64, late *int64) {
	answerJSON(w, took{goid(), monotonicNs() - started, started, late})
}

// handleSlowLock waits on a mutex that another goroutine holds for ms. The mutex is this request's own,
// so that the wait is ms however many of them run at once.
func handleSlowLock(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 30, longest)
	if !ok {
		return
	}
	var mu sync.Mutex
	held := make(chan struct{})
	go holdLock(&mu, held, milliseconds(ms))
	<-held
	started := monotonicNs()
	mu.Lock()
	answerTook(w, started, nil)
	mu.Unlock()
}

func holdLock(mu *sync.Mutex, held chan<- struct{}, hold time.Duration) {
	mu.Lock()
	close(held)
	time.Sleep(hold)
	mu.Unlock()
}

// handleSpin starts n goroutines that compute for ms without yielding. With n of at least GOMAXPROCS the others
// wait, runnable, until the runtime preempts a spinner, which it does after 10 ms (Go, src/runtime/proc.go, forcePreemptNS).
func handleSpin(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 50, longest)
	if !ok {
		return
	}
	n, ok := number(w, r, "n", 4, 1024)
	if !ok {
		return
	}
	started := monotonicNs()
	var all sync.WaitGroup
	late := make(chan int64, 1)
	for range max(n-1, 0) {
		all.Go(func() { spin(milliseconds(ms)) })
	}
	all.Go(func() {
		// Early in the spinner's time slice, so that the bystander has most of it to wait.
		before := min(milliseconds(ms)/10, time.Millisecond)
		spin(before)
		runnable := monotonicNs()
		go func() { late <- monotonicNs() - runnable }()
		spin(milliseconds(ms) - before)
	})
	all.Wait()
	lateNs := <-late
	answerTook(w, started, &lateNs)
}

//go:noinline
func spin(long time.Duration) uint64 {
	state := uint64(1)
	for end := time.Now().Add(long); time.Now().Before(end); {
		for range 10_000 {
			state = state*6364136223846793005 + 1442695040888963407
		}
	}
	return state
}

// handleGC forces one whole collection.
func handleGC(w http.ResponseWriter, _ *http.Request) {
	started := monotonicNs()
	runtime.GC()
	answerTook(w, started, nil)
}

// handleAlloc allocates mb MiB of garbage in blocks of 64 KiB.
func handleAlloc(w http.ResponseWriter, r *http.Request) {
	mb, ok := number(w, r, "mb", 16, 4096)
	if !ok {
		return
	}
	started := monotonicNs()
	for range mb * 16 {
		garbage = make([]byte, 64<<10)
	}
	answerTook(w, started, nil)
}

// garbage keeps the compiler from putting /alloc's blocks on the stack, or leaving them out.
var garbage []byte

// handleSleep waits on a timer: a wait that is nobody's fault.
func handleSleep(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 30, longest)
	if !ok {
		return
	}
	started := monotonicNs()
	time.Sleep(milliseconds(ms))
	answerTook(w, started, nil)
}

// handleChan passes a token to and fro n times over unbuffered channels: about 2n switches of goroutines.
func handleChan(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", 1000, 10_000_000)
	if !ok {
		return
	}
	started := monotonicNs()
	ping, pong := make(chan struct{}), make(chan struct{})
	go func() {
		for range ping {
			pong <- struct{}{}
		}
	}()
	for range n {
		ping <- struct{}{}
		<-pong
	}
	close(ping)
	answerTook(w, started, nil)
}

// handleSlowPeer waits for rust-stock, which waits for ms.
func (s *shop) handleSlowPeer(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 30, longest)
	if !ok {
		return
	}
	if s.stock.base == "" {
		http.Error(w, "no stock service: start go-shop with -stock", http.StatusServiceUnavailable)
		return
	}
	started := monotonicNs()
	var answer struct{}
	if err := s.stock.get(r.Context(), fmt.Sprintf("/sleep?ms=%d", ms), &answer); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	answerTook(w, started, nil)
}

// number reads a query parameter; where it is no number up to most, it answers the request itself.
func number(w http.ResponseWriter, r *http.Request, name string, fallback, most int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, true
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 || value > most {
		http.Error(w, fmt.Sprintf("%s=%s: wants a number from 0 to %d", name, text, most), http.StatusBadRequest)
		return 0, false
	}
	return value, true
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func answerJSON(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n'))
}

// goid reads this goroutine's id from the only place that Go shows it: the head of its stack trace.
func goid() uint64 {
	var buffer [64]byte
	head := bytes.TrimPrefix(buffer[:runtime.Stack(buffer[:], false)], []byte("goroutine "))
	digits, _, _ := bytes.Cut(head, []byte(" "))
	id, _ := strconv.ParseUint(string(digits), 10, 64)
	return id
}
