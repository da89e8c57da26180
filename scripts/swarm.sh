#!/usr/bin/env bash
# A lab that wants one file at once, over one thin line to the Hub: what crosses the line, and how long the last one waits.
#
#   scripts/swarm.sh [ROW…]        every row by default, in some ten minutes; needs root
#
#   together   2, 4, 8 and 16 machines start together, and nobody has the file
#   killed     the same, and the machine that has fetched most from the Hub is killed at half time
#   seeder     eight takers at one seeder with a limited line, and no Hub
#   stalls     one of two peers freezes, or gets slow, at half time
#   sources    three peers at 100 Mbit/s each and a Hub at 50 Mbit/s
#   wire       one peer to one peer over 1 Gbit/s
#
# Every machine is a network namespace on one switch; the Hub is in another network, behind a router whose line has a
# rate. Figures are ratios within one run, because the machine that runs all this has its moods. Commands wait at a gate
# and are let go together; time runs from there until the last of them has ended, and every file is compared by then. The
# rates are those of Ethernet frames: of a line, TCP leaves 95.6 % at most.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/need.sh
source scripts/lab.sh
export PATH="$PATH:/usr/sbin:/sbin"

mib=192        # What a lab's file has: half a minute of its line, so that starting up is a small part of it.
wan_rate=60mbit # Times fifteen takers, this is half of what two cores can encrypt and decrypt.
sizes=(2 4 8 16)
rows=("$@")
((${#rows[@]})) || rows=(together killed seeder stalls sources wire)
for row in "${rows[@]}"; do
    [[ " together killed seeder stalls sources wire " == *" $row "* ]] || { echo "no such row: $row" >&2; exit 2; }
done
((EUID == 0)) || { echo "skipped: needs root"; exit 0; }
need ip=iproute2 tc=iproute2 nft=nftables curl=curl nginx=nginx-light jq=jq flock=util-linux
cargo build --locked --quiet --release --bin hffs --example test-hub
target=${CARGO_TARGET_DIR:-$PWD/target}/release
hffs=$target/hffs

# In memory, where there is room for all copies: the disk would be measured otherwise.
room=$(df --output=avail -m /dev/shm 2>/dev/null | tail -1 || echo 0)
work=$(mktemp -d -p "$( ((room > 20 * mib)) && echo /dev/shm || echo "${TMPDIR:-/tmp}")" hffs-swarm.XXXXXX)
lab=hffs-swarm-$$
switch=$lab-switch
router=$lab-router
data=$lab-hub
namespaces=("$switch" "$router" "$data")
for n in {1..16}; do namespaces+=("$lab-$n"); done
declare -A pids=() jobs=()
table=()
wrong=0
most_memory=0

clean_up() {
    end_lab "${namespaces[@]}"
    rm -rf "$work"
}
trap clean_up EXIT

# ---- the lab: a switch, a router, a Hub behind it, and sixteen machines ------------------------------

begin_lab "${namespaces[@]}"
plug "$router" lan router
ip -n "$router" addr add 10.99.0.1/24 dev lan
ip -n "$router" link add wan type veth peer name eth0 netns "$data"
ip -n "$router" addr add 10.98.0.254/24 dev wan
ip -n "$router" link set wan up
# The Hub's metadata and its data have an address each.
ip -n "$data" addr add 10.98.0.1/24 dev eth0
ip -n "$data" addr add 10.98.0.2/24 dev eth0
ip -n "$data" link set eth0 up
ip -n "$data" route add default via 10.98.0.254
for n in {1..16}; do
    plug "$lab-$n" eth0 "m$n"
    ip -n "$lab-$n" addr add "10.99.0.$((100 + n))/24" dev eth0
    ip -n "$lab-$n" route add default via 10.99.0.1
done
ip netns exec "$router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
# What the Hub has handed to its network counts as sent: little of it may wait in its own buffers.
ip netns exec "$data" sh -c 'echo 4096 65536 131072 >/proc/sys/net/ipv4/tcp_wmem'
# What each machine gets from the Hub.
ip netns exec "$router" nft -f - <<'NFT'
table ip lab {
    set fetched { type ipv4_addr; flags dynamic; counter; }
    chain count { type filter hook forward priority 0; iifname "wan" update @fetched { ip daddr }; }
}
NFT

at() { ip netns exec "$lab-$1" "${@:2}"; }
# Both directions of the Hub's line, and of a machine's cable.
wan() { limit "$router" lan "$1" && limit "$router" wan "$1"; }
cable() { limit "$lab-$1" eth0 "$2" && limit "$switch" "m$1" "$2"; }
address() { echo "10.99.0.$((100 + $1))"; }

hub_mib=0
# serve MIB : a Hub with a file of that size.
serve() {
    ((hub_mib != $1)) || return 0
    start_hub "$target/examples/test-hub" "$data" --ip 10.98.0.1 --size "$1"
    hub_mib=$1
    size=$(($1 << 20))
}
hub_told() { ip netns exec "$data" curl -sf "$control/ledger" | jq -r "$1"; }
hub_sent() { hub_told '.sent["model.safetensors"] // 0'; }
# A Hub that was hung up on had handed more to its network than ever crossed the line.
line_sent() { sent "$router" lan; }
forget() {
    ip netns exec "$data" curl -sf -X DELETE "$control/ledger"
    ip netns exec "$router" nft flush set ip lab fetched
}
# The machine that has got most from the Hub so far.
greediest() {
    ip netns exec "$router" nft -j list set ip lab fetched |
        jq '[.nftables[].set.elem[]?.elem] | max_by(.counter.bytes).val | split(".")[3] | tonumber - 100'
}

# ---- machines ----------------------------------------------------------------------------------------

# inside MACHINE ENDPOINT-OR-EMPTY PROGRAM… : a program in that machine, in a clean environment.
inside() {
    local clean=(PATH="$PATH" HOME="$work/$1" HFFS_HOME="$work/$1")
    if [[ -n $2 ]]; then clean+=(HF_ENDPOINT="$2"); else clean+=(HF_HUB_OFFLINE=1); fi
    at "$1" env -i "${clean[@]}" "${@:3}"
}
on() { inside "$1" "$2" "$hffs" "${@:3}"; }

# The most memory that each daemon has had, and then its end.
retire() {
    local n peak
    for n in "${!pids[@]}"; do
        peak=$(awk '/^VmHWM/ { print $2 }' "/proc/${pids[$n]}/status" 2>/dev/null || true)
        if ((${peak:-0} > most_memory)); then
            most_memory=$peak
            most_memory_in="$scene, machine $n"
        fi
    done
    for n in {1..16}; do end_all_in "$lab-$n"; done
    pids=()
}

# machines COUNT : so many daemons with nothing in their caches, who all know each other; no cable has a limit.
# Sets `everyone`.
machines() {
    local n peer_id deadline=$((SECONDS + 60))
    retire
    everyone=()
    wan ''
    for n in {1..16}; do
        cable "$n" ''
        rm -rf "${work:?}/$n" "$work/$n".*
    done
    for ((n = 1; n <= $1; n++)); do
        everyone+=("$n")
        mkdir "$work/$n"
        on "$n" "$hub" -q daemon start >/dev/null
    done
    for ((n = 1; n <= $1; n++)); do
        until (($(on "$n" '' -q --json peer ls | jq '[.[] | select(.active)] | length') >= $1 - 1)); do
            ((SECONDS < deadline)) || { echo "machine $n does not find the others" >&2; exit 1; }
            sleep 0.2
        done
        read -r "pids[$n]" peer_id < <(on "$n" '' --json daemon status | jq -r '"\(.pid) \(.peer_id)"')
        echo "$peer_id" >"$work/$n.id"
    done
}

# fill MACHINE… : they get the file from wherever it comes fast.
fill() {
    local n
    for n in "$@"; do on "$n" "$hub" -q model add org/model >/dev/null; done
}
# pair COUNT : each takes the word of every other.
pair() {
    local one other
    for ((one = 1; one <= $1; one++)); do
        for ((other = 1; other <= $1; other++)); do
            ((one == other)) || on "$one" '' -q peer add "$(address "$other")" >/dev/null
        done
    done
}

adding() {
    local status=0
    inside "$1" "$2" flock -s "$work/gate" timeout 400 "$hffs" -q --json model add org/model \
        >"$work/$1.json" 2>"$work/$1.talk" || status=$?
    echo "$EPOCHREALTIME $status" >"$work/$1.end"
}
# start ENDPOINT-OR-EMPTY MACHINE… : all of them begin to add the file; sets the instant when they `began`.
start() {
    local n gate
    exec {gate}>"$work/gate"
    flock -x "$gate"
    jobs=()
    for n in "${@:2}"; do
        adding "$n" "$1" &
        jobs[$n]=$!
    done
    sleep 1 # Until all of them stand at the gate.
    began=$EPOCHREALTIME
    flock -u "$gate"
    exec {gate}>&-
}
# at_second S : waits until so long after `start`.
at_second() { sleep "$(calc "$began + $1 - $EPOCHREALTIME" | sed 's/^-.*/0/')"; }
# finish MACHINE… : waits for all, compares what these have, and sets how long the last of them `took`.
finish() {
    local n ended status path
    wait "${jobs[@]}" || true
    took=0
    for n in "$@"; do
        read -r ended status <"$work/$n.end"
        path=$(jq -r '.files[] | select(.path == "model.safetensors").local_path' "$work/$n.json" 2>/dev/null || true)
        if ((status != 0)); then
            complain "machine $n failed: $(tail -3 "$work/$n.talk" | tr '\n' ' ')"
        elif [[ ! -f $path || $(sha256sum <"$path" | cut -d' ' -f1) != "$sum" ]]; then
            complain "machine $n HAS A WRONG FILE: $path"
        fi
        took=$(calc "$ended - $began > $took ? $ended - $began : $took")
    done
}
complain() {
    wrong=$((wrong + 1))
    table+=("$scene|failed||WRONG|$1")
    echo "$scene: $1" >&2
}

# judge FIGURE RELATION TARGET NAME NOTE
judge() {
    local verdict=MISSED
    awk "BEGIN { exit !($1 $2 $3) }" && verdict=ok
    note "$4" "$1" "$2 $3" "$verdict" "$5"
}
note() {
    table+=("$1|$2|$3|$4|$5")
    printf '%-46s %10s  %-8s %-6s %s\n' "$@" >&2
}

# ---- rows --------------------------------------------------------------------------------------------

# How long one machine needs that has only the Hub; sets `alone`.
alone=
measure_alone() {
    [[ -z $alone ]] || return 0
    scene="one alone"
    machines 1
    wan "$wan_rate"
    start "$hub" 1
    finish 1
    alone=$took
    note "$scene at $wan_rate" "$took s" '' '' "$(calc "$size * 8 / $took / 1e6") Mbit/s of payload"
}

# What a machine's cable has carried: bytes, and packets with their 66 bytes of headers.
carried() {
    ip -n "$lab-$1" -s -j link show eth0 |
        jq -r '.[0].stats64 | "\(.rx.bytes + .tx.bytes) \(.rx.packets + .tx.packets)"'
}
# Payload that a machine took and gave.
payload() {
    jq -s --arg id "$(cat "$work/$1.id")" '[.[].files[].peer_bytes[$id] // 0] | add' "$work"/*.json
    jq '[.files[] | .hub_bytes, .peer_bytes[]] | add' "$work/$1.json"
}
# hears COUNT BEFORE… : what each machine heard and said beside the payload while all of them were at it.
hears() {
    local n before bytes packets rest headers all=()
    for ((n = 1; n <= $1; n++)); do
        before=("${@:2*n:2}")
        read -r bytes packets < <(carried "$n")
        rest=$(calc "($bytes - ${before[0]} - ($(payload "$n" | paste -sd+))) / $took / 1000")
        headers=$(calc "66 * ($packets - ${before[1]}) / $took / 1000")
        all+=("$rest $headers")
    done
    printf '%s\n' "${all[@]}" | awk '{ sum += $1; headers += $2; if ($1 > most) most = $1 }
        END { printf "%.0f kB/s (most %.0f), of which headers of TCP %.0f\n", sum / NR, most, headers / NR }'
}

together() {
    local n m line before both
    serve "$mib"
    measure_alone
    for n in "${sizes[@]}"; do
        scene="$n start together"
        machines "$n"
        wan "$wan_rate"
        forget
        line=$(line_sent)
        before=()
        for ((m = 1; m <= n; m++)); do read -r -a both < <(carried "$m") && before+=("${both[@]}"); done
        start "$hub" "${everyone[@]}"
        finish "${everyone[@]}"
        judge "$(calc "($(line_sent) - $line) / $size")" '<=' 1.05 "$scene: from the Hub / size" \
            "the Hub counts $(calc "$(hub_sent) / $size"), asked: $(questions)"
        judge "$(calc "$took / $alone")" '<=' 1.15 "$scene: time / alone" "$took s"
        note "$scene: each hears and says" '' '' '' "$(hears "$n" "${before[@]}")"
    done
}
questions() {
    hub_told '.seen | map(select(.route != "data")) | group_by(.route)
        | map("\(.[0].route) \(length)") | join(", ")'
}

killed() {
    local n victim line
    serve "$mib"
    measure_alone
    for n in "${sizes[@]}"; do
        scene="$n, one killed"
        machines "$n"
        wan "$wan_rate"
        forget
        line=$(line_sent)
        start "$hub" "${everyone[@]}"
        at_second "$(calc "$alone / 2")"
        victim=$(greediest)
        kill -KILL "${pids[$victim]}"
        unset "everyone[victim - 1]"
        finish "${everyone[@]}"
        judge "$(calc "($(line_sent) - $line) / $size")" '<=' 1.10 "$scene: from the Hub / size" \
            "the Hub counts $(calc "$(hub_sent) / $size"); machine $victim died"
        judge "$(calc "$took / $alone")" '<=' 1.3 "$scene: time / alone" "$took s"
    done
}

seeder() {
    local n one
    serve "$mib"
    for n in 1 8; do
        scene="one seeder at 80 Mbit/s, $n"
        machines $((n + 1))
        fill 1
        pair $((n + 1))
        cable 1 80mbit
        start '' "${everyone[@]:1}"
        finish "${everyone[@]:1}"
        ((n > 1)) || one=$took
    done
    judge "$(calc "$took / $one")" '<=' 1.3 "one seeder at 80 Mbit/s: T(8) / T(1)" "$took s and $one s"
}

# two_peers SCENE RATE RATE : a third machine begins to take from two with these cables.
two_peers() {
    scene=$1
    machines 3
    fill 1 2
    pair 3
    cable 1 "$2"
    cable 2 "$3"
    start '' 3
}
# The ideal times: what was left at half time, over what the rest of the lines gave when nothing was wrong.
stalls() {
    local clean
    serve "$mib"
    two_peers "two peers at 100 Mbit/s" 100mbit 100mbit
    finish 3
    clean=$took
    note "$scene" "$clean s" '' '' "$(calc "$size * 8 / $clean / 1e6") Mbit/s of payload"
    two_peers "one of them freezes at half time" 100mbit 100mbit
    at_second "$(calc "$clean / 2")"
    kill -STOP "${pids[1]}"
    finish 3
    judge "$(calc "$took / (1.5 * $clean)")" '<=' 1.2 "$scene: time / what the other can give" "$took s"
    two_peers "one of them gets 90 % slower at half time" 100mbit 100mbit
    at_second "$(calc "$clean / 2")"
    cable 1 10mbit
    finish 3
    judge "$(calc "$took / ((0.5 + 0.5 * 2 / 1.1) * $clean)")" '<=' 1.2 "$scene: time / what they give" "$took s"
    two_peers "peers at 250 and 25 Mbit/s" 250mbit 25mbit
    finish 3
    clean=$took
    note "$scene" "$clean s" '' '' "$(calc "$size * 8 / $clean / 1e6") Mbit/s of payload"
    two_peers "the fast one freezes at half time" 250mbit 25mbit
    at_second "$(calc "$clean / 2")"
    kill -STOP "${pids[1]}"
    finish 3
    judge "$(calc "$took / ((0.5 + 0.5 * 1.1 / 0.1) * $clean)")" '<=' 1.2 "$scene: time / what the other can give" "$took s"
}

# offer MACHINE : its copy of the file over plain http, as others' measure.
offer() {
    local home=$work/$1
    mkdir "$home/www"
    ln -s "$(on "$1" '' model ls --repo_id org/model --file model.safetensors)" "$home/www/file"
    cat >"$home/nginx.conf" <<CONF
user root;
worker_processes 1;
pid $home/nginx.pid;
error_log $home/nginx.log;
events {}
http {
    access_log off;
    sendfile on;
    server {
        listen 8080;
        root $home/www;
    }
}
CONF
    at "$1" nginx -c "$home/nginx.conf"
}
# fetch MACHINE URL SECONDS : bytes a second that curl gets, in so much time at the most.
fetch() { at "$1" curl -sL -m "$3" -o "$work/$1/copy" -w '%{speed_download}\n' "$2" || true; }

sources() {
    local n plain rate
    serve 512
    scene="three peers and the Hub"
    machines 4
    fill 1 2 3
    for n in 1 2 3; do
        offer "$n"
        cable "$n" 100mbit
    done
    wan 50mbit
    plain=$({
        for n in 1 2 3; do at 4 curl -s -m 5 -o /dev/null -w '%{speed_download}\n' "http://$(address "$n"):8080/file" & done
        at 4 curl -sL -m 5 -o /dev/null -w '%{speed_download}\n' "$hub/org/model/resolve/main/model.safetensors" &
        wait
    } | awk '{ sum += $1 } END { print sum * 8 / 1e6 }')
    forget
    start "$hub" 4
    finish 4
    rate=$(calc "$size * 8 / $took / 1e6")
    judge "$(calc "$rate / $plain")" '>=' 0.95 "$scene: throughput / sum of what they give" \
        "$rate of $plain Mbit/s; the Hub gave $(calc "100 * $(hub_sent) / $size") %"
}

wire() {
    local plain rate
    serve 1024
    scene="one to one at 1 Gbit/s"
    machines 2
    fill 1
    offer 1
    cable 1 1gbit
    plain=$(calc "$(fetch 2 "http://$(address 1):8080/file" 60) * 8 / 1e6")
    rm "$work/2/copy"
    forget
    start "$hub" 2
    finish 2
    rate=$(calc "$size * 8 / $took / 1e6")
    judge "$(calc "$rate / 1000")" '>=' 0.93 "$scene: payload / wire" \
        "$rate Mbit/s; curl from nginx $plain; the Hub gave $(hub_sent) bytes"
}

for row in "${rows[@]}"; do
    case $row in
        together) together ;;
        killed) killed ;;
        seeder) seeder ;;
        stalls) stalls ;;
        sources) sources ;;
        wire) wire ;;
    esac
done
retire

printf '\n%d MiB unless told otherwise, %d cores, load %s, %s\n\n' "$mib" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" \
    "$(git log -1 --format=%h 2>/dev/null || true)"
judge "$(calc "$most_memory / 1000")" '<=' 60 "largest daemon, MB" "${most_memory_in:-}"
printf '%s\n' "${table[@]}" | awk -F'|' '{ printf "%-62s %9s  %-8s %-7s %s\n", $1, $2, $3, $4, $5 }'
((wrong == 0))
