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
	state    string     // running (or in a system call), runnable, waiting, system waiting; empty: not known since when
	since    trace.Time // since when it is in its state
	function string     // what it was started with; empty: before the trace began
}

// stretch is time spent in one state.
type stretch struct {
	Count uint64 `json:"count"`
	SumNs int64  `json:"sum_ns"`
}

// times are stretches that ended within.
type times struct {
	States map[string]stretch `json:"states"`
	Waits  map[string]stretch `json:"waits"` // of those waiting, by reason
}

func newTimes() times { return times{States: map[string]stretch{}, Waits: map[string]stretch{}} }

// starts counts the transitions from runnable to running.
type starts struct {
	within     interval
	clock      *trace.ClockSnapshot // the newest; nil before the first and in traces of Go < 1.25
	first      trace.Time
	last       trace.Time
	goroutines map[trace.GoID]goroutine
	count      uint64
	byReason   map[string][]int64 // latencies in ns
	times      times
	functions  map[string]times              // of goroutines that began within the trace, by what they were started with
	steals     uint64                        // Ps taken from a thread in a system call
	resumed    uint64                        // goroutines that went on after a system call with another P, found at once
	ended      map[trace.ThreadID]trace.GoID // the goroutine whose system call's end is the thread's last event
}

func newStarts(within interval) *starts {
	return &starts{within: within, goroutines: map[trace.GoID]goroutine{}, byReason: map[string][]int64{}, times: newTimes(), functions: map[string]times{}, ended: map[trace.ThreadID]trace.GoID{}}
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
			if err := s.resume(event, transition); err != nil {
				return err
			}
			return s.transition(event.Time(), transition)
		}
		delete(s.ended, event.Thread())
		return s.steal(event, transition)
	}
	return nil
}

// resume counts a goroutine that lost its P in a system call and had another at its end: the runtime writes both events at once
// then (go1.26, runtime/proc.go, exitsyscall) and does not schedule it.
func (s *starts) resume(event trace.Event, transition trace.StateTransition) error {
	id, thread := transition.Resource.Goroutine(), event.Thread()
	from, to := transition.Goroutine()
	ended, known := s.ended[thread]
	delete(s.ended, thread)
	switch {
	case from == trace.GoSyscall && to == trace.GoRunnable:
		s.ended[thread] = id
	case from == trace.GoRunnable && to == trace.GoRunning && known && ended == id:
		counts, err := s.counts(event.Time())
		if err == nil && counts {
			s.resumed++
		}
		return err
	}
	return nil
}

// steal counts a P that stops by another's doing: that is what is not on it.
func (s *starts) steal(event trace.Event, transition trace.StateTransition) error {
	if transition.Resource.Kind != trace.ResourceProc || event.Proc() == transition.Resource.Proc() {
		return nil
	}
	from, to := transition.Proc()
	counts, err := s.counts(event.Time())
	if err == nil && counts && from == trace.ProcRunning && to == trace.ProcIdle {
		s.steals++
	}
	return err
}

func (s *starts) transition(now trace.Time, transition trace.StateTransition) error {
	id := transition.Resource.Goroutine()
	from, to := transition.Goroutine()
	// The state of all that wait is said again once in a while, without the reason.
	if from == to {
		return nil
	}
	g := s.goroutines[id]
	if err := s.stretch(&g, now, transition); err != nil {
		return err
	}
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
		g.reason, g.runnable, g.known = "", 0, false
	case to == trace.GoRunnable:
		switch from {
		case trace.GoNotExist:
			g.reason, g.function = "created", s.started(transition)
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

// stretch ends the time in one state and begins that in the next. A system call is part of running.
func (s *starts) stretch(g *goroutine, now trace.Time, transition trace.StateTransition) error {
	from, to := transition.Goroutine()
	runs := func(state trace.GoState) bool { return state == trace.GoRunning || state == trace.GoSyscall }
	if runs(from) && runs(to) {
		return nil
	}
	if g.state != "" {
		counts, err := s.counts(now)
		if err != nil {
			return err
		}
		if counts {
			s.times.add(g, now)
			if g.function != "" {
				s.functions[g.function].add(g, now)
			}
		}
	}
	g.since = now
	switch {
	case from == trace.GoUndetermined:
		g.state = ""
	case runs(to):
		g.state = "running"
	case to == trace.GoRunnable:
		g.state = "runnable"
	case to == trace.GoWaiting && transition.Reason == "system goroutine wait":
		g.state = "system waiting"
	case to == trace.GoWaiting:
		g.state = "waiting"
	}
	return nil
}

// started names what a new goroutine was started with: its stack is that function alone.
func (s *starts) started(transition trace.StateTransition) string {
	for frame := range transition.Stack.Frames() {
		if _, known := s.functions[frame.Func]; !known {
			s.functions[frame.Func] = newTimes()
		}
		return frame.Func
	}
	return ""
}

func (t times) add(g *goroutine, now trace.Time) {
	add := func(sums map[string]stretch, name string) {
		sum := sums[name]
		sum.Count++
		sum.SumNs += int64(now - g.since)
		sums[name] = sum
	}
	add(t.States, g.state)
	if g.state == "waiting" {
		add(t.Waits, g.reason)
	}
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
