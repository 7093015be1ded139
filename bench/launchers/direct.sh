# No proxy at all: the service's address is translated as kube-proxy would, nothing else.
proxy_version() { echo "no proxy"; }
proxy_iptables() { inc iptables -t nat -A OUTPUT -p tcp -d "$VIP" -j DNAT --to-destination "$SRV_IP"; }
