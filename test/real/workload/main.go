// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// workload is what the pods of the tests run:
//
//	workload serve      serves HTTP on port 8080: / tells the pod's name, /healthz whether it is
//	                    ready, and /healthz?ready=false changes that
//	workload get URL    prints what is at a URL
//	workload whoami     prints the user and group that it runs as, and whether / can be written to
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(ctx)
	case len(args) == 2 && args[0] == "get":
		return get(ctx, args[1])
	case len(args) == 1 && args[0] == "whoami":
		whoami(os.Stdout)
		return nil
	}
	return fmt.Errorf("%q: must be serve, get URL or whoami", args)
}

func serve(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	var unready atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("ready") {
		case "true":
			unready.Store(false)
		case "false":
			unready.Store(true)
		default:
			if unready.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	})
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	fmt.Fprintln(os.Stdout, name, "serves")
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		fmt.Fprintln(os.Stdout, name, "ends")
		return server.Close()
	}
}

func get(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody) //nolint:gosec // the URL is whatever the test wants to reach
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request) //nolint:gosec // the same
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func whoami(out io.Writer) {
	fmt.Fprintf(out, "user %d, group %d\n", os.Getuid(), os.Getgid())
	if err := os.WriteFile("/written", nil, 0o600); err != nil {
		fmt.Fprintln(out, err)
	}
}
