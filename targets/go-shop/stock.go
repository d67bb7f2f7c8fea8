package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

var errNoStock = errors.New("no stock service: start with -stock URL")

// stockClient calls rust-stock over HTTP/1.1 with keep-alive.
type stockClient struct {
	base   string // empty: there is no stock service
	client *http.Client
}

func newStockClient(base string) (*stockClient, error) {
	if base != "" {
		u, err := url.Parse(base)
		if err != nil {
			return nil, err
		}
		if u.Scheme != "http" || u.Host == "" {
			return nil, fmt.Errorf("%q: a URL such as http://127.0.0.1:8081 is needed", base)
		}
		base = "http://" + u.Host
	}
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		// The default of 2 would close most connections of a burst right after it.
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
	}
	return &stockClient{base: base, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}, nil
}

type stockLevel struct {
	ID       int   `json:"id"`
	Quantity int   `json:"quantity"`
	Cents    int64 `json:"cents"`
}

func (c *stockClient) level(ctx context.Context, id int) (stockLevel, error) {
	var level stockLevel
	body, err := c.get(ctx, fmt.Sprintf("/stock/%d", id))
	if err != nil {
		return level, err
	}
	if err := json.Unmarshal(body, &level); err != nil {
		return level, fmt.Errorf("stock of item %d: %w", id, err)
	}
	return level, nil
}

func (c *stockClient) get(ctx context.Context, path string) ([]byte, error) {
	if c.base == "" {
		return nil, errNoStock
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// Read to the end, or the connection can't be used again.
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s", c.base, path, response.Status)
	}
	return body, nil
}
