package main

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"unsafe"
)

// account is the runtime's own account of itself, for tests to compare with what was seen from outside.
type account struct {
	Service      string `json:"service"`
	PID          int    `json:"pid"`
	GoVersion    string `json:"go_version"`
	MonotonicNs  int64  `json:"monotonic_ns"`   // CLOCK_MONOTONIC, read before the metrics
	ProcessCPUNs int64  `json:"process_cpu_ns"` // user and system
	// Metrics are numbers or histograms, by their names in runtime/metrics.
	Metrics map[string]any `json:"metrics"`
}

type histogram struct {
	Counts []uint64 `json:"counts"`
	// Buckets are the bounds, one more than counts; the outermost may be "-Inf" and "+Inf", which JSON has no number for.
	Buckets []any `json:"buckets"`
}

// wanted are the metrics of the account, beside all of /memory/classes.
var wanted = map[string]bool{
	"/sched/latencies:seconds":             true,
	"/sched/pauses/total/gc:seconds":       true,
	"/sched/pauses/stopping/gc:seconds":    true,
	"/sched/pauses/total/other:seconds":    true,
	"/sched/pauses/stopping/other:seconds": true,
	"/gc/cycles/total:gc-cycles":           true,
	"/gc/cycles/forced:gc-cycles":          true,
	"/gc/cycles/automatic:gc-cycles":       true,
	"/sched/goroutines:goroutines":         true,
	"/sched/gomaxprocs:threads":            true,
	"/gc/heap/goal:bytes":                  true,
	"/gc/heap/live:bytes":                  true,
	"/gc/heap/allocs:bytes":                true,
	"/gc/heap/allocs:objects":              true,
	"/gc/gogc:percent":                     true,
	"/gc/gomemlimit:bytes":                 true,
}

func handleAccount(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, readAccount())
}

func readAccount() account {
	var samples []metrics.Sample
	for _, description := range metrics.All() {
		if wanted[description.Name] || strings.HasPrefix(description.Name, "/memory/classes/") {
			samples = append(samples, metrics.Sample{Name: description.Name})
		}
	}
	a := account{
		Service:      "go-shop",
		PID:          os.Getpid(),
		GoVersion:    runtime.Version(),
		MonotonicNs:  monotonicNs(),
		ProcessCPUNs: processCPUNs(),
		Metrics:      make(map[string]any, len(samples)),
	}
	metrics.Read(samples)
	for _, sample := range samples {
		a.Metrics[sample.Name] = plain(sample.Value)
	}
	return a
}

// plain turns a metric's value into what encoding/json can write.
func plain(value metrics.Value) any {
	switch value.Kind() {
	case metrics.KindUint64:
		return value.Uint64()
	case metrics.KindFloat64:
		return number64(value.Float64())
	case metrics.KindFloat64Histogram:
		read := value.Float64Histogram()
		bounds := make([]any, len(read.Buckets))
		for n, bound := range read.Buckets {
			bounds[n] = number64(bound)
		}
		return histogram{read.Counts, bounds}
	default:
		return fmt.Sprintf("unknown kind %d", value.Kind())
	}
}

func number64(value float64) any {
	switch {
	case math.IsInf(value, 1):
		return "+Inf"
	case math.IsInf(value, -1):
		return "-Inf"
	default:
		return value
	}
}

// monotonicNs asks the kernel: package time keeps its monotonic reading to itself.
func monotonicNs() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		panic(errno) // CLOCK_MONOTONIC is on every Linux
	}
	return now.Nano()
}

func processCPUNs() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // RUSAGE_SELF can't fail
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
