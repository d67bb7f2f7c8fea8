package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// stock is the client of rust-stock, over HTTP/1.1 with connections kept alive.
type stock struct {
	base   string
	client *http.Client
}

func newStock(base string) *stock {
	transport := &http.Transport{
		// The default of 2 idle connections would close and open them all the time under load.
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
	return &stock{strings.TrimSuffix(base, "/"), &http.Client{Transport: transport}}
}

// available asks how many of an item are left; nil when there is no stock service.
func (s *stock) available(ctx context.Context, id uint64) (*uint64, error) {
	if s.base == "" {
		return nil, nil
	}
	var answer struct {
		Available uint64 `json:"available"`
	}
	if err := s.get(ctx, fmt.Sprintf("/stock/%d", id), &answer); err != nil {
		return nil, err
	}
	return &answer.Available, nil
}

// get reads the answer to its end, so that its connection can be used again.
func (s *stock) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("stock: %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("stock: %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("stock: %s: %w", path, err)
	}
	return nil
}
