package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

// Between two lines of an answer that is held open.
const lineEvery = 50 * time.Millisecond

// tricks are what a request's query tells the server to do:
//
//	wait=D            it answers after this time
//	status=N          it answers with this status
//	only=POD          and only if it is this pod
//	fails=N           and only the first N times that a request of this field X-Id comes
//	hold=KEY          its answer goes on with lines until KEY is let go, and then ends with a line Ended=KEY
//	release=KEY       KEY is let go
type tricks struct {
	lock sync.Mutex
	seen map[string]int
	held map[string]chan struct{}
}

// begin does all that comes before the answer, and says its status, and how often this request has come.
func (t *tricks) begin(r *http.Request, query url.Values) (status, attempt int) {
	if length, err := time.ParseDuration(query.Get("wait")); err == nil {
		time.Sleep(length)
	}
	if key := query.Get("release"); key != "" {
		t.release(key)
	}
	if id := r.Header.Get("X-Id"); id != "" {
		t.lock.Lock()
		t.seen[id]++
		attempt = t.seen[id]
		t.lock.Unlock()
	}
	status, err := strconv.Atoi(query.Get("status"))
	if err != nil {
		return http.StatusOK, attempt
	}
	if fails, err := strconv.Atoi(query.Get("fails")); err == nil && attempt > fails {
		return http.StatusOK, attempt
	}
	if host, _ := os.Hostname(); query.Has("only") && query.Get("only") != host {
		return http.StatusOK, attempt
	}
	return status, attempt
}

// end goes on with the answer for as long as it is held.
func (t *tricks) end(w http.ResponseWriter, r *http.Request, query url.Values) {
	key := query.Get("hold")
	if key == "" {
		return
	}
	let := t.key(key)
	for line := 0; ; line++ {
		fmt.Fprintf(w, "Line=%d\n", line)
		http.NewResponseController(w).Flush()
		select {
		case <-let:
			fmt.Fprintf(w, "Ended=%s\n", key)
			return
		case <-r.Context().Done():
			return
		case <-time.After(lineEvery):
		}
	}
}

func (t *tricks) release(name string) {
	let := t.key(name)
	t.lock.Lock()
	defer t.lock.Unlock()
	select {
	case <-let:
	default:
		close(let)
	}
}

func (t *tricks) key(name string) chan struct{} {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.held[name] == nil {
		t.held[name] = make(chan struct{})
	}
	return t.held[name]
}
