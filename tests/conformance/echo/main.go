// echo is the workload of the conformance suite's pods, in one program without a shell: a server that tells what it was asked,
// and, called `client`, the one that asks it. Both speak in lines `Key=Value`, which the suite reads from a client's output.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const usage = `usage: echo [--port=N]... [--tls=N]... [--grpc=N]... [--tcp=N]...
              serves on these ports: HTTP/1.1 and HTTP/2 without TLS, unless --tls names the port too; gRPC; lines over TCP
       client URL [--method=M] [-H NAME:VALUE]... [--count=N] [--timeout=D]
              asks an http, grpc or tcp URL, N times, and prints what is answered; ends with 1 if anything was not answered.
              A field of the value * has another one in each request
       client URL --watch
              asks an http URL for ever, and prints each change of the status with its time
The query of an http URL tells the server what to do first (tricks.go).`

func main() {
	var err error
	if filepath.Base(os.Args[0]) == "client" {
		err = ask(os.Args[1:])
	} else {
		err = serve(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// option splits --NAME=VALUE.
func option(arg string) (name, value string, ok bool) {
	rest, ok := strings.CutPrefix(arg, "--")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "=")
}
