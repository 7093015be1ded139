# For peers that do not intercept: a port of theirs for each port of the service, at both ends.
EXPLICIT_HTTP=15001 # the peer's port for HTTP_PORT, the same at both ends
explicit_port() { echo $(($1 + 6050)); } # and for an opaque TCP port
proxy_iptables() {
  local port
  inc iptables -t nat -A OUTPUT -p tcp -d "$VIP" --dport "$HTTP_PORT" -j REDIRECT --to-ports $EXPLICIT_HTTP
  for port in "$SINK" "$ECHO"; do
    inc iptables -t nat -A OUTPUT -p tcp -d "$VIP" --dport "$port" -j REDIRECT --to-ports "$(explicit_port "$port")"
  done
}
