package main

import (
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

// maxMillis bounds every fault: a mistyped URL must not take the service away for long.
const maxMillis = 60_000

// waited is what a fault says about itself: what was waited for, and when, on CLOCK_MONOTONIC.
type waited struct {
	For     string `json:"waited_for"`
	BeginNs int64  `json:"begin_ns"`
	EndNs   int64  `json:"end_ns"`
	WaitNs  int64  `json:"wait_ns"`
}

func since(what string, begin int64) waited {
	end := monotonic()
	return waited{For: what, BeginNs: begin, EndNs: end, WaitNs: end - begin}
}

// slowLock waits for a mutex that another goroutine holds. Each request has its own mutex, so that
// the answer stays ms however many requests run at once.
func slowLock(w http.ResponseWriter, r *http.Request) {
	ms, ok := intParam(w, r, "ms", 30, 0, maxMillis)
	if !ok {
		return
	}
	var inventory sync.Mutex
	held := make(chan struct{})
	go holdInventory(&inventory, time.Duration(ms)*time.Millisecond, held)
	<-held
	begin := monotonic()
	inventory.Lock()
	answer := since("mutex", begin)
	inventory.Unlock()
	writeJSON(w, answer)
}

func holdInventory(inventory *sync.Mutex, hold time.Duration, held chan<- struct{}) {
	inventory.Lock()
	close(held)
	time.Sleep(hold)
	inventory.Unlock()
}

// tight computes without a call, so without a place to be preempted at when GODEBUG has asyncpreemptoff=1.
func tight(w http.ResponseWriter, r *http.Request) {
	millions, ok := intParam(w, r, "millions", 100, 1, 100_000)
	if !ok {
		return
	}
	begin := monotonic()
	sum := uint64(1)
	for i := range uint64(millions) * 1_000_000 {
		sum ^= sum<<1 + i
	}
	answer := since("nothing", begin)
	if sum == 0 {
		answer.For = "a wonder"
	}
	writeJSON(w, answer)
}

// leak starts n goroutines that wait for what nobody sends.
func leak(w http.ResponseWriter, r *http.Request) {
	n, ok := intParam(w, r, "n", 100, 1, 100_000)
	if !ok {
		return
	}
	for range n {
		go forget()
	}
	writeJSON(w, map[string]int{"leaked": n})
}

func forget() {
	<-make(chan struct{})
}

// stacks is what the runtime itself says of every goroutine, as a panic does.
func stacks(w http.ResponseWriter, _ *http.Request) {
	text := make([]byte, 64<<20)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(text[:runtime.Stack(text, true)])
}

// spin starts n goroutines that compute for ms of wall time each. Where n exceeds GOMAXPROCS the
// others wait runnable; each tells how long it waited for its first instruction.
func spin(w http.ResponseWriter, r *http.Request) {
	ms, ok := intParam(w, r, "ms", 50, 0, maxMillis)
	if !ok {
		return
	}
	n, ok := intParam(w, r, "n", 4, 1, 1000)
	if !ok {
		return
	}
	startWaits := make([]int64, n)
	var spinning sync.WaitGroup
	begin := monotonic()
	for i := range startWaits {
		spinning.Add(1)
		created := monotonic()
		go func() {
			defer spinning.Done()
			started := monotonic()
			startWaits[i] = started - created
			burn(started + int64(ms)*int64(time.Millisecond))
		}()
	}
	spinning.Wait()
	slices.Sort(startWaits)
	writeJSON(w, struct {
		waited
		StartWaitsNs []int64 `json:"start_waits_ns"`
	}{since("goroutines", begin), startWaits})
}

// burn computes until a moment of CLOCK_MONOTONIC, without ever waiting.
func burn(until int64) {
	sum := uint64(1)
	for monotonic() < until {
		for range 10_000 {
			sum = sum*6364136223846793005 + 1
		}
	}
	runtime.KeepAlive(sum)
}

// processors changes GOMAXPROCS by one and back, n times: the world stops twice each time.
func processors(w http.ResponseWriter, r *http.Request) {
	n, ok := intParam(w, r, "n", 1, 1, 10_000)
	if !ok {
		return
	}
	before := runtime.GOMAXPROCS(0)
	for range n {
		runtime.GOMAXPROCS(before + 1)
		runtime.GOMAXPROCS(before)
	}
	writeJSON(w, map[string]int{"gomaxprocs": before})
}

// forceGC answers with the number of cycles before and after: one more, unless one was under way.
func forceGC(w http.ResponseWriter, r *http.Request) {
	before, begin := forcedCycles(), monotonic()
	runtime.GC()
	writeJSON(w, struct {
		waited
		ForcedBefore uint64 `json:"forced_before"`
		ForcedAfter  uint64 `json:"forced_after"`
	}{since("gc", begin), before, forcedCycles()})
}

func forcedCycles() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// garbage keeps the compiler from proving that alloc's memory is never used.
var garbage struct {
	sync.Mutex
	last []byte
}

func alloc(w http.ResponseWriter, r *http.Request) {
	const chunk = 64 << 10
	mb, ok := intParam(w, r, "mb", 10, 0, 4096)
	if !ok {
		return
	}
	begin := monotonic()
	for range mb << 20 / chunk {
		fresh := make([]byte, chunk)
		garbage.Lock()
		garbage.last = fresh
		garbage.Unlock()
	}
	writeJSON(w, struct {
		waited
		Bytes int `json:"allocated_bytes"`
	}{since("allocation", begin), mb << 20})
}

// node is a small piece of memory with pointers, which the GC has to follow.
type node struct {
	left, right *node
	_           [48]byte
}

// held is memory that stays, all of which every GC cycle has to mark.
var held struct {
	sync.Mutex
	nodes []*node
}

// hold replaces what is held by mb of it.
func hold(w http.ResponseWriter, r *http.Request) {
	mb, ok := intParam(w, r, "mb", 16, 0, 1024)
	if !ok {
		return
	}
	nodes := make([]*node, mb<<20/64)
	for i := range nodes {
		nodes[i] = &node{left: nodes[i/2], right: nodes[i/3]}
	}
	held.Lock()
	held.nodes = nodes
	held.Unlock()
	writeJSON(w, map[string]int{"held_bytes": mb << 20})
}

// churn has n goroutines of their own allocate mb each, and waits for them: the handler itself
// allocates next to nothing.
func churn(w http.ResponseWriter, r *http.Request) {
	mb, ok := intParam(w, r, "mb", 10, 0, 4096)
	if !ok {
		return
	}
	n, ok := intParam(w, r, "n", 2, 1, 1000)
	if !ok {
		return
	}
	var churning sync.WaitGroup
	begin := monotonic()
	for range n {
		churning.Add(1)
		go scatter(mb<<20/64, &churning)
	}
	churning.Wait()
	writeJSON(w, since("allocation", begin))
}

// scatter allocates nodes and drops them.
func scatter(nodes int, done *sync.WaitGroup) {
	defer done.Done()
	var last *node
	for range nodes {
		last = &node{right: last}
		last.right = nil
	}
	runtime.KeepAlive(last)
}

func sleep(w http.ResponseWriter, r *http.Request) {
	ms, ok := intParam(w, r, "ms", 30, 0, maxMillis)
	if !ok {
		return
	}
	begin := monotonic()
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		writeJSON(w, since("timer", begin))
	case <-r.Context().Done():
	}
}

// pingPong makes two goroutines switch to each other: 2n goroutine starts by waits on channels. It rests
// for us before each round trip.
func pingPong(w http.ResponseWriter, r *http.Request) {
	n, ok := intParam(w, r, "n", 1000, 1, 10_000_000)
	if !ok {
		return
	}
	us, ok := intParam(w, r, "us", 0, 0, 1000*maxMillis/n)
	if !ok {
		return
	}
	ping, pong := make(chan int), make(chan int)
	go func() {
		for ball := range ping {
			pong <- ball
		}
	}()
	begin := monotonic()
	for ball := range n {
		if us > 0 {
			time.Sleep(time.Duration(us) * time.Microsecond)
		}
		ping <- ball
		<-pong
	}
	close(ping)
	writeJSON(w, struct {
		waited
		Rounds int `json:"rounds"`
	}{since("channel", begin), n})
}
