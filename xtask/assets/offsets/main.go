// What links in every part of the runtime whose fields the agent reads.
package main

import (
	"os"
	"runtime/metrics"
)

func main() {
	metrics.Read([]metrics.Sample{{Name: "/sched/latencies:seconds"}})
	os.Stdin.Read(nil)
}
