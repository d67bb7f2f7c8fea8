package main

import (
	"fmt"
	"net/http"
	"runtime/trace"
	"time"
)

// executionTrace streams the runtime's execution trace, as net/http/pprof does (whose import would
// bring a dozen more endpoints).
func executionTrace(w http.ResponseWriter, r *http.Request) {
	seconds, ok := intParam(w, r, "seconds", 1, 1, 600)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="trace"`)
	if err := trace.Start(w); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, fmt.Sprintf("can't trace: %v", err), http.StatusConflict)
		return
	}
	defer trace.Stop()
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
}
