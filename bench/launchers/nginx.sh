# nginx, one worker a side: HTTP/1.1 over pooled mTLS connections. No identity, discovery or policy: it shows what the
# data path alone costs.
. "$BENCH/launchers/explicit.sh"
WITHOUT="h2c100 grpc100" # one port cannot speak both versions of HTTP in plaintext, nor can upstream connections speak HTTP/2
proxy_version() { nginx -v 2>&1 | sed 's,.*/,,'; }

nginx_config() { # out|in
  local side=$1 port ssl="" stream_ssl="" scheme=http upstream=$SRV_IP:$HTTP_PORT tls
  case $side in
    out)
      scheme=https upstream=$SRV_IP:$EXPLICIT_HTTP stream_ssl="proxy_ssl on;"
      tls="proxy_ssl_certificate $CERTS/client.pem; proxy_ssl_certificate_key $CERTS/client.key;
  proxy_ssl_trusted_certificate $CERTS/ca.pem; proxy_ssl_verify on; proxy_ssl_name server.lab.test;
  proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;" ;;
    in)
      ssl=ssl
      tls="ssl_certificate $CERTS/server.pem; ssl_certificate_key $CERTS/server.key;
  ssl_client_certificate $CERTS/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;" ;;
  esac
  local temp="" kind
  for kind in client_body proxy fastcgi uwsgi scgi; do temp+="${kind}_temp_path $TEMP/$side-$kind; "; done
  cat <<CONF
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1; master_process off; daemon off; pid $TEMP/$side.pid; error_log stderr;
events { worker_connections 19000; multi_accept on; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host;
  $temp
  $tls
  upstream next { server $upstream; keepalive 512; keepalive_requests 100000000; }
  server { listen $EXPLICIT_HTTP $ssl backlog=8192; location / { proxy_pass $scheme://next; } }
}
stream {
  proxy_half_close on; proxy_buffer_size 64k;
  $tls
  $stream_ssl
CONF
  for port in "$SINK" "$ECHO"; do
    upstream=$SRV_IP:$port
    [ "$side" = out ] && upstream=$SRV_IP:$(explicit_port "$port")
    echo "  server { listen $(explicit_port "$port") $ssl; proxy_pass $upstream; }"
  done
  echo "}"
}

proxy_setup() {
  TEMP=$RUN/nginx && mkdir -p "$TEMP" && chown "$PROXY_UID" "$TEMP"
  nginx_config out > "$RUN/nginx-out.conf"
  nginx_config in > "$RUN/nginx-in.conf"
}

proxy_launch() {
  ( proxy_exec "$NSC" nginx -e stderr -c "$RUN/nginx-out.conf" >"$RUN/out.log" 2>&1 ) & PIDS_OUT=$!
  ( proxy_exec "$NSS" nginx -e stderr -c "$RUN/nginx-in.conf" >"$RUN/in.log" 2>&1 ) & PIDS_IN=$!
}
