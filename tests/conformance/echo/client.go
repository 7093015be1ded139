package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// Between two requests of one that watches.
	pause = 20 * time.Millisecond
	// So many requests are under way at once.
	width = 20
	// What is called where a grpc URL names no method.
	echoMethod = "/proto.EchoTestService/Echo"
)

// A call is what the client was told to do.
type call struct {
	url    *url.URL
	method string
	host   string // of the Host field, or ""
	fields http.Header
	count  int
	// A request has this long.
	timeout time.Duration
	watches bool
}

// answer is what came back: its status, its fields and its body's lines.
type answer struct {
	status string
	fields map[string][]string
	body   string
}

func ask(args []string) error {
	call, err := parse(args)
	if err != nil {
		return err
	}
	var one func(context.Context, int) (answer, error)
	switch call.url.Scheme {
	case "http":
		if call.watches {
			return call.watch()
		}
		one = call.http
	case "grpc":
		target := "passthrough:///" + call.url.Host
		options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		if call.host != "" {
			options = append(options, grpc.WithAuthority(call.host))
		}
		connection, err := grpc.NewClient(target, options...)
		if err != nil {
			return err
		}
		defer connection.Close()
		one = func(ctx context.Context, i int) (answer, error) { return call.grpc(ctx, connection, i) }
	case "tcp":
		one = call.tcp
	default:
		return fmt.Errorf("%s: http, grpc or tcp\n%s", call.url, usage)
	}
	return call.all(one)
}

func parse(args []string) (*call, error) {
	call := &call{method: "GET", fields: http.Header{}, count: 1, timeout: 5 * time.Second}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, value, isOption := option(arg)
		switch {
		case arg == "-H" && len(args) > 0:
			field, content, ok := strings.Cut(args[0], ":")
			if !ok {
				return nil, fmt.Errorf("-H %s: NAME:VALUE", args[0])
			}
			if strings.EqualFold(field, "host") {
				call.host = content
			} else {
				call.fields.Add(field, content)
			}
			args = args[1:]
		case isOption && name == "method":
			call.method = value
		case isOption && name == "count":
			var err error
			if call.count, err = strconv.Atoi(value); err != nil {
				return nil, err
			}
		case isOption && name == "timeout":
			var err error
			if call.timeout, err = time.ParseDuration(value); err != nil {
				return nil, err
			}
		case arg == "--watch":
			call.watches = true
		case call.url == nil && strings.Contains(arg, "://"):
			var err error
			if call.url, err = url.Parse(arg); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s: not understood\n%s", arg, usage)
		}
	}
	if call.url == nil {
		return nil, errors.New(usage)
	}
	return call, nil
}

// all makes the calls, prints their answers in order, and fails if one of them failed.
func (c *call) all(one func(context.Context, int) (answer, error)) error {
	type result struct {
		answer
		err error
	}
	results := make([]result, c.count)
	var group sync.WaitGroup
	turns := make(chan struct{}, width)
	for i := range results {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
			defer cancel()
			results[i].answer, results[i].err = one(ctx, i)
		})
	}
	group.Wait()
	var failed []error
	var out strings.Builder
	for i, result := range results {
		if result.err != nil {
			failed = append(failed, fmt.Errorf("[%d] %w", i, result.err))
			continue
		}
		fmt.Fprintf(&out, "[%d] Url=%s\n[%d] StatusCode=%s\n", i, c.url, i, result.status)
		for name, values := range result.fields {
			for _, value := range values {
				fmt.Fprintf(&out, "[%d] ResponseHeader=%s:%s\n", i, name, value)
			}
		}
		for line := range strings.Lines(result.body) {
			fmt.Fprintf(&out, "[%d body] %s\n", i, strings.TrimRight(line, "\r\n"))
		}
		out.WriteString("\n")
	}
	os.Stdout.WriteString(out.String())
	return errors.Join(failed...)
}

// request is one that follows no redirect. A field whose value is * has one that no other request has.
func (c *call) request(ctx context.Context) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, c.method, c.url.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header = c.fields.Clone()
	for name, values := range request.Header {
		if values[0] == "*" {
			request.Header[name] = []string{rand.Text()}
		}
	}
	request.Host = c.host
	return request, nil
}

// watch asks over and over, and prints each status that is another one than before, after the time at which it was seen, in milliseconds
// since 1970.
func (c *call) watch() error {
	transport, last := &http.Transport{DisableCompression: true}, ""
	for ; ; time.Sleep(pause) {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		status := c.status(ctx, transport)
		cancel()
		if status != last {
			fmt.Println(time.Now().UnixMilli(), status)
			last = status
		}
	}
}

func (c *call) status(ctx context.Context, transport *http.Transport) string {
	request, err := c.request(ctx)
	if err != nil {
		return err.Error()
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err.Error()
	}
	return strconv.Itoa(response.StatusCode)
}

// http asks over a connection of its own.
func (c *call) http(ctx context.Context, _ int) (answer, error) {
	request, err := c.request(ctx)
	if err != nil {
		return answer{}, err
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{strconv.Itoa(response.StatusCode), response.Header, string(body)}, err
}

// grpc calls over the connection of all. A status other than OK is an answer too, unless it says that there was none.
func (c *call) grpc(ctx context.Context, connection *grpc.ClientConn, i int) (answer, error) {
	for name, values := range c.fields {
		for _, value := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, name, value)
		}
	}
	method := c.url.Path
	if method == "" || method == "/" {
		method = echoMethod
	}
	reply, fields, trailers := &wrapperspb.StringValue{}, metadata.MD{}, metadata.MD{}
	err := connection.Invoke(ctx, method, wrapperspb.String(fmt.Sprintf("request #%d", i)), reply,
		grpc.WaitForReady(true), grpc.Header(&fields), grpc.Trailer(&trailers))
	answer := answer{"200", metadata.Join(fields, trailers), reply.Value}
	if err == nil {
		return answer, nil
	}
	switch code := status.Code(err); code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return answer, err
	default:
		answer.status = strconv.Itoa(int(code))
		answer.body = "Message=" + status.Convert(err).Message()
		return answer, nil
	}
}

// tcp sends a line and prints all that comes back.
func (c *call) tcp(ctx context.Context, i int) (answer, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.url.Host)
	if err != nil {
		return answer{}, err
	}
	defer connection.Close()
	deadline, _ := ctx.Deadline()
	connection.SetDeadline(deadline)
	if _, err := fmt.Fprintf(connection, "request #%d\n", i); err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(connection)
	if err == nil && len(body) == 0 {
		err = errors.New("the connection ended without an answer")
	}
	return answer{"200", nil, string(body)}, err
}
