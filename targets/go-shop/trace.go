package main

import (
	"context"
	"net/http"
	"runtime/trace"
	"time"
)

// handleTrace streams a runtime/trace of the next seconds, and ends it early when the client goes.
func handleTrace(w http.ResponseWriter, r *http.Request) {
	seconds, ok := number(w, r, "seconds", 5, 600)
	if !ok {
		return
	}
	enough, done := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer done()
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := trace.Start(w); err != nil {
		// Only one trace at a time.
		w.Header().Del("Content-Type")
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	<-enough.Done()
	trace.Stop()
}
