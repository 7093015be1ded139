# Our pair with 100 routes on the Service and 3 policies on each: bench/run weft weft-routes shows what policy costs. What the load asks
# for is the last route's, as its match is the least special one: each request is held against all of them.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/weft.sh"
eval "$(declare -f weft_manifests | sed '1s/weft_manifests/weft_service/')"

weft_manifests() {
  local number match
  weft_service
  for number in $(seq 100); do
    match="{path: {type: PathPrefix, value: /route-$number}, headers: [{name: x-group, value: g$number}]}"
    [ "$number" != 100 ] || match="{path: {type: PathPrefix, value: /}}"
    cat <<YAML
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route-$number, namespace: lab}
spec:
  parentRefs: [{group: "", kind: Service, name: server, port: $HTTP_PORT}]
  rules:
  - name: main
    matches: [$match]
    backendRefs: [{name: server, port: $HTTP_PORT}]
---
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: times-$number, namespace: lab}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: route-$number}]
  timeouts: {request: 10s, backendRequest: 5s, streamIdle: 60s}
---
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: retries-$number, namespace: lab}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: route-$number, sectionName: main}]
  retry: {httpCodes: [502, 503], attempts: 2}
---
apiVersion: policy.weft.mesh/v1alpha1
kind: BackendPolicy
metadata: {name: limits-$number, namespace: lab}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: route-$number}]
  limits: {maxRequests: 10000, maxPendingRequests: 10000}
  failureAccrual: {mode: Consecutive, maxFailures: 7}
YAML
  done
}
