package main

import (
	"math"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"unsafe"
)

// accounted are the runtime's own figures that the agent's are compared with; a trailing * takes all
// that begin so.
var accounted = []string{
	"/sched/latencies:seconds",
	"/sched/pauses/*",
	"/sched/goroutines:goroutines",
	"/sched/gomaxprocs:threads",
	"/sched/threads/total:threads",
	"/memory/classes/*",
	"/gc/cycles/*",
	"/gc/heap/goal:bytes",
	"/gc/heap/live:bytes",
	"/gc/heap/allocs:bytes",
	"/gc/heap/allocs:objects",
	"/cpu/classes/*",
	"/sched/goroutines-created:goroutines",
	"/gc/limiter/last-enabled:gc-cycle",
	"/gc/gogc:percent",
	"/gc/gomemlimit:bytes",
}

// account answers with what the service knows about itself. The figures were read between
// mono_ns and mono_after_ns.
func account(w http.ResponseWriter, r *http.Request) {
	samples := accountedSamples()
	before := monotonic()
	metrics.Read(samples)
	after := monotonic()

	values := make(map[string]any, len(samples))
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			values[sample.Name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			values[sample.Name] = sample.Value.Float64()
		case metrics.KindFloat64Histogram:
			values[sample.Name] = histogram(sample.Value.Float64Histogram())
		}
	}
	writeJSON(w, map[string]any{
		"pid":           os.Getpid(),
		"go_version":    runtime.Version(),
		"mono_ns":       before,
		"mono_after_ns": after,
		"cpu_ns":        processCPU(),
		"metrics":       values,
	})
}

func accountedSamples() []metrics.Sample {
	var samples []metrics.Sample
	for _, known := range metrics.All() {
		for _, wanted := range accounted {
			prefix, whole := strings.CutSuffix(wanted, "*")
			if known.Name == wanted || whole && strings.HasPrefix(known.Name, prefix) {
				samples = append(samples, metrics.Sample{Name: known.Name})
			}
		}
	}
	return samples
}

// histogram gives len(counts)+1 bucket bounds; JSON has no infinities, so they are strings.
func histogram(h *metrics.Float64Histogram) map[string]any {
	bounds := make([]any, len(h.Buckets))
	for i, bound := range h.Buckets {
		switch {
		case math.IsInf(bound, 1):
			bounds[i] = "+Inf"
		case math.IsInf(bound, -1):
			bounds[i] = "-Inf"
		default:
			bounds[i] = bound
		}
	}
	return map[string]any{"buckets": bounds, "counts": h.Counts}
}

// monotonic is CLOCK_MONOTONIC in ns, the clock of the kernel's and the agent's events: the standard
// library keeps its own reading of it to itself.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	if errno != 0 {
		panic(errno) // no Linux lacks this clock
	}
	return now.Nano()
}

// processCPU is the CPU time, user and system, that the process has used, in ns.
func processCPU() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // fails only for a bad argument
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
