package main

import (
	"cmp"
	"errors"

	"golang.org/x/exp/trace"
)

// interval is a stretch of CLOCK_MONOTONIC in ns, its end excluded.
type interval struct{ from, to int64 }

// whole says whether the interval leaves nothing out: then no clock is needed.
func (i interval) whole() bool { return i.from == 0 && i.to == 1<<63-1 }

// goroutine is what is known of one goroutine on its way from waiting to running.
type goroutine struct {
	reason   string     // why it was not running, before it became runnable
	runnable trace.Time // when it became runnable
	known    bool       // whether that moment lies within the trace
}

// starts counts the transitions from runnable to running.
type starts struct {
	within     interval
	clock      *trace.ClockSnapshot // the newest; nil before the first and in traces of Go < 1.25
	first      trace.Time
	last       trace.Time
	goroutines map[trace.GoID]goroutine
	count      uint64
	byReason   map[string][]int64 // latencies in ns
}

func newStarts(within interval) *starts {
	return &starts{within: within, goroutines: map[trace.GoID]goroutine{}, byReason: map[string][]int64{}}
}

func (s *starts) observe(event trace.Event) error {
	if s.first == 0 {
		s.first = event.Time()
	}
	s.last = event.Time()
	switch event.Kind() {
	case trace.EventSync:
		if clock := event.Sync().ClockSnapshot; clock != nil {
			s.clock = clock
		}
	case trace.EventStateTransition:
		transition := event.StateTransition()
		if transition.Resource.Kind == trace.ResourceGoroutine {
			return s.transition(event.Time(), transition)
		}
	}
	return nil
}

func (s *starts) transition(now trace.Time, transition trace.StateTransition) error {
	id := transition.Resource.Goroutine()
	from, to := transition.Goroutine()
	g := s.goroutines[id]
	switch {
	case to == trace.GoNotExist:
		delete(s.goroutines, id)
		return nil
	case from == trace.GoRunnable && to == trace.GoRunning:
		counts, err := s.counts(now)
		if err != nil {
			return err
		}
		if counts {
			s.count++
			if g.known {
				s.byReason[g.reason] = append(s.byReason[g.reason], int64(now-g.runnable))
			}
		}
		g = goroutine{}
	case to == trace.GoRunnable:
		switch from {
		case trace.GoNotExist:
			g.reason = "created"
		case trace.GoSyscall:
			g.reason = "syscall"
		case trace.GoRunning:
			g.reason = transition.Reason // preempted, runtime.Gosched
		case trace.GoUndetermined:
			g.reason = "unknown"
		}
		// Undetermined: it was runnable when the trace began, nobody knows since when.
		g.runnable, g.known = now, from != trace.GoUndetermined
	case to == trace.GoWaiting:
		g.reason = cmp.Or(transition.Reason, "no reason in the trace")
		if from == trace.GoUndetermined {
			g.reason = "waiting since before the trace"
		}
	}
	s.goroutines[id] = g
	return nil
}

func (s *starts) counts(now trace.Time) (bool, error) {
	if s.within.whole() {
		return true, nil
	}
	if s.clock == nil {
		return false, errors.New("the trace has no snapshot of CLOCK_MONOTONIC (Go 1.25 and later write one): -from and -to can't be used")
	}
	at := s.monotonic(now)
	return at >= s.within.from && at < s.within.to, nil
}

func (s *starts) monotonic(at trace.Time) int64 {
	return int64(s.clock.Mono) + int64(at-s.clock.Trace)
}
