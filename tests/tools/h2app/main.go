// h2app is a server of Go's net/http, for tests that want an HTTP/2 other than the one that the proxies are made of. It
// listens on all addresses of one port, in HTTP/2 with prior knowledge (RFC 9113 §3.3), and in HTTP/1.1 too if told so. SIGTERM ends it gracefully.
// What each path does stands beside it, in main.
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const maxHeaderBytes = 1 << 20

// How long requests may take to end after SIGTERM.
const shutdownTimeout = 20 * time.Second

// How much of an upload is taken before it is refused.
const earlyBytes = 1000

func main() {
	port := flag.Int("port", 8080, "the TCP port")
	http1 := flag.Bool("http1", false, "HTTP/1.1 too")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("/", protocol)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/sum", sum)
	mux.HandleFunc("/zeros", zeros)
	mux.HandleFunc("/hints", hints)
	mux.HandleFunc("/trailers", trailers)
	mux.HandleFunc("/early", early)
	mux.HandleFunc("/fields", fields)
	mux.HandleFunc("/status", status)

	server := http.Server{
		Addr:              fmt.Sprintf(":%d", *port),
		Handler:           mux,
		Protocols:         new(http.Protocols),
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: time.Minute,
	}
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Protocols.SetHTTP1(*http1)
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	<-asked
	// As programs do that are stopped: nothing new, what there is to its end.
	limited, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		log.Fatal(err)
	}
}

// What was asked, in the server's view.
func protocol(answer http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	fmt.Fprintf(answer, "%s %s %s %s\n", request.Method, request.Host, request.RequestURI, request.Proto)
}

// Each part of the body as soon as it comes, then the request's trailers as trailers.
func echo(answer http.ResponseWriter, request *http.Request) {
	control := http.NewResponseController(answer)
	// HTTP/1.1 only; HTTP/2 always does so.
	_ = control.EnableFullDuplex()
	answer.WriteHeader(http.StatusOK)
	_ = control.Flush()
	buffer := make([]byte, 64*1024)
	for {
		count, err := request.Body.Read(buffer)
		if _, failed := answer.Write(buffer[:count]); failed != nil {
			return
		}
		_ = control.Flush()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	for name, values := range request.Trailer {
		answer.Header()[http.TrailerPrefix+name] = values
	}
}

// How long the body was, and its SHA-256.
func sum(answer http.ResponseWriter, request *http.Request) {
	hash := sha256.New()
	count, err := io.Copy(hash, request.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(answer, "%d %x\n", count, hash.Sum(nil))
}

// As many zeros as the query says, with their length declared.
func zeros(answer http.ResponseWriter, request *http.Request) {
	count, _ := strconv.ParseInt(request.URL.RawQuery, 10, 64)
	answer.Header().Set("Content-Length", request.URL.RawQuery)
	buffer := make([]byte, 64*1024)
	for count > 0 {
		now := min(count, int64(len(buffer)))
		if _, err := answer.Write(buffer[:now]); err != nil {
			return
		}
		count -= now
	}
}

// Two interim answers before the final one.
func hints(answer http.ResponseWriter, _ *http.Request) {
	answer.Header().Set("Link", "</first.css>")
	answer.WriteHeader(http.StatusEarlyHints)
	answer.Header().Set("Link", "</second.css>")
	answer.WriteHeader(http.StatusEarlyHints)
	answer.Header().Del("Link")
	fmt.Fprint(answer, "hinted\n")
}

// A body, then fields.
func trailers(answer http.ResponseWriter, _ *http.Request) {
	answer.Header().Set("Trailer", "X-Sum")
	fmt.Fprint(answer, "summed\n")
	answer.Header().Set("X-Sum", "42")
}

// Refuses an upload after its first bytes.
func early(answer http.ResponseWriter, request *http.Request) {
	_, _ = io.CopyN(io.Discard, request.Body, earlyBytes)
	answer.WriteHeader(http.StatusRequestEntityTooLarge)
	fmt.Fprint(answer, "too large\n")
}

// How many bytes of values the fields whose names begin with X- have.
func fields(answer http.ResponseWriter, request *http.Request) {
	total := 0
	for name, values := range request.Header {
		if strings.HasPrefix(name, "X-") {
			for _, value := range values {
				total += len(value)
			}
		}
	}
	fmt.Fprintf(answer, "%d\n", total)
}

// The status that the query says, without a body.
func status(answer http.ResponseWriter, request *http.Request) {
	code, err := strconv.Atoi(request.URL.RawQuery)
	if err != nil || code < 200 || code > 999 {
		code = http.StatusBadRequest
	}
	answer.Header().Set("Etag", `"1"`)
	answer.WriteHeader(code)
}
