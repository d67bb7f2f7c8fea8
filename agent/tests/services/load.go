// Load on a service, by the protocol it speaks: load KIND ADDRESS SECONDS CONNECTIONS RATE. RATE is in requests a second, of all connections together;
// 0 is a closed loop. It prints, as JSON, the requests that were answered, those that failed, and the seconds it took.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A client makes one request and waits for its answer.
type client func() error

func get(url string) func() (client, error) {
	return func() (client, error) {
		http := &http.Client{Transport: &http.Transport{}}
		return func() error { return answered(http.Get(url)) }, nil
	}
}

// put goes through etcd's JSON gateway.
func put(address string) func() (client, error) {
	var keys atomic.Int64
	return func() (client, error) {
		http := &http.Client{Transport: &http.Transport{}}
		return func() error {
			body := fmt.Sprintf(`{"key":"a2V5%04d","value":"dmFsdWU="}`, keys.Add(1)%10000)
			return answered(http.Post("http://"+address+"/v3/kv/put", "application/json", bytes.NewBufferString(body)))
		}, nil
	}
}

// greet is a unary call of gRPC by hand: HTTP/2 without TLS, one message with its length in front.
func greet(address string) func() (client, error) {
	return func() (client, error) {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
		return func() error {
			message := []byte("\x00\x00\x00\x00\x07\x0a\x05world")
			request, err := http.NewRequest("POST", "http://"+address+"/helloworld.Greeter/SayHello", bytes.NewReader(message))
			if err != nil {
				return err
			}
			request.Header.Set("Content-Type", "application/grpc")
			request.Header.Set("TE", "trailers")
			return answered(client.Do(request))
		}, nil
	}
}

// publish sends a message to NATS and asks whether it has arrived.
func publish(address string) func() (client, error) {
	return func() (client, error) {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewReader(connection)
		if _, err := fmt.Fprint(connection, "CONNECT {\"verbose\":false}\r\n"); err != nil {
			return nil, err
		}
		return func() error {
			if _, err := fmt.Fprint(connection, "PUB whywait 5\r\nhello\r\nPING\r\n"); err != nil {
				return err
			}
			for {
				line, err := lines.ReadString('\n')
				if err != nil || line == "PONG\r\n" {
					return err
				}
			}
		}, nil
	}
}

func answered(response *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

func run() error {
	if len(os.Args) != 6 {
		return fmt.Errorf("usage: load KIND ADDRESS SECONDS CONNECTIONS RATE")
	}
	kind, address := os.Args[1], os.Args[2]
	seconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	connections, err := strconv.Atoi(os.Args[4])
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(os.Args[5])
	if err != nil {
		return err
	}
	var pause time.Duration
	if rate > 0 {
		pause = time.Duration(connections) * time.Second / time.Duration(rate)
	}
	kinds := map[string]func() (client, error){
		"etcd": put(address), "caddy": get("http://" + address + "/"), "nats-server": publish(address), "greeter": greet(address),
	}
	if kinds[kind] == nil {
		return fmt.Errorf("no load for %s", kind)
	}
	var done, failed atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	end := began.Add(time.Duration(seconds) * time.Second)
	for range connections {
		request, err := kinds[kind]()
		if err != nil {
			return err
		}
		all.Go(func() {
			for due := began; due.Before(end) && time.Now().Before(end); due = due.Add(pause) {
				time.Sleep(time.Until(due))
				if err := request(); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Add(1)
				} else {
					done.Add(1)
				}
			}
		})
	}
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": done.Load(), "failed": failed.Load(), "seconds": time.Since(began).Seconds(),
	})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
