// echo is the workload of the tests on the cluster, in one program without a shell: a server that says who asked whom, a
// client, a load that counts failures, and processes that wait or end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const usage = `usage: echo serve [-addr HOST:PORT]      HTTP/1.1 until SIGTERM; HOST may be $NAME, taken from the environment
       echo tcp [-addr HOST:PORT]        a TCP server that repeats what it is told
       echo get URL...                   one connection each; ends with 1 at the first that is not answered with 2xx
       echo send HOST:PORT TEXT          TEXT over TCP, and what comes back
       echo lookup NAME...               addresses
       echo load [-rate N] [-for D] [-after D] URL
                                         once URL answers within the time of -after: N requests a second for D; each second
                                         a line of JSON on all so far; SIGTERM ends it early
       echo sleep [D]                    for D, or until SIGTERM
       echo cat FILE                     its content`

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) < 2 {
		fail(usage)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	addr := flags.String("addr", ":8080", "address to listen on")
	rate := flags.Int("rate", 100, "requests a second")
	duration := flags.Duration("for", 10*time.Second, "how long")
	after := flags.Duration("after", 0, "how long the first answer may take")
	timeout := flags.Duration("timeout", 5*time.Second, "a request has this long")
	flags.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch os.Args[1] {
	case "serve":
		serve(ctx, os.ExpandEnv(*addr))
	case "tcp":
		repeat(os.ExpandEnv(*addr))
	case "get":
		for _, url := range flags.Args() {
			get(url, *timeout)
		}
	case "send":
		send(flags.Arg(0), flags.Arg(1), *timeout)
	case "lookup":
		for _, name := range flags.Args() {
			addresses, err := net.DefaultResolver.LookupHost(ctx, name)
			check(err)
			fmt.Println(name, addresses)
		}
	case "load":
		load(ctx, flags.Arg(0), *rate, *after, *duration, *timeout)
	case "sleep":
		if length, err := time.ParseDuration(flags.Arg(0)); err == nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, length)
			defer cancel()
		}
		<-ctx.Done()
	case "cat":
		content, err := os.ReadFile(flags.Arg(0))
		check(err)
		os.Stdout.Write(content)
	default:
		fail(usage)
	}
}

func fail(text any) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

// serve stops as a server does that takes part in rolling restarts: it goes on for as long as endpoints take to be forgotten,
// then finishes what it has begun.
func serve(ctx context.Context, addr string) {
	host, _ := os.Hostname()
	server := &http.Server{Addr: addr, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if length, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			time.Sleep(length)
		}
		fmt.Fprintf(w, "pod=%s remote=%s local=%v\n", host, r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey))
	})}
	done := make(chan struct{})
	go func() {
		<-ctx.Done()
		time.Sleep(3 * time.Second)
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Shutdown(end)
		close(done)
	}()
	log.Printf("listening on %s", addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fail(err)
	}
	<-done
}

func repeat(addr string) {
	listener, err := net.Listen("tcp", addr)
	check(err)
	log.Printf("listening on %s", addr)
	for {
		connection, err := listener.Accept()
		check(err)
		go func() {
			defer connection.Close()
			io.Copy(connection, connection)
		}()
	}
}

func get(url string, timeout time.Duration) {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	check(err)
	body, err := io.ReadAll(response.Body)
	check(err)
	fmt.Printf("%s %s", response.Status, body)
	if response.StatusCode/100 != 2 {
		fail("")
	}
}

func send(addr, text string, timeout time.Duration) {
	connection, err := net.DialTimeout("tcp", addr, timeout)
	check(err)
	connection.SetDeadline(time.Now().Add(timeout))
	_, err = io.WriteString(connection, text)
	check(err)
	check(connection.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(connection)
	check(err)
	fmt.Printf("%s\n", answer)
}

// Report is what a load has seen. Requests have their times from the start on: none is left out because others were slow.
type Report struct {
	Sent, Ok, Failed int
	Errors           map[string]int // by what happened
	Pods             map[string]int // answers by the pod that gave them
	MaxMs            int64
}

func load(ctx context.Context, url string, rate int, after, duration, timeout time.Duration) {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	report := Report{Errors: map[string]int{}, Pods: map[string]int{}}
	var lock sync.Mutex
	var all sync.WaitGroup
	one := func(due time.Time) {
		pod, err := ask(client, url)
		lock.Lock()
		defer lock.Unlock()
		report.Sent++
		report.MaxMs = max(report.MaxMs, time.Since(due).Milliseconds())
		if err == nil {
			report.Ok++
			report.Pods[pod]++
			return
		}
		report.Failed++
		report.Errors[err.Error()]++
		if report.Failed <= 20 {
			log.Printf("failed after %s: %v", time.Since(due), err)
		}
	}
	tell := func() {
		lock.Lock()
		defer lock.Unlock()
		json.NewEncoder(os.Stdout).Encode(report)
	}
	for begun := time.Now(); time.Since(begun) < after; time.Sleep(100 * time.Millisecond) {
		if _, err := ask(client, url); err == nil {
			break
		}
	}
	go func() {
		for range time.Tick(time.Second) {
			tell()
		}
	}()
	interval, start := time.Second/time.Duration(rate), time.Now()
	for due := start; due.Sub(start) < duration && ctx.Err() == nil; due = due.Add(interval) {
		select {
		case <-time.After(time.Until(due)):
			all.Go(func() { one(due) })
		case <-ctx.Done():
		}
	}
	all.Wait()
	tell()
	if report.Failed > 0 {
		os.Exit(1)
	}
}

// ask gives the name of the pod that answered with 2xx.
func ask(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s: %s", response.Status, body)
	}
	pod, _, _ := strings.Cut(strings.TrimPrefix(string(body), "pod="), " ")
	return pod, nil
}
