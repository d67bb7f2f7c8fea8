package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// intParam reads a query parameter, or gives fallback where it is absent. On a bad value it has
// answered 400 and returns false.
func intParam(w http.ResponseWriter, r *http.Request, name string, fallback, low, high int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		http.Error(w, fmt.Sprintf("%s=%q: a whole number from %d to %d is needed", name, text, low, high), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func writeJSON(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// A failing write means that the client has gone: nobody is left to tell.
	_, _ = w.Write(append(body, '\n'))
}
