package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"sync"
	"sync/atomic"
)

// refreshEvery: one request in so many asks the stock service although the item is cached.
const refreshEvery = 10

const maxItem = 1_000_000

type item struct {
	ID       int      `json:"id"`
	Name     string   `json:"name"`
	Quantity int      `json:"quantity"`
	Cents    int64    `json:"cents"`
	Discount int64    `json:"discount"`
	Tags     []string `json:"tags"`
}

type shop struct {
	stock *stockClient
	jobs  chan pricing
	count atomic.Uint64 // requests for items so far

	mu    sync.Mutex
	cache map[int][]byte // items as JSON, as a remote cache would hold them
}

// pricing is one job of the pool; the answer comes back on its own channel.
type pricing struct {
	item   item
	answer chan<- int64
}

func newShop(stock *stockClient, workers int) *shop {
	s := &shop{stock: stock, jobs: make(chan pricing), cache: make(map[int][]byte)}
	for range workers {
		go s.priceWorker()
	}
	return s
}

func (s *shop) priceWorker() {
	for job := range s.jobs {
		sum := crc32.NewIEEE()
		for _, tag := range job.item.Tags {
			sum.Write([]byte(tag))
		}
		job.answer <- job.item.Cents * int64(sum.Sum32()%30) / 100
	}
}

// item is the main path: cache, perhaps the stock service, the pricing pool, JSON.
func (s *shop) item(w http.ResponseWriter, r *http.Request) {
	id, ok := intParam(w, r, "id", 0, 0, maxItem)
	if !ok {
		return
	}
	found, err := s.find(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	// Room for one, so that a worker never waits for a handler whose client has gone.
	answer := make(chan int64, 1)
	select {
	case s.jobs <- pricing{item: found, answer: answer}:
	case <-r.Context().Done():
		return
	}
	found.Discount = <-answer
	writeJSON(w, found)
}

func (s *shop) find(ctx context.Context, id int) (item, error) {
	var found item
	refresh := s.count.Add(1)%refreshEvery == 0
	s.mu.Lock()
	cached, hit := s.cache[id]
	s.mu.Unlock()
	if hit && !refresh {
		if err := json.Unmarshal(cached, &found); err != nil {
			return found, fmt.Errorf("cached item %d: %w", id, err)
		}
		return found, nil
	}
	level, err := s.stock.level(ctx, id)
	if err != nil && !errors.Is(err, errNoStock) {
		return found, err
	}
	found = item{ID: id, Name: fmt.Sprintf("item %d", id), Quantity: level.Quantity, Cents: level.Cents}
	for n := range 5 {
		found.Tags = append(found.Tags, fmt.Sprintf("tag-%d-%d", id%97, n))
	}
	encoded, err := json.Marshal(found)
	if err != nil {
		return found, err
	}
	s.mu.Lock()
	s.cache[id] = encoded
	s.mu.Unlock()
	return found, nil
}

// slowPeer lets the stock service sleep: the wait is a wait for a peer.
func (s *shop) slowPeer(w http.ResponseWriter, r *http.Request) {
	ms, ok := intParam(w, r, "ms", 30, 0, maxMillis)
	if !ok {
		return
	}
	begin := monotonic()
	if _, err := s.stock.get(r.Context(), fmt.Sprintf("/sleep?ms=%d", ms)); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	writeJSON(w, since("peer", begin))
}
