#!/usr/bin/env bash
# hffs.exe, built and tried on a machine without Windows: mingw links it, Wine runs it.
#
#   scripts/windows.sh [build|unit|lab|all] [MIB]      all, with a file of 1024 MiB; needs Debian 12 and root
#
# build  target/windows/x86_64-pc-windows-gnu/PROFILE/hffs.exe
# unit   the library's own tests under Wine; what is left out is listed below, each with its reason
# lab    Linux machines and a Windows machine on one switch, in network namespaces
#
# PROFILE=dev is built sooner and is slower; `release` is the default. What Wine cannot show: a real firewall, virus
# scanners, logging off, NTFS, users who may make symlinks, and other users at the pipe.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/need.sh
source scripts/lab.sh
export PATH="$PATH:/usr/sbin:/sbin"

what=${1:-all}
mib=${2:-1024}
profile=${PROFILE:-release}
triple=x86_64-pc-windows-gnu
folder=$([[ $profile == dev ]] && echo debug || echo "$profile")
target=$PWD/target/windows
exe=$target/$triple/$folder/hffs.exe

((EUID == 0)) || { echo "skipped: needs root"; exit 0; }

# ---- the recipe --------------------------------------------------------------------------------------

# Debian's compiler comes with the sources of the standard library, which is built along: rustup's standard library for
# Windows is not needed. The compiler lies where Debian puts it, because another one may come first in PATH.
recipe() {
    local package missing=()
    for package in rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64 wine wine64; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if ((${#missing[@]})); then
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    need ip=iproute2 tc=iproute2 nft=nftables jq=jq curl=curl
}

windows_cargo() {
    local command=$1
    shift
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target /usr/bin/cargo "$command" --locked \
        --profile "$profile" --target "$triple" -Zbuild-std=std,test,panic_abort,panic_unwind "$@"
}

# Wine 8 lacks the library that Rust's standard library takes random numbers from.
random_numbers() {
    [[ ! -e $1/bcryptprimitives.dll ]] || return 0
    x86_64-w64-mingw32-gcc -shared -O2 -s -o "$1/bcryptprimitives.dll" -x c - -ladvapi32 <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID bytes, ULONG count);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
    for (ULONG step; count; bytes += step, count -= step) {
        step = count < 0x10000000 ? (ULONG)count : 0x10000000;
        if (!SystemFunction036(bytes, step)) return FALSE;
    }
    return TRUE;
}
C
}

work=$(mktemp -d "${TMPDIR:-/tmp}/hffs-windows.XXXXXX")
export WINEPREFIX=$work/wine WINEARCH=win64 WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml=
user=$WINEPREFIX/drive_c/users/$(id -un)
name=hffs-win-$$
machines=(one two windows)

clean_up() {
    [[ ! -d $WINEPREFIX ]] || wineserver -k 2>/dev/null || true
    end_lab "$name"-{switch,hub,one,two,windows}
    rm -rf "$work"
}
trap clean_up EXIT

build() {
    windows_cargo build --bin hffs --example plain-tcp
    random_numbers "$(dirname "$exe")"
    random_numbers "$(dirname "$exe")/examples"
    ls -l "$exe"
}

# ---- the library's own tests -------------------------------------------------------------------------

# Left out under Wine, NAME=REASON. Tests of what only Unix has are not in the program at all: the layout with links
# (Wine 8 makes none, and the layout without them has tests of its own), modes of files, the socket as a file.
left_out=(
    "a_file_takes_the_place_of_one_that_is_open=Wine 8 renames nothing over an open file, Windows 10 does"
    "a_damaged_file_is_replaced_while_it_is_read=the same"
    "a_long_ledger_is_shortened_and_says_the_same=the same"
    "a_line_that_another_process_adds_meanwhile_outlives_the_shortening=the same"
)

unit() {
    local tests skip=() entry
    tests=$(windows_cargo test --lib --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\.exe\)".*/\1/p' | tail -1)
    random_numbers "$(dirname "$tests")"
    for entry in "${left_out[@]}"; do
        skip+=(--skip "${entry%%=*}")
        echo "left out: ${entry%%=*}: ${entry#*=}"
    done
    wine "$tests" --test-threads=4 "${skip[@]}"
}

# ---- the lab -----------------------------------------------------------------------------------------

saw=()
row() { saw+=("$1|$2") && printf '  %-62s %s\n' "$1" "$2"; }
die() { echo "failed: $*" >&2 && exit 1; }

address() { case $1 in hub) echo 10.97.0.1 ;; one) echo 10.97.0.11 ;; two) echo 10.97.0.12 ;; windows) echo 10.97.0.13 ;; esac; }
inside() { ip netns exec "$name-$1" "${@:2}"; }

network() {
    local machine
    begin_lab "$name"-{switch,hub,one,two,windows}
    for machine in hub "${machines[@]}"; do
        plug "$name-$machine" eth0 "to-$machine"
        ip -n "$name-$machine" addr add "$(address "$machine")/24" dev eth0
        # Multicast goes where the cable is.
        ip -n "$name-$machine" route add 224.0.0.0/4 dev eth0
    done
    # A Hub has its files on a host of their own.
    ip -n "$name-hub" addr add 10.97.0.2/24 dev eth0
    # Wine's server opens the sockets of its programs, so it has to stand in the machine's network.
    mkdir "$WINEPREFIX"
    inside windows wineserver -p 2>/dev/null
    inside windows wine wineboot -i >/dev/null 2>&1
}

# on MACHINE ENDPOINT-OR-EMPTY COMMAND… : hffs in a clean environment.
on() {
    local program=("$hffs") clean=(PATH="$PATH" HOME="$work/$1" NO_COLOR=1)
    if [[ -n $2 ]]; then clean+=(HF_ENDPOINT="$2" HF_HUB_OFFLINE=0); else clean+=(HF_HUB_OFFLINE=1); fi
    if [[ $1 == windows ]]; then
        # The work directory is where Windows has it by default.
        program=(wine "$exe")
        clean+=(WINEPREFIX="$WINEPREFIX" WINEARCH=win64 WINEDEBUG=-all)
    fi
    inside "$1" env -i "${clean[@]}" timeout 900 "${program[@]}" "${@:3}"
}
asked() { on "$1" '' --json "${@:2}" 2>/dev/null; }
home_of() { if [[ $1 == windows ]]; then echo "$user/.cache/huggingface"; else echo "$work/$1/.cache/huggingface"; fi; }
repo_of() { echo "$(home_of "$1")/hub/models--org--model"; }
forget() { on "$1" '' -q model rm org/model >/dev/null; }
serves() { start_hub "$test_hub" "$name-hub" --ip "$(address hub)" --seed "$1" --size "$2"; }
peer_id() { asked "$1" daemon status | jq -r .peer_id; }
# sees MACHINE PEER_ID : whether a machine lists a peer as active.
sees() { asked "$1" peer ls | jq -e --arg id "$2" 'any(.[]; .peer_id == $id and .active)'; }
# within SECONDS COMMAND… : waits until it goes well; sets `waited`, in seconds.
within() {
    local begun=$EPOCHREALTIME
    until "${@:2}" >/dev/null 2>&1; do
        (($(calc "$EPOCHREALTIME - $begun < $1" | cut -d. -f1))) || die "not within $1 s: ${*:2}"
        sleep 0.2
    done
    waited=$(calc "$EPOCHREALTIME - $begun")
}
# brings MACHINE ENDPOINT-OR-EMPTY : adds the model there, and compares it; sets `took`, in seconds, as the daemon counts
# them until the file has its name: Wine needs half a second more to start any command.
brings() {
    local path
    on "$1" "$2" -q --json model add org/model >"$work/$1.json"
    took=$(told "$1" .seconds)
    path=$(find "$(repo_of "$1")/snapshots" -name model.safetensors | head -1)
    [[ $(sha256sum <"$path" | cut -d' ' -f1) == "$sum" ]] || die "$1 HAS WRONG BYTES"
}
# told MACHINE FILTER : of the large file, in what its last add told.
told() { jq ".files[] | select(.path == \"model.safetensors\") | $2" "$work/$1.json"; }
speed() {
    printf '%.1f s, %.0f MiB/s' "$took" "$(calc "$mib / $took")"
    printf ', %.2f of Linux to Linux' "$(calc "$linux / $took")"
}

# Whoever reads what the command prints to its end must not wait for the daemon that it started. (Wine itself passes
# stderr on to all that it starts.)
begin_all() {
    local machine said
    for machine in "${machines[@]}"; do
        mkdir -p "$work/$machine"
        said=$(on "$machine" '' daemon start 2>"$work/talk.txt") || die "$said $(cat "$work/talk.txt")"
    done
    row "started in the background by a command that has ended" "pid $(asked windows daemon status | jq .pid) answers"
    row "the work directory" "$(on windows '' conf cache get | tr -d '\r')"
}

discovery() {
    local machine other
    within 60 sees one "$(peer_id windows)"
    row "found by mDNS, Linux sees Windows" "$waited s"
    within 60 sees windows "$(peer_id one)"
    row "found by mDNS, Windows sees Linux" "$waited s"
    # What came from peers alone goes only to those that this machine's user paired with.
    for machine in "${machines[@]}"; do
        for other in "${machines[@]}"; do
            [[ $machine == "$other" ]] || on "$machine" '' -q peer add "$(address "$other")" >/dev/null
        done
    done
    row "peer add, each the others" "$(asked windows peer ls | jq '[.[] | select(.via | index("manual"))] | length') paired on Windows"
}

listens() { [[ -n $(inside "$1" ss -ltnH "sport = :$2") ]]; }
# plain MACHINE : what one connection, encryption and a hash cost there with nothing around them; sets `took`.
plain() {
    local take=("$native/examples/plain-tcp") begun=$EPOCHREALTIME
    [[ $1 != windows ]] || take=(wine "${exe%/*}/examples/plain-tcp.exe")
    [[ $(inside "$1" "${take[@]}" take "$(address one):7000" "$work/copy" | tr -d '\r') == "$sum" ]] || die "$1 HAS WRONG BYTES"
    took=$(calc "$EPOCHREALTIME - $begun")
    rm "$work/copy"
}

# clocked WAY COMMAND… : notes how long it took.
clocked() {
    "${@:2}"
    echo "$took" >>"$work/$1.txt"
}

# In turns, and medians count: a disk, and memory that nobody has used yet, are slow at times. The first turn, which is
# for them, does not count.
both_ways() {
    local turn way giver file
    local -A ways=([plain-linux]="plain TCP, Linux to Linux" [plain-windows]="plain TCP, Linux to Windows"
        [linux]="Linux to Linux" [in]="Linux to Windows" [out]="Windows to Linux")
    serves 1 "$mib"
    brings one "$hub"
    kill "$hub_pid" # From here on, only a peer has it.
    file=$(find "$(repo_of one)/snapshots" -name model.safetensors | head -1)
    ip netns exec "$name-one" "$native/examples/plain-tcp" give "$(address one):7000" "$file" &
    giver=$!
    disown "$giver"
    within 10 listens one 7000
    for turn in 0 1 2 3 4 5; do
        clocked plain-linux plain two
        clocked plain-windows plain windows
        clocked linux brings two ''
        forget two
        clocked in brings windows ''
        # The other way round: only Windows has it.
        forget one
        clocked out brings one ''
        ((turn)) || rm "$work"/{plain-linux,plain-windows,linux,in,out}.txt
        ((turn == 5)) || forget windows
    done
    kill "$giver"
    for way in plain-linux plain-windows linux in out; do
        row "$mib MiB, ${ways[$way]}, MiB/s" "$(awk -v mib="$mib" '{ print mib / $1 }' "$work/$way.txt" | median %.0f)"
    done
    for way in in out; do
        row "${ways[$way]} / Linux to Linux in the same turn" "$(paste "$work"/{linux,$way}.txt | awk '{ print $1 / $2 }' | median %.2f)"
    done
    linux=$(median %.3f <"$work/linux.txt" | cut -d' ' -f1)
    brings two ''
    row "$mib MiB, from Windows and Linux in pieces" "$(told two '.peer_bytes | map(. / 1048576 | floor) | join(" and ")' | tr -d '"') MiB"
}

received() { inside windows cat /sys/class/net/eth0/statistics/rx_bytes; }
# came BYTES SINCE
came() { (($(received) - $2 > $1)); }
noted() { cat "$(repo_of windows)"/.hffs/*.journal 2>/dev/null | grep -c ^piece || true; }

killed() {
    local before at_kill pid pieces
    forget windows
    # As slow as a usual cable, so that there is a middle to be killed in.
    limit "$switch" to-windows 400mbit
    before=$(received)
    on windows '' -q model add org/model >/dev/null 2>&1 &
    within 60 came $((mib << 20 >> 1)) "$before"
    # Every program of that machine but Wine's own server ends in this moment.
    for pid in $(ip netns pids "$name-windows"); do
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") != *hffs.exe* ]] || kill -KILL "$pid" 2>/dev/null || true
    done
    wait $! 2>/dev/null || true
    at_kill=$(received)
    pieces=$(noted)
    limit "$switch" to-windows ''
    on windows '' -q daemon start >/dev/null
    brings windows ''
    row "killed after $(((at_kill - before) >> 20)) MiB had come, $pieces pieces of them whole" \
        "$(($(told windows .resumed_bytes) >> 20)) MiB resumed, $(($(told windows '.peer_bytes | add // 0') >> 20)) MiB fetched then"
    row "came twice, packet headers and all" "$((($(received) - before - (mib << 20)) >> 20)) MiB"
}

# The Hub's line is thin, and all want the same at once.
together() {
    local machine before begun jobs=() size=192 rate=60
    for machine in "${machines[@]}"; do forget "$machine"; done
    serves 3 "$size"
    # What the Hub has handed to its network should have crossed it.
    inside hub sh -c 'echo 4096 65536 131072 >/proc/sys/net/ipv4/tcp_wmem'
    limit "$name-hub" eth0 "${rate}mbit"
    limit "$switch" to-hub "${rate}mbit"
    before=$(sent "$name-hub" eth0)
    begun=$EPOCHREALTIME
    for machine in windows one two; do
        brings "$machine" "$hub" &
        jobs+=($!)
    done
    for machine in "${jobs[@]}"; do wait "$machine"; done
    took=$(calc "$EPOCHREALTIME - $begun")
    row "$size MiB at once on all three, $rate Mbit/s to the Hub" \
        "$(calc "($(sent "$name-hub" eth0) - $before) / $((size << 20))") times its size from the Hub, $took s"
    for machine in "${machines[@]}"; do
        row "  of which $machine" "$(($(told "$machine" .hub_bytes) >> 20)) MiB from the Hub, $(($(told "$machine" '.peer_bytes | add // 0') >> 20)) MiB from the others"
    done
}

# What Windows has is now as Python left it there: files in snapshots, refs, and no word about what they are. The Hub's
# line is still thin.
from_python() {
    on windows '' -q daemon stop
    rm -r "$(repo_of windows)"/{trees,.hffs} "$(home_of windows)/hffs/ledger.jsonl"
    on windows '' -q daemon start >/dev/null
    forget one
    forget two
    within 60 sees one "$(peer_id windows)"
    brings one "$hub"
    row "what Python downloaded without links is found and shared" \
        "$(($(told one '.peer_bytes | add // 0') >> 20)) MiB from Windows, $(($(told one .hub_bytes) >> 20)) MiB from the Hub"
    limit "$name-hub" eth0 ''
    limit "$switch" to-hub ''
}

walled() {
    local machine
    serves 1 "$mib"
    forget one
    forget windows
    for machine in "${machines[@]}"; do on "$machine" '' -q daemon stop; done
    inside windows nft -f - <<'RULES'
add table inet wall
add chain inet wall in { type filter hook input priority 0; policy drop; }
add rule inet wall in iif lo accept
add rule inet wall in ct state established,related accept
RULES
    for machine in "${machines[@]}"; do on "$machine" '' -q daemon start >/dev/null; done
    brings one "$hub"
    kill "$hub_pid"
    within 60 sees windows "$(peer_id one)"
    brings windows ''
    row "Windows lets nobody in: takes by the connection it opened" "$(speed)"
    # Now `one` has to take it back by the same connection; only Windows has the file.
    forget one
    within 60 sees one "$(peer_id windows)"
    brings one ''
    row "Windows lets nobody in: gives by the connection it opened" "$(speed)"
    inside windows nft delete table inet wall
}

# Six files, one of them below sixty folders, and a seventh with a name that is a device on Windows.
oddly_named() {
    serves 2 1
    on one "$hub" -q model add org/odd >"$work/one.txt" 2>/dev/null
    on windows "$hub" model add org/odd >"$work/windows.txt" 2>"$work/talk.txt"
    row "a repo with names that Windows cannot have" \
        "$(wc -l <"$work/one.txt") files on Linux, $(wc -l <"$work/windows.txt") on Windows, $(grep -c 'left out' "$work/talk.txt") told to be left out"
    ! on windows "$hub" -q model add org/odd notes.md >/dev/null 2>"$work/talk.txt" || die "Windows has two files under one name"
    row "and one of them, when it is named" "refused: they $(grep -o 'are one name.*' "$work/talk.txt" | tr -d '\r')"
}

# setting NAME TYPE VALUE : one of the Internet settings of Windows.
setting() {
    inside windows wine reg add 'HKCU\Software\Microsoft\Windows\CurrentVersion\Internet Settings' \
        /v "$1" /t "$2" /d "$3" /f >/dev/null 2>&1
}
# A name that nobody can look up shows that the proxy was asked.
proxied() {
    serves 2 1
    setting ProxyEnable REG_DWORD 1
    setting ProxyServer REG_SZ "${hub#http://}"
    on windows http://hub.invalid -q model add org/small >/dev/null
    row "the system's proxy is used for the Hub" "a Hub that only the proxy knows answered"
    setting ProxyServer REG_SZ "$(address hub):1"
    [[ -n $(on windows '' model search org/model) ]] || die "no peer answered"
    row "and never for peers" "with a dead proxy, peers answer"
    setting ProxyEnable REG_DWORD 0
}

# In the foreground there is a console, and Ctrl-C in it.
interrupted() {
    local pid status=0
    on windows '' -q daemon stop
    within 10 not asked windows daemon status
    row "stop" "ended in $waited s"
    on windows '' daemon start --foreground >"$work/foreground.txt" 2>&1 &
    within 60 asked windows daemon status
    for pid in $(ip netns pids "$name-windows"); do
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") != *foreground* ]] || kill -INT "$pid" 2>/dev/null || true
    done
    wait $! || status=$?
    row "Ctrl-C in the foreground" "exit code $status"
}
not() { ! "$@"; }

lab() {
    local entry native=${CARGO_TARGET_DIR:-$PWD/target}/$folder
    cargo build --locked --quiet --profile "$profile" --bin hffs --example test-hub --example plain-tcp
    hffs=$native/hffs
    test_hub=$native/examples/test-hub
    [[ -e $exe && -e ${exe%/*}/examples/plain-tcp.exe ]] || build
    printf '\n%s, %d MiB, %d cores, load %s\n\n' "$(wine --version)" "$mib" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    network
    begin_all
    discovery
    both_ways
    killed
    together
    from_python
    walled
    oddly_named
    proxied
    interrupted
    printf '\nseen with %s, load %s\n' "$(wine --version)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    for entry in "${saw[@]}"; do printf '%-66s %s\n' "${entry%%|*}" "${entry#*|}"; done
}

recipe
case $what in
    build) build ;;
    unit) unit ;;
    lab) lab ;;
    all) build && unit && lab ;;
    *) echo "usage: scripts/windows.sh [build|unit|lab|all] [MIB]" >&2; exit 2 ;;
esac
