# HAProxy, one thread a side: HTTP/2 over mTLS between the two; a field tells which version the client spoke, so that the server
# is spoken to in the same. No identity, discovery or
# policy: it shows what the data path alone costs.
. "$BENCH/launchers/explicit.sh"
proxy_version() { haproxy -v | awk 'NR == 1 {print $3}'; }

haproxy_config() { # out|in
  local side=$1 port tls_in="" tls_out="" upstream=$SRV_IP:$HTTP_PORT
  local server="ssl crt $CERTS/server.both.pem ca-file $CERTS/ca.pem verify required"
  local client="ssl crt $CERTS/client.both.pem ca-file $CERTS/ca.pem verify required verifyhost server.lab.test sni str(server.lab.test)"
  case $side in
    out) tls_out=$client upstream=$SRV_IP:$EXPLICIT_HTTP ;;
    in) tls_in=$server ;;
  esac
  cat <<CFG
global
  nbthread 1
  maxconn 19000
  no strict-limits
  tune.h2.max-concurrent-streams 1024
defaults
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
  retries 0 # else a start in the wrong order shows as a second's wait
frontend http
  mode http
  bind 0.0.0.0:$EXPLICIT_HTTP $tls_in ${tls_in:+alpn h2,http/1.1}
  ${tls_out:+http-request set-header x-version %[req.ver]}
  acl client_http2 req.hdr(x-version) 2.0
  ${tls_in:+use_backend http2 if client_http2}
  default_backend http
backend http
  mode http
  server next $upstream $tls_out ${tls_out:+alpn h2}
backend http2
  mode http
  server next $upstream proto h2
CFG
  for port in "$SINK" "$ECHO"; do
    upstream=$SRV_IP:$port
    [ "$side" = out ] && upstream=$SRV_IP:$(explicit_port "$port")
    cat <<CFG
listen tcp$port
  mode tcp
  bind 0.0.0.0:$(explicit_port "$port") $tls_in
  server next $upstream $tls_out
CFG
  done
}

proxy_setup() {
  haproxy_config out > "$RUN/haproxy-out.cfg"
  haproxy_config in > "$RUN/haproxy-in.cfg"
}

proxy_launch() {
  ( proxy_exec "$NSC" haproxy -db -f "$RUN/haproxy-out.cfg" >"$RUN/out.log" 2>&1 ) & PIDS_OUT=$!
  ( proxy_exec "$NSS" haproxy -db -f "$RUN/haproxy-in.cfg" >"$RUN/in.log" 2>&1 ) & PIDS_IN=$!
}
