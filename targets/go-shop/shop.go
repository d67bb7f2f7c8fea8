package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// cacheSize holds the load generator's default of 1000 keys, so that misses are rare once it is warm.
	cacheSize = 4096
	// recheckEvery says that every so many requests stock is asked again, cached or not.
	recheckEvery = 10
)

type item struct {
	ID        uint64   `json:"id"`
	Name      string   `json:"name"`
	Tags      []string `json:"tags"`
	PriceCent uint64   `json:"price_cent"`
	// Available is missing where there is no stock service to ask.
	Available *uint64 `json:"available,omitempty"`
}

// shop answers /item: a cache behind one mutex, prices from a pool of workers, stock from a peer.
type shop struct {
	stock    *stock
	jobs     chan priceJob
	requests atomic.Uint64

	mu    sync.Mutex
	cache map[uint64][]byte // JSON of the item, by id
}

type priceJob struct {
	item   item
	answer chan<- uint64
}

func newShop(stockURL string) *shop {
	s := &shop{stock: newStock(stockURL), jobs: make(chan priceJob), cache: make(map[uint64][]byte)}
	for range runtime.GOMAXPROCS(0) {
		go s.priceWorker()
	}
	return s
}

func (s *shop) priceWorker() {
	for job := range s.jobs {
		job.answer <- price(job.item)
	}
}

func price(it item) uint64 {
	hash := fnv.New64a()
	for _, tag := range it.Tags {
		hash.Write([]byte(tag))
	}
	return 100 + hash.Sum64()%10_000
}

func (s *shop) handleItem(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("id"), 10, 64)
	if err != nil {
		http.Error(w, "id: wants a number, as in /item?id=7", http.StatusBadRequest)
		return
	}
	recheck := s.requests.Add(1)%recheckEvery == 0
	it, found := s.lookup(id)
	if !found {
		it = describe(id)
	}
	if recheck || !found {
		if it.Available, err = s.stock.available(r.Context(), id); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	answer := make(chan uint64, 1)
	s.jobs <- priceJob{it, answer}
	it.PriceCent = <-answer
	body, err := json.Marshal(it)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if recheck || !found {
		s.store(id, body)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

func (s *shop) lookup(id uint64) (item, bool) {
	s.mu.Lock()
	body, found := s.cache[id]
	s.mu.Unlock()
	var it item
	if !found || json.Unmarshal(body, &it) != nil {
		return item{}, false
	}
	return it, true
}

func (s *shop) store(id uint64, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= cacheSize {
		clear(s.cache)
	}
	s.cache[id] = body
}

func describe(id uint64) item {
	it := item{ID: id, Name: "item " + strconv.FormatUint(id, 10)}
	for n := range 8 {
		it.Tags = append(it.Tags, strings.Repeat(fmt.Sprintf("tag-%d-%d ", id, n), 4))
	}
	return it
}
