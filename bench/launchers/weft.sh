# Our pair: weft-control on a directory of manifests, one weft-proxy a side. Sourced by bench/run, or by any harness
# with the same contract (README.md beside this folder). Binaries of target/release, or of WEFT_BIN.
#
# weft-control stands in the server's namespace: the client's proxy reaches it over the veth, as its uid is exempt
# from redirection there, and SKIP_IN_PORTS lets it in here. All ports lie in 4140-4199, where the harness reserves them.
WEFT_ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
WEFT_BIN=${WEFT_BIN:-$WEFT_ROOT/target/release}
WEFT_CONTROL=$SRV_IP:4186 WEFT_ADMIN=4191
SKIP_IN_PORTS=4186

proxy_version() { "$RUN/weft-proxy" --version | awk '{print $2}'; }

weft_pod() { # NAME IP CONTAINER-PORTS
  cat <<YAML
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: $1, namespace: lab}
---
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: lab, labels: {app: $1, weft.mesh/injected: "true"}}
spec:
  serviceAccountName: $1
  containers:
  - name: $1
    ports: [$3]
status:
  phase: Running
  podIP: $2
  podIPs: [{ip: $2}]
  conditions: [{type: Ready, status: "True"}]
YAML
}

weft_manifests() {
  local port ports="" containers=""
  for port in "$HTTP_PORT" "$SINK" "$SOURCE" "$ECHO"; do
    ports+="${ports:+, }{name: p$port, port: $port}" containers+="${containers:+, }{containerPort: $port}"
  done
  cat <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: lab}
spec:
  clusterIP: $VIP
  clusterIPs: [$VIP]
  selector: {app: server}
  ports: [$ports]
YAML
  weft_pod client "$CLI_IP" ""
  weft_pod server "$SRV_IP" "$containers"
}

proxy_setup() {
  local side token
  mkdir -p "$RUN/manifests" && weft_manifests > "$RUN/manifests/lab.yaml" || return 1
  # Copies: the proxies' uid may not be let into the folder in which they were built.
  install -m755 "$WEFT_BIN/weft-control" "$WEFT_BIN/weft-proxy" "$RUN/" || {
    echo "no binaries in $WEFT_BIN: cargo build --release -p proxy-app -p control-serve" >&2; return 1; }
  ( aux_exec "$NSS" "$RUN/weft-control" --directory "$RUN/manifests" --state "$RUN/state" --listen "$WEFT_CONTROL" \
      --admin-listen 127.0.0.1:4187 >"$RUN/control.log" 2>&1 ) & BG="$BG $!"
  for _ in $(seq 100); do grep -q 'ready: serving' "$RUN/control.log" && break; sleep 0.1; done
  install -m644 "$RUN/state/ca.pem" "$RUN/ca.pem" || { cat "$RUN/control.log" >&2; return 1; }
  for side in client server; do
    token=$RUN/state/tokens/lab/$side.token
    install -m400 -o "$PROXY_UID" "$token" "$RUN/$side.token" || { cat "$RUN/control.log" >&2; return 1; }
  done
}

weft_proxy() { # NAMESPACE POD
  proxy_exec "$1" "$RUN/weft-proxy" --workload "lab/$2" --control "$WEFT_CONTROL" --trust-anchors "$RUN/ca.pem" \
    --token-file "$RUN/$2.token" --outbound-listen "$REDIR_OUT" --inbound-listen "$REDIR_IN" \
    --admin-listen "127.0.0.1:$WEFT_ADMIN" --workers 1 --log "${WEFT_LOG:-warn}" \
    ${WEFT_ACCESS_LOG:+--access-log "$WEFT_ACCESS_LOG"}
}

proxy_launch() {
  ( weft_proxy "$NSC" client >"$RUN/out.log" 2>&1 ) & PIDS_OUT=$!
  ( weft_proxy "$NSS" server >"$RUN/in.log" 2>&1 ) & PIDS_IN=$!
}

proxy_teardown() {
  inc curl -sm3 "127.0.0.1:$WEFT_ADMIN/metrics" > "$OUT/out.metrics" 2>/dev/null
  ins curl -sm3 "127.0.0.1:$WEFT_ADMIN/metrics" > "$OUT/in.metrics" 2>/dev/null
}
