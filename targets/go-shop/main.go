// go-shop is the demo's Go service: a shop with planted faults and its own account of itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long requests in flight may go on after SIGTERM.
const grace = 3 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "go-shop: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on; port 0 lets the kernel choose")
	stockURL := flag.String("stock", "", "`URL` of rust-stock, such as http://127.0.0.1:8081; without it stock is unknown")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if err := checkStock(*stockURL); err != nil {
		return err
	}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(newShop(*stockURL)), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("listening on %v\n", listener.Addr())

	select {
	case err := <-served:
		return err
	case <-stop.Done():
	}
	// A second signal ends the process at once.
	cancel()
	bounded, done := context.WithTimeout(context.Background(), grace)
	defer done()
	if err := server.Shutdown(bounded); errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintf(os.Stderr, "go-shop: requests still running %v after the signal to stop; dropped them\n", grace)
	} else if err != nil {
		return err
	}
	return nil
}

func checkStock(raw string) error {
	if raw == "" {
		return nil
	}
	parsed, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("-stock: %w", err)
	}
	if parsed.Scheme != "http" || parsed.Host == "" {
		return fmt.Errorf("-stock: %q is no URL of the form http://host:port", raw)
	}
	return nil
}

func routes(shop *shop) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /item", shop.handleItem)
	mux.HandleFunc("GET /slow-peer", shop.handleSlowPeer)
	mux.HandleFunc("GET /slow-lock", handleSlowLock)
	mux.HandleFunc("GET /spin", handleSpin)
	mux.HandleFunc("GET /gc", handleGC)
	mux.HandleFunc("GET /alloc", handleAlloc)
	mux.HandleFunc("GET /sleep", handleSleep)
	mux.HandleFunc("GET /chan", handleChan)
	mux.HandleFunc("GET /debug/whywait", handleAccount)
	mux.HandleFunc("GET /debug/trace", handleTrace)
	return mux
}
