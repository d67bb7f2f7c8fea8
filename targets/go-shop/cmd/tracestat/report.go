package main

import (
	"math/bits"
	"slices"
)

type report struct {
	// Starts counts every transition from runnable to running, also those of goroutines that became
	// runnable before the trace began and so have no latency.
	Starts   uint64                  `json:"starts"`
	BeginNs  *int64                  `json:"begin_mono_ns"` // null in traces of Go < 1.25
	EndNs    *int64                  `json:"end_mono_ns"`
	Latency  distribution            `json:"latency"`
	ByReason map[string]distribution `json:"by_reason"`
	// Resumed counts those of Starts that follow on the end of a system call at once, on the same thread.
	Resumed uint64 `json:"resumed"`
	// Steals counts Ps that were taken from a thread in a system call.
	Steals uint64 `json:"steals"`
	times
	// Functions are those that goroutines which began within the trace were started with.
	Functions map[string]times `json:"functions"`
}

type distribution struct {
	Count     uint64   `json:"count"`
	P50       int64    `json:"p50_ns"`
	P90       int64    `json:"p90_ns"`
	P99       int64    `json:"p99_ns"`
	Max       int64    `json:"max_ns"`
	SumNs     int64    `json:"sum_ns"`
	Histogram []bucket `json:"histogram,omitempty"`
}

// bucket counts the values from Low up to, not including, High.
type bucket struct {
	Low   int64  `json:"low_ns"`
	High  int64  `json:"high_ns"`
	Count uint64 `json:"count"`
}

func (s *starts) report() report {
	r := report{
		Starts: s.count, ByReason: map[string]distribution{}, times: s.times, Functions: s.functions, Steals: s.steals,
		Resumed: s.resumed,
	}
	if s.clock != nil {
		begin, end := s.monotonic(s.first), s.monotonic(s.last)
		r.BeginNs, r.EndNs = &begin, &end
	}
	var all []int64
	for reason, latencies := range s.byReason {
		r.ByReason[reason] = distribute(latencies)
		all = append(all, latencies...)
	}
	r.Latency = distribute(all)
	r.Latency.Histogram = buckets(all)
	return r
}

// distribute sorts the values and takes their nearest-rank quantiles.
func distribute(values []int64) distribution {
	if len(values) == 0 {
		return distribution{}
	}
	slices.Sort(values)
	rank := func(percent int) int64 { return values[(len(values)*percent+99)/100-1] }
	d := distribution{Count: uint64(len(values)), P50: rank(50), P90: rank(90), P99: rank(99), Max: values[len(values)-1]}
	for _, value := range values {
		d.SumNs += value
	}
	return d
}

// buckets is a log-linear histogram of sorted values, with 8 buckets to a power of two.
func buckets(sorted []int64) []bucket {
	var out []bucket
	for _, value := range sorted {
		low, high := bounds(value)
		if len(out) == 0 || out[len(out)-1].Low != low {
			out = append(out, bucket{Low: low, High: high})
		}
		out[len(out)-1].Count++
	}
	return out
}

func bounds(value int64) (low, high int64) {
	const subBits = 3
	shift := max(bits.Len64(uint64(value))-1-subBits, 0)
	low = value >> shift << shift
	return low, low + 1<<shift
}
