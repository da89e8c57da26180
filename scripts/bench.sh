#!/usr/bin/env bash
# A large file from one peer to another over a cable, against what people use today: curl from nginx, and scp.
#
#   scripts/bench.sh [ROUNDS] [MIB]        5 rounds of 1024 MiB by default; needs root
#
# Two network namespaces and one veth pair. The tools take turns, so that a busy machine is busy for all of them; every
# file arrives as a new one; ours is the time until a verified file has its final name. Medians count, and ratios more
# than figures. CPU seconds are user and system time of the processes on each side.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/need.sh
export PATH="$PATH:/usr/sbin:/sbin"

rounds=${1:-5}
mib=${2:-1024}
((EUID == 0)) || { echo "skipped: needs root"; exit 0; }
need ip=iproute2 nginx=nginx-light curl=curl scp=openssh-client sshd=openssh-server
cargo build --locked --quiet --release --bin hffs --example test-hub
target=${CARGO_TARGET_DIR:-$PWD/target}/release
hffs=$target/hffs

# In memory, where there is room for the source and one copy: disks would be measured otherwise.
room=$(df --output=avail -m /dev/shm 2>/dev/null | tail -1 || echo 0)
work=$(mktemp -d -p "$( ((room > 4 * mib)) && echo /dev/shm || echo "${TMPDIR:-/tmp}")" hffs-bench.XXXXXX)
giver=hffs-bench-$$-giver
taker=hffs-bench-$$-taker
pids=()

clean_up() {
    local home pid
    for home in "$work"/giver "$work"/taker; do
        HFFS_HOME=$home "$hffs" daemon stop >/dev/null 2>&1 || true
    done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    ip netns del "$giver" 2>/dev/null || true
    ip netns del "$taker" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

ip netns add "$giver"
ip netns add "$taker"
ip -n "$giver" link add eth0 type veth peer name eth0 netns "$taker"
ip -n "$giver" addr add 10.99.0.1/24 dev eth0
ip -n "$taker" addr add 10.99.0.2/24 dev eth0
for namespace in "$giver" "$taker"; do
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link set eth0 up
done
at_giver() { ip netns exec "$giver" "$@"; }
at_taker() { ip netns exec "$taker" "$@"; }

# CPU seconds of processes and of the children they have waited for. Command names hold no blanks here.
cpu() {
    local pid sum=0
    for pid in "$@"; do
        sum=$(awk -v sum="$sum" -v tick="$(getconf CLK_TCK)" \
            '{ print sum + ($14 + $15 + $16 + $17) / tick }' "/proc/$pid/stat" 2>/dev/null || echo "$sum")
    done
    echo "$sum"
}
# The pid in a file that a daemon writes when it is ready.
pid_in() {
    until [[ -s $1 ]]; do sleep 0.05; done
    cat "$1"
}

# ---- the giver: the file once in an hffs cache, and both servers over the same bytes ------------------

env -i PATH="$PATH" ip netns exec "$giver" "$target/examples/test-hub" --size "$mib" >"$work/hub.txt" &
pids+=($!)
until [[ $(wc -l <"$work/hub.txt") -ge 2 ]]; do sleep 0.1; done
hub=$(sed -n 's/^hub //p' "$work/hub.txt")

# on SIDE ENDPOINT-OR-EMPTY COMMAND… : hffs in a clean environment.
on() {
    local side=$1 endpoint=$2 namespace=$giver
    shift 2
    [[ $side == giver ]] || namespace=$taker
    local clean=(PATH="$PATH" HOME="$work" HFFS_HOME="$work/$side")
    if [[ -n $endpoint ]]; then clean+=(HF_ENDPOINT="$endpoint"); else clean+=(HF_HUB_OFFLINE=1); fi
    ip netns exec "$namespace" env -i "${clean[@]}" "$hffs" "$@"
}
json_number() { tr -d ' \n' | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }

mkdir "$work/giver"
on giver "$hub" -q daemon start
on giver "$hub" -q model add org/model >/dev/null
source_file=$(on giver "$hub" model ls --repo_id org/model --file model.safetensors)
giver_pid=$(on giver "$hub" --json daemon status | json_number pid)
kill "${pids[0]}" # From here on, nobody has the file but the giver.

mkdir "$work/www"
ln -s "$(readlink -f "$source_file")" "$work/www/file"
cat >"$work/nginx.conf" <<CONF
user root;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http { access_log off; sendfile on; tcp_nopush on; server { listen 10.99.0.1:8080; root $work/www; } }
CONF
at_giver nginx -c "$work/nginx.conf"
nginx_pid=$(pid_in "$work/nginx.pid")
pids+=("$nginx_pid")
nginx_pids=("$nginx_pid" $(pgrep -P "$nginx_pid"))

mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/user_key"
cp "$work/user_key.pub" "$work/authorized"
cat >"$work/sshd.conf" <<CONF
ListenAddress 10.99.0.1:2222
HostKey $work/host_key
AuthorizedKeysFile $work/authorized
PidFile $work/sshd.pid
StrictModes no
PermitRootLogin prohibit-password
UsePAM no
Subsystem sftp internal-sftp
CONF
at_giver "$(command -v sshd)" -f "$work/sshd.conf" -E "$work/sshd.log"
sshd_pid=$(pid_in "$work/sshd.pid")
pids+=("$sshd_pid")

# ---- one transfer each: prints wall seconds, CPU seconds of the giver, CPU seconds of the taker -------

# timed COMMAND… : wall and CPU seconds of a command in the foreground.
TIMEFORMAT='%R %U %S'
timed() { { time "$@" >/dev/null 2>"$work/talk.txt"; } 2>&1; }

with_hffs() {
    rm -rf "$work/taker" && mkdir "$work/taker"
    on taker '' -q daemon start
    on taker '' -q peer add 10.99.0.1 >/dev/null
    local taker_pid giver_before taker_before clock
    taker_pid=$(on taker '' --json daemon status | json_number pid)
    giver_before=$(cpu "$giver_pid")
    taker_before=$(cpu "$taker_pid")
    clock=$(timed on taker '' -q model add org/model model.safetensors)
    echo "$clock $giver_before $(cpu "$giver_pid") $taker_before $(cpu "$taker_pid")" |
        awk '{ print $1, $5 - $4, $7 - $6 + $2 + $3 }'
    cmp "$source_file" "$(on taker '' model ls --repo_id org/model --file model.safetensors)"
    on taker '' -q daemon stop
    rm -rf "$work/taker"
}

with_curl() {
    local before clock
    before=$(cpu "${nginx_pids[@]}")
    clock=$(timed at_taker curl -sf -o "$work/copy" http://10.99.0.1:8080/file)
    echo "$clock $before $(cpu "${nginx_pids[@]}")" | awk '{ print $1, $5 - $4, $2 + $3 }'
    cmp "$source_file" "$work/copy"
    rm "$work/copy"
}

with_scp() {
    local before clock
    before=$(cpu "$sshd_pid")
    clock=$(timed at_taker scp -q -i "$work/user_key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -P 2222 root@10.99.0.1:"$source_file" "$work/copy")
    # The server's share is known when it has waited for the process that served us.
    until [[ -z $(pgrep -P "$sshd_pid") ]]; do sleep 0.05; done
    echo "$clock $before $(cpu "$sshd_pid")" | awk '{ print $1, $5 - $4, $2 + $3 }'
    cmp "$source_file" "$work/copy"
    rm "$work/copy"
}

tools=(hffs curl scp)
for ((round = 1; round <= rounds; round++)); do
    for tool in "${tools[@]}"; do
        line=$("with_$tool")
        echo "$line" >>"$work/$tool.txt"
        printf 'round %d  %-5s %s\n' "$round" "$tool" "$line" >&2
    done
done

# ---- medians and ratios ------------------------------------------------------------------------------

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
column() { awk -v at="$2" '{ print $at }' "$work/$1.txt" | median; }

printf '\n%d MiB, median of %d rounds, load %s\n\n' "$mib" "$rounds" "$(cut -d' ' -f1-3 /proc/loadavg)"
printf '%-22s %8s %8s %22s %22s\n' "" seconds MiB/s "giver CPU-s/GiB" "taker CPU-s/GiB"
declare -A wall
for tool in "${tools[@]}"; do
    wall[$tool]=$(column "$tool" 1)
    awk -v name="$tool" -v wall="${wall[$tool]}" -v give="$(column "$tool" 2)" -v take="$(column "$tool" 3)" \
        -v mib="$mib" 'BEGIN {
            printf "%-22s %8.2f %8.0f %22.2f %22.2f\n", name, wall, mib / wall, give * 1024 / mib, take * 1024 / mib }'
done
echo
for tool in curl scp; do
    # A ratio per round first: the machine's mood is the same within one.
    ratio=$(paste "$work/hffs.txt" "$work/$tool.txt" | awk '{ print $4 / $1 }' | median)
    printf 'hffs is %.2f times as fast as %s\n' "$ratio" "$tool"
done
