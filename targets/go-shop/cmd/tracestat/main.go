// tracestat says what an execution trace of the Go runtime recorded about scheduling: how often a
// goroutine went from runnable to running, and how long it had waited. The tests' oracle.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/exp/trace"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tracestat:", err)
		os.Exit(1)
	}
}

func run() error {
	from := flag.Int64("from", 0, "count starts from this `ns` of CLOCK_MONOTONIC on")
	to := flag.Int64("to", math.MaxInt64, "count starts before this `ns` of CLOCK_MONOTONIC")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: tracestat [-from NS] [-to NS] FILE   (- reads standard input)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if *from >= *to {
		return fmt.Errorf("-from %d is not before -to %d", *from, *to)
	}
	file := os.Stdin
	if name := flag.Arg(0); name != "-" {
		opened, err := os.Open(name)
		if err != nil {
			return err
		}
		defer opened.Close()
		file = opened
	}
	counted, err := count(file, interval{*from, *to})
	if err != nil {
		return fmt.Errorf("%s: %w", flag.Arg(0), err)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(counted.report())
}

func count(file io.Reader, within interval) (*starts, error) {
	reader, err := trace.NewReader(file)
	if err != nil {
		return nil, err
	}
	counted := newStarts(within)
	for {
		event, err := reader.ReadEvent()
		if errors.Is(err, io.EOF) {
			return counted, nil
		}
		if err != nil {
			return nil, err
		}
		if err := counted.observe(event); err != nil {
			return nil, err
		}
	}
}
