// go-shop is the demo's Go service and the agent's test bed: a small shop with planted faults whose
// cost is known, and an account of itself that the tests compare the agent's figures with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownGrace bounds how long a slow request may hold up the end.
const shutdownGrace = 5 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "go-shop:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to listen on; port 0 takes a free one")
	stockURL := flag.String("stock", "", "`URL` of rust-stock; empty: the shop works without stock levels")
	workers := flag.Int("workers", 4, "`number` of goroutines in the pricing pool")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (see -help)", flag.Arg(0))
	}
	if *workers < 1 {
		return fmt.Errorf("-workers %d: at least 1 is needed", *workers)
	}
	stock, err := newStockClient(*stockURL)
	if err != nil {
		return fmt.Errorf("-stock: %w", err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("-listen %s: %w", *listen, err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Handler: routes(newShop(stock, *workers)),
		// A long fault or trace ends with the process rather than holding it up.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	fmt.Printf("listening on %s\n", listener.Addr())

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("requests still running %v after the signal were cut off", shutdownGrace)
	} else if err != nil {
		return err
	}
	return nil
}

func routes(s *shop) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /item", s.item)
	mux.HandleFunc("GET /slow-lock", slowLock)
	mux.HandleFunc("GET /spin", spin)
	mux.HandleFunc("GET /leak", leak)
	mux.HandleFunc("GET /tight", tight)
	mux.HandleFunc("GET /gc", forceGC)
	mux.HandleFunc("GET /processors", processors)
	mux.HandleFunc("GET /blocked-reads", blockedReads)
	mux.HandleFunc("GET /alloc", alloc)
	mux.HandleFunc("GET /churn", churn)
	mux.HandleFunc("GET /hold", hold)
	mux.HandleFunc("GET /slow-peer", s.slowPeer)
	mux.HandleFunc("GET /sleep", sleep)
	mux.HandleFunc("GET /chan", pingPong)
	mux.HandleFunc("GET /debug/whywait", account)
	mux.HandleFunc("GET /debug/trace", executionTrace)
	mux.HandleFunc("GET /debug/stacks", stacks)
	return mux
}
