# Sourced by the scripts that measure: network namespaces, the switch between them, the Hub that machines ask, and figures.
# Needs root, and ip, tc, jq and curl.

# Everything in such a namespace was started here.
end_all_in() { ip netns pids "$1" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true; }
end_lab() {
    local namespace
    for namespace in "$@"; do
        end_all_in "$namespace"
        ip netns del "$namespace" 2>/dev/null || true
    done
}
# begin_lab SWITCH NAMESPACE… : the first one is a switch.
begin_lab() {
    local namespace
    for namespace in "$@"; do
        ip netns add "$namespace"
        ip -n "$namespace" link set lo up
    done
    switch=$1
    ip -n "$switch" link add br0 type bridge
    ip -n "$switch" link set br0 up
}
# plug NAMESPACE DEVICE PORT : a cable to the switch.
plug() {
    ip -n "$switch" link add "$3" type veth peer name "$2" netns "$1"
    ip -n "$switch" link set "$3" master br0 up
    ip -n "$1" link set "$2" up
}
# limit NAMESPACE DEVICE RATE : what a device may send; an empty rate is none.
limit() {
    if [[ -n $3 ]]; then
        # Bursts are counted with the headers of every segment in them, so they need not be switched off.
        tc -n "$1" qdisc replace dev "$2" root tbf rate "$3" burst 256kb latency 50ms
    else
        tc -n "$1" qdisc del dev "$2" root 2>/dev/null || true
    fi
}
# sent NAMESPACE DEVICE : bytes that a device has sent, less the headers of Ethernet, IP and TCP.
sent() { ip -n "$1" -s -j link show "$2" | jq '.[0].stats64.tx | .bytes - 66 * .packets'; }

hub_pid=
# start_hub PROGRAM NAMESPACE ARGUMENT… : a test Hub in place of the one before; sets its URLs, and the digest of its file.
start_hub() {
    local text=$work/hub.txt
    [[ -z $hub_pid ]] || kill "$hub_pid" 2>/dev/null || true
    : >"$text"
    env -i PATH="$PATH" ip netns exec "$2" "$1" "${@:3}" >"$text" &
    hub_pid=$!
    disown "$hub_pid"
    until [[ $(wc -l <"$text") -ge 2 ]]; do
        kill -0 "$hub_pid"
        sleep 0.1
    done
    hub=$(sed -n 's/^hub //p' "$text")
    control=$(sed -n 's/^control //p' "$text")
    sum=$(ip netns exec "$2" curl -sfL "$hub/org/model/resolve/main/model.safetensors" | sha256sum | cut -d' ' -f1)
}

calc() { awk "BEGIN { printf \"%.3f\", ($*) }"; }
# median FORMAT : of a column of numbers, with the least and the most.
median() {
    sort -n | awk -v format="$1" '{ v[NR] = $1 }
        END { middle = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
              printf format "  (" format " to " format ")\n", middle, v[1], v[NR] }'
}
