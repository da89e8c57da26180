#!/usr/bin/env bash
# Files from one peer to another over a cable, against what people use today: curl from nginx, and scp; and against the
# least that an encrypted and verified copy costs: one TCP connection with ChaCha20-Poly1305 records and a sha256.
#
#   scripts/bench.sh [ROUNDS] [MIB] [GIB]  5 rounds of 1024 MiB by default; needs root. GIB: how much passes at the end
#                                          between two daemons that are not restarted, for their memory; 0 by default
#
# Two network namespaces and one veth pair. The tools take turns, so that a busy machine is busy for all of them; every
# file arrives as a new one; ours is the time until a verified file has its final name, from the start of the command.
# Medians count, and ratios more than figures. CPU seconds are user and system time of the processes on each side; the
# kernel's work for a virtual cable is charged to whoever it happens to interrupt.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source scripts/need.sh
source scripts/lab.sh
export PATH="$PATH:/usr/sbin:/sbin"

rounds=${1:-5}
mib=${2:-1024}
gib=${3:-0}
small_files=2000
listed_files=20000
((EUID == 0)) || { echo "skipped: needs root"; exit 0; }
need ip=iproute2 nginx=nginx-light curl=curl scp=openssh-client sshd=openssh-server openssl=openssl
cargo build --locked --quiet --release --bin hffs --example test-hub --example plain-tcp
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
# The most memory that a process has had so far, or has now, in MB.
peak() { awk '/^VmHWM/ { print $2 / 1000 }' "/proc/$1/status"; }
memory() { awk '/^VmRSS/ { print $2 / 1000 }' "/proc/$1/status"; }
# The pid in a file that a daemon writes when it is ready.
pid_in() {
    until [[ -s $1 ]]; do sleep 0.05; done
    cat "$1"
}

# ---- the giver: the file once in an hffs cache, and both servers over the same bytes ------------------

env -i PATH="$PATH" ip netns exec "$giver" "$target/examples/test-hub" --size "$mib" --many "$small_files" \
    >"$work/hub.txt" &
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
pid_of() { on "$1" '' --json daemon status | json_number pid; }

mkdir "$work/giver"
on giver "$hub" -q daemon start >/dev/null
on giver "$hub" -q model add org/model >/dev/null
on giver "$hub" -q model add org/many >/dev/null
on giver "$hub" -q daemon stop
kill "${pids[0]}" # From here on, nobody has the files but the giver.
source_file=$(on giver '' model ls --repo_id org/model --file model.safetensors)
# A new daemon, so that its peak of memory is that of giving.
on giver '' -q daemon start >/dev/null
giver_pid=$(pid_of giver)

mkdir "$work/www"
ln -s "$(readlink -f "$source_file")" "$work/www/file"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=10.99.0.1 -addext subjectAltName=IP:10.99.0.1 \
    -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null
cat >"$work/nginx.conf" <<CONF
user root;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    server {
        listen 10.99.0.1:8080;
        listen 10.99.0.1:8443 ssl;
        ssl_certificate $work/tls.crt;
        ssl_certificate_key $work/tls.key;
        root $work/www;
    }
}
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

ip netns exec "$giver" "$target/examples/plain-tcp" give 10.99.0.1:7000 "$source_file" &
plain_pid=$!
pids+=("$plain_pid")

# ---- one transfer each: prints wall seconds, CPU seconds of the giver, CPU seconds of the taker -------

# timed COMMAND… : wall and CPU seconds of a command in the foreground.
TIMEFORMAT='%R %U %S'
timed() { { time "$@" >/dev/null 2>"$work/talk.txt"; } 2>&1; }

fail() {
    echo "bench: $*" >&2
    exit 1
}
fresh_taker() {
    local tries
    rm -rf "$work/taker" && mkdir "$work/taker"
    on taker '' -q daemon start >/dev/null
    on taker '' -q peer add 10.99.0.1 >/dev/null
    # A peer may be added before it is reached; an add would then find nobody.
    for tries in {1..100}; do
        [[ $(on taker '' --json peer ls | tr -d ' \n') == *'"active":true'* ]] && break
        sleep 0.1
    done
    ((tries < 100)) || fail "the taker does not reach the giver: $(on taker '' peer ls)"
    taker_pid=$(pid_of taker)
}
# hffs_adds WHAT… : prints the three, and the taker's peak of memory.
hffs_adds() {
    local giver_before taker_before clock
    giver_before=$(cpu "$giver_pid")
    taker_before=$(cpu "$taker_pid")
    clock=$(timed on taker '' -q model add "$@") || fail "model add $*: $(cat "$work/talk.txt")"
    echo "$clock $giver_before $(cpu "$giver_pid") $taker_before $(cpu "$taker_pid") $(peak "$taker_pid")" |
        awk '{ print $1, $5 - $4, $7 - $6 + $2 + $3, $8 }'
}

with_hffs() {
    fresh_taker
    hffs_adds org/model model.safetensors
    cmp "$source_file" "$(on taker '' model ls --repo_id org/model --file model.safetensors)"
    on taker '' -q daemon stop
    rm -rf "$work/taker"
}

with_nginx() {
    local before clock
    before=$(cpu "${nginx_pids[@]}")
    clock=$(timed at_taker curl -sf --cacert "$work/tls.crt" -o "$work/copy" "$1")
    echo "$clock $before $(cpu "${nginx_pids[@]}")" | awk '{ print $1, $5 - $4, $2 + $3 }'
    cmp "$source_file" "$work/copy"
    rm "$work/copy"
}
with_curl() { with_nginx http://10.99.0.1:8080/file; }
with_https() { with_nginx https://10.99.0.1:8443/file; }

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

with_plain() {
    local before clock
    before=$(cpu "$plain_pid")
    clock=$(timed at_taker "$target/examples/plain-tcp" take 10.99.0.1:7000 "$work/copy")
    echo "$clock $before $(cpu "$plain_pid")" | awk '{ print $1, $5 - $4, $2 + $3 }'
    cmp "$source_file" "$work/copy"
    rm "$work/copy"
}

tools=(hffs scp https curl plain)
declare -A names=([hffs]=hffs [scp]=scp [https]="curl, https" [curl]="curl, http" [plain]="plain TCP")
for ((round = 1; round <= rounds; round++)); do
    for tool in "${tools[@]}"; do
        line=$("with_$tool")
        echo "$line" >>"$work/$tool.txt"
        printf 'round %d  %-5s %s\n' "$round" "$tool" "$line" >&2
    done
done
giver_peak=$(peak "$giver_pid")

# ---- many small files, an idle daemon, a long list ---------------------------------------------------

# The files of a repo of which hffs shows the paths: how many, and one digest over all their bytes.
sum_of() {
    on "$1" '' --json model ls --repo_id org/many | grep -o '"local_path": *"[^"]*"' | cut -d'"' -f4 | sort |
        tee "$work/paths.txt" | xargs cat | sha256sum | cut -d' ' -f1
    wc -l <"$work/paths.txt"
}
want=$(sum_of giver)
[[ $want == *$'\n'"$small_files" ]] || fail "the giver has not $small_files files: $want"
for ((round = 1; round <= rounds; round++)); do
    fresh_taker
    line=$(hffs_adds org/many)
    [[ $(sum_of taker) == "$want" ]] || fail "other files arrived than were there"
    echo "$line" >>"$work/small.txt"
    printf 'round %d  small %s\n' "$round" "$line" >&2
    on taker '' -q daemon stop
done

fresh_taker
sleep 2
idle_before=$(cpu "$taker_pid")
sleep 20
idle=$(echo "$idle_before $(cpu "$taker_pid")" | awk '{ print ($2 - $1) / 20 * 100 }')
idle_memory=$(memory "$taker_pid")
for ((passed = 0; passed < gib * 1024; passed += mib)); do
    on taker '' -q model add org/model model.safetensors >/dev/null
    on taker '' -q model rm org/model >/dev/null
done
long_peak="$(peak "$taker_pid") $(peak "$giver_pid")"
on taker '' -q daemon stop

# Ten repos whose files differ, as another tool would have left them.
for repo in {0..9}; do
    folder=$work/taker/hub/models--org--listed$repo
    commit=$(printf '%040x' "$repo")
    mkdir -p "$folder/blobs" "$folder/refs" "$folder/snapshots/$commit"
    printf %s "$commit" >"$folder/refs/main"
    (
        cd "$folder/blobs"
        seq -f "$(printf '%030x' "$repo")%010.0f" 1 $((listed_files / 10)) | xargs touch
        ln -sr -t "../snapshots/$commit" -- *
    )
done
for ((round = 1; round <= rounds; round++)); do
    timed on taker '' model ls >>"$work/ls.txt"
done

# ---- medians and ratios ------------------------------------------------------------------------------

column() { awk -v at="$2" '{ print $at }' "$work/$1.txt" | median "$3"; }
first() { cut -d' ' -f1; }

printf '\n%d MiB, medians of %d rounds, %d cores, load %s\n\n' "$mib" "$rounds" "$(nproc)" \
    "$(cut -d' ' -f1-3 /proc/loadavg)"
printf '%-14s %8s %8s %18s %18s %18s\n' "" seconds MiB/s "giver CPU-s/GiB" "taker CPU-s/GiB" "both CPU-s/GiB"
for tool in "${tools[@]}"; do
    both=$(awk '{ print $2 + $3 }' "$work/$tool.txt" | median %.4f | first)
    awk -v name="${names[$tool]}" -v wall="$(column "$tool" 1 %.4f | first)" -v give="$(column "$tool" 2 %.4f | first)" \
        -v take="$(column "$tool" 3 %.4f | first)" -v both="$both" -v mib="$mib" 'BEGIN {
            gib = mib / 1024
            printf "%-14s %8.2f %8.0f %18.2f %18.2f %18.2f\n", name, wall, mib / wall, give / gib, take / gib, both / gib }'
done
echo
for tool in "${tools[@]:1}"; do
    # A ratio per round first: the machine's mood is the same within one.
    printf 'hffs / %-12s %s times as fast\n' "${names[$tool]}" \
        "$(paste -d' ' "$work/hffs.txt" "$work/$tool.txt" | awk '{ print $5 / $1 }' | median %.2f)"
done
printf '\nboth CPU-s, hffs / plain TCP  %s\n' \
    "$(paste -d' ' "$work/hffs.txt" "$work/plain.txt" | awk '{ print ($2 + $3) / ($6 + $7) }' | median %.2f)"
printf '\npeak memory          taker %s MB, giver %.0f MB\n' "$(column hffs 4 %.0f)" "$giver_peak"
((gib == 0)) || printf 'after %d GiB more    taker %.0f MB, giver %.0f MB\n' "$gib" $long_peak
printf 'idle daemon          %.0f MB, %.2f %% of a core\n' "$idle_memory" "$idle"
printf '%d files of 10 KB  %s files a second\n' "$small_files" \
    "$(awk -v files="$small_files" '{ print files / $1 }' "$work/small.txt" | median %.0f)"
printf 'ls of %d files    %s ms\n' "$listed_files" "$(awk '{ print $1 * 1000 }' "$work/ls.txt" | median %.0f)"
