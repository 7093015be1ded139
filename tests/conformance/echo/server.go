package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serve listens on all ports that the arguments name, and returns when one of them fails.
func serve(args []string) error {
	ports, err := listeners(args)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, kind := range []string{"port", "grpc", "tcp"} {
		for _, port := range ports[kind] {
			listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			secure := kind == "port" && slices.Contains(ports["tls"], port)
			log.Printf("%s on %d (TLS: %v)", kind, port, secure)
			go func() {
				switch kind {
				case "port":
					failed <- serveHTTP(listener, port, secure)
				case "grpc":
					failed <- serveGRPC(listener, port)
				case "tcp":
					failed <- serveTCP(listener, port)
				}
			}()
		}
	}
	return <-failed
}

// listeners reads the port numbers of each kind. The suite gives a certificate's files too; ours is made as it starts, as nobody verifies it.
func listeners(args []string) (map[string][]int, error) {
	ports := map[string][]int{}
	for _, arg := range args {
		name, value, ok := option(arg)
		if name == "crt" || name == "key" {
			continue
		}
		number, err := strconv.Atoi(value)
		if !ok || err != nil || !slices.Contains([]string{"port", "tls", "grpc", "tcp"}, name) {
			return nil, fmt.Errorf("%s: not understood\n%s", arg, usage)
		}
		ports[name] = append(ports[name], number)
	}
	if len(ports) == 0 {
		ports = map[string][]int{"port": {8080, 8443}, "grpc": {7070}, "tcp": {9090}}
	}
	return ports, nil
}

// seen is what an answer tells of its request.
type seen struct {
	status                           int
	port                             int
	host, url, method, proto, remote string
	fields                           map[string][]string
	attempt                          int
}

func (s seen) String() string {
	var lines strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&lines, "%s=%v\n", key, value) }
	if s.status != 0 {
		line("StatusCode", s.status)
	}
	line("ServiceVersion", "")
	line("ServicePort", s.port)
	line("Host", s.host)
	line("URL", s.url)
	line("Method", s.method)
	line("Proto", s.proto)
	if s.attempt != 0 {
		line("Attempt", s.attempt)
	}
	ip, _, _ := net.SplitHostPort(s.remote)
	line("IP", ip)
	names := make([]string, 0, len(s.fields))
	for name := range s.fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range s.fields[name] {
			line("RequestHeader", name+":"+value)
		}
	}
	hostname, _ := os.Hostname()
	line("Hostname", hostname)
	return lines.String()
}

func serveHTTP(listener net.Listener, port int, secure bool) error {
	tricks := &tricks{seen: map[string]int{}, held: map[string]chan struct{}{}}
	server := &http.Server{
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query := r.URL.Query()
			status, attempt := tricks.begin(r, query)
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			fmt.Fprint(w, seen{
				port: port, host: r.Host, url: r.RequestURI, method: r.Method, proto: r.Proto, remote: r.RemoteAddr, fields: r.Header,
				attempt: attempt,
			})
			tricks.end(w, r, query)
		}),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if !secure {
		return server.Serve(listener)
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	return server.ServeTLS(listener, "", "")
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// serveGRPC answers every unary method, /proto.EchoTestService/Echo among them. Its messages have one field, a string of number
// one, and so are a StringValue's on the wire.
func serveGRPC(listener net.Listener, port int) error {
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		request := &wrapperspb.StringValue{}
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(stream)
		about := seen{status: 200, port: port, url: method, method: "POST", proto: "HTTP/2.0"}
		fields, _ := metadata.FromIncomingContext(stream.Context())
		about.fields = fields.Copy()
		about.host = strings.Join(fields[":authority"], ",")
		delete(about.fields, ":authority")
		if from, ok := peer.FromContext(stream.Context()); ok {
			about.remote = from.Addr.String()
		}
		return stream.SendMsg(wrapperspb.String(fmt.Sprintf("Echo=%s\n%s", request.Value, about)))
	}))
	return server.Serve(listener)
}

// serveTCP answers each connection's first line, and ends it.
func serveTCP(listener net.Listener, port int) error {
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
			return err
		} else if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for a while
			continue
		}
		go func() {
			defer connection.Close()
			text, err := bufio.NewReader(connection).ReadString('\n')
			if err != nil {
				return
			}
			about := seen{status: 200, port: port, proto: "TCP", remote: connection.RemoteAddr().String()}
			fmt.Fprintf(connection, "Echo=%s\n%s", strings.TrimSpace(text), about)
		}()
	}
}
