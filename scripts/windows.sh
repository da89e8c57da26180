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
    need ip=iproute2 nft=nftables
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
pids=()

clean_up() {
    local pid namespace
    for namespace in "$name"-{windows,one,two}; do
        for pid in $(ip netns pids "$namespace" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
    done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    [[ ! -d $WINEPREFIX ]] || wineserver -k 2>/dev/null || true
    for namespace in "$name"-{switch,hub,windows,one,two}; do ip netns del "$namespace" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT

build() {
    windows_cargo build --bin hffs
    random_numbers "$(dirname "$exe")"
    ls -l "$exe"
}

# ---- the library's own tests -------------------------------------------------------------------------

# Left out under Wine, NAME=REASON. Tests of what only Unix has are not in the program at all: the layout with links
# (Wine 8 makes none, and the layout without them has tests of its own), modes of files, the socket as a file.
left_out=(
    "a_file_takes_the_place_of_one_that_is_open=Wine 8 renames nothing over an open file, Windows 10 does"
    "a_damaged_file_is_replaced_while_it_is_read=the same"
    "a_long_ledger_is_shortened_and_says_the_same=the same"
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
row() { saw+=("$1|$2"); printf '  %-58s %s\n' "$1" "$2"; }
die() { echo "failed: $*" >&2; exit 1; }

address() { case $1 in hub) echo 10.97.0.1 ;; one) echo 10.97.0.11 ;; two) echo 10.97.0.12 ;; windows) echo 10.97.0.13 ;; esac; }
inside() { local machine=$1; shift; ip netns exec "$name-$machine" "$@"; }

network() {
    local machine
    ip netns add "$name-switch"
    ip -n "$name-switch" link add br0 type bridge
    ip -n "$name-switch" link set br0 up
    for machine in hub one two windows; do
        ip netns add "$name-$machine"
        ip -n "$name-$machine" link set lo up
        ip -n "$name-switch" link add "to-$machine" type veth peer name eth0 netns "$name-$machine"
        ip -n "$name-switch" link set "to-$machine" master br0 up
        ip -n "$name-$machine" addr add "$(address "$machine")/24" dev eth0
        ip -n "$name-$machine" link set eth0 up
        # Multicast goes where the cable is.
        ip -n "$name-$machine" route add 224.0.0.0/4 dev eth0
    done
    # A Hub has its files on a host of their own.
    ip -n "$name-hub" addr add 10.97.0.2/24 dev eth0
    # Wine's server opens the sockets of its programs, so it has to stand in the machine's network.
    mkdir "$WINEPREFIX"
    inside windows wineserver -p
    inside windows wine wineboot -i >/dev/null 2>&1
}

# on MACHINE ENDPOINT-OR-EMPTY COMMAND… : hffs in a clean environment.
on() {
    local machine=$1 endpoint=$2 program=("$hffs")
    shift 2
    local clean=(PATH="$PATH" HOME="$work/$machine" NO_COLOR=1)
    if [[ -n $endpoint ]]; then clean+=(HF_ENDPOINT="$endpoint" HF_HUB_OFFLINE=0); else clean+=(HF_HUB_OFFLINE=1); fi
    if [[ $machine == windows ]]; then
        # The work directory is where Windows has it by default.
        program=(wine "$exe")
        clean+=(WINEPREFIX="$WINEPREFIX" WINEARCH=win64 WINEDEBUG=-all)
    fi
    inside "$machine" env -i "${clean[@]}" "${program[@]}" "$@"
}
home_of() { if [[ $1 == windows ]]; then echo "$user/.cache/huggingface"; else echo "$work/$1/.cache/huggingface"; fi; }
forget() { on "$1" '' -q model rm org/model >/dev/null; }
file_of() { find "$(home_of "$1")/hub/models--org--model/snapshots" -name model.safetensors | head -1; }
sum_of() { sha256sum "$(file_of "$1")" | cut -d' ' -f1; }
number() { tr -d ' \n\r' | grep -o "\"$1\":\({[^}]*}\|[0-9]*\)" | grep -o ':[0-9]\+' | tr -d : | awk '{ sum += $1 } END { print sum + 0 }'; }
peer_id() { on "$1" '' --json daemon status | tr -d ' \n\r' | sed 's/.*"peer_id":"\([^"]*\)".*/\1/'; }
# sees MACHINE PEER_ID : whether a machine lists a peer as active.
sees() { on "$1" '' --json peer ls | tr -d ' \n\r' | tr '}' '\n' | grep "$2" | grep -q '"active":true'; }
# within SECONDS COMMAND… : waits until it goes well; prints the seconds that it took.
within() {
    local limit=$1 start=$EPOCHREALTIME
    shift
    until "$@" >/dev/null 2>&1; do
        (($(awk "BEGIN { print (${EPOCHREALTIME/,/.} - ${start/,/.} < $limit) }"))) || return 1
        sleep 0.2
    done
    awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/,/.} - ${start/,/.} }"
}
# brings MACHINE ENDPOINT-OR-EMPTY : adds the model there; sets `took`, in seconds, and `document`.
brings() {
    local start=$EPOCHREALTIME
    document=$(on "$1" "$2" --json model add org/model)
    took=$(awk "BEGIN { printf \"%.2f\", ${EPOCHREALTIME/,/.} - ${start/,/.} }")
}
rate() { awk "BEGIN { printf \"%.0f MiB/s\", $mib / $1 }"; }
start_hub() {
    : >"$work/hub$1.txt"
    inside hub env -i PATH="$PATH" "$test_hub" --ip "$(address hub)" --size "$mib" --seed "$1" >"$work/hub$1.txt" &
    hub_pid=$!
    pids+=("$hub_pid")
    until [[ $(wc -l <"$work/hub$1.txt") -ge 2 ]]; do kill -0 "$hub_pid"; sleep 0.1; done
    hub=$(sed -n 's/^hub //p' "$work/hub$1.txt")
}
same() { [[ $(sum_of "$1") == "$wanted" ]] || die "$1 has other bytes than $wanted"; }

discovery() {
    local first second machine other
    first=$(peer_id one)
    second=$(peer_id windows)
    row "found by mDNS, Linux sees Windows" "$(within 60 sees one "$second" || die "not found by mDNS") s"
    row "found by mDNS, Windows sees Linux" "$(within 60 sees windows "$first" || die "not found by mDNS") s"
    # What came from peers alone goes only to those that this machine's user paired with.
    for machine in one two windows; do
        for other in one two windows; do
            [[ $machine == "$other" ]] || on "$machine" '' -q peer add "$(address "$other")" >/dev/null
        done
    done
    row "peer add, each the others" "$(on windows '' --json peer ls | grep -o manual | wc -l) paired on Windows"
}

both_ways() {
    start_hub 1
    brings one "$hub"
    wanted=$(sum_of one)
    kill "$hub_pid" # From here on, only a peer has it.
    brings two ''
    same two
    linux=$took
    row "$mib MiB, Linux to Linux" "$took s, $(rate "$took")"
    brings windows ''
    same windows
    row "$mib MiB, Linux to Windows, sha256 right" "$took s, $(rate "$took"), $(ratio "$took") of Linux to Linux"
    # The other way round: only Windows has it.
    forget one
    forget two
    brings one ''
    same one
    row "$mib MiB, Windows to Linux, sha256 right" "$took s, $(rate "$took"), $(ratio "$took") of Linux to Linux"
    # Together: a third machine takes pieces from both.
    brings two ''
    same two
    row "$mib MiB, from Windows and Linux together" "$took s, $(peers_in <<<"$document") gave"
}
ratio() { awk "BEGIN { printf \"%.2f\", $linux / $1 }"; }
peers_in() { tr -d ' \n\r' | grep -o '"peer_bytes":{[^}]*}' | grep -o '"12D[^"]*":[1-9][0-9]*' | cut -d: -f1 | sort -u | wc -l; }

received() { inside windows cat /sys/class/net/eth0/statistics/rx_bytes; }
noted() { cat "$(home_of windows)"/hub/models--org--model/.hffs/*.journal 2>/dev/null | grep -c ^piece || true; }
begun() { (($(noted) > 0)); }

killed() {
    local before kept adding pid
    forget windows
    # As slow as a usual cable, so that there is a middle to be killed in.
    tc -n "$name-switch" qdisc replace dev to-windows root tbf rate 400mbit burst 256kb latency 50ms
    before=$(received)
    on windows '' -q model add org/model >/dev/null 2>&1 &
    adding=$!
    within 60 begun >/dev/null || die "nothing was noted"
    sleep "$(awk "BEGIN { print $mib / 100 }")"
    kept=$(noted)
    # Every program of that machine but Wine's own server ends in this moment.
    for pid in $(ip netns pids "$name-windows"); do
        [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") != *hffs.exe* ]] || kill -KILL "$pid" 2>/dev/null || true
    done
    wait "$adding" 2>/dev/null || true
    kept=$(noted)
    tc -n "$name-switch" qdisc del dev to-windows root
    on windows '' -q daemon start >/dev/null
    brings windows ''
    same windows
    local size=$((mib << 20)) resumed again
    resumed=$(number resumed_bytes <<<"$document")
    again=$(number peer_bytes <<<"$document")
    row "killed at $kept pieces, then added again" "$((resumed >> 20)) MiB resumed, $((again >> 20)) MiB fetched"
    row "received twice, with every packet's header" "$((($(received) - before - size) >> 20)) MiB"
}

walled() {
    local machine
    for machine in one two windows; do on "$machine" '' -q daemon stop; done
    forget windows
    forget two
    inside windows nft -f - <<'RULES'
add table inet wall
add chain inet wall in { type filter hook input priority 0; policy drop; }
add rule inet wall in iif lo accept
add rule inet wall in ct state established,related accept
RULES
    for machine in one two windows; do on "$machine" '' -q daemon start >/dev/null; done
    within 60 sees windows "$(peer_id one)" >/dev/null || die "Windows opened no connection"
    brings windows ''
    same windows
    row "Windows lets nobody in: takes by the connection it opened" "$took s, $(rate "$took")"
    # Now `one` has to take it back by the same connection; only Windows has the file.
    forget one
    within 60 sees one "$(peer_id windows)" >/dev/null || die "the connection was not kept"
    brings one ''
    same one
    row "Windows lets nobody in: gives by the connection it opened" "$took s, $(rate "$took")"
    inside windows nft delete table inet wall
}

# A name that nobody can look up shows that the proxy was asked.
proxied() {
    local settings='HKCU\Software\Microsoft\Windows\CurrentVersion\Internet Settings' at
    start_hub 2
    at=${hub#http://}
    inside windows wine reg add "$settings" /v ProxyEnable /t REG_DWORD /d 1 /f >/dev/null 2>&1
    inside windows wine reg add "$settings" /v ProxyServer /t REG_SZ /d "$at" /f >/dev/null 2>&1
    on windows http://hub.invalid -q model add org/small >/dev/null
    row "the system's proxy is used for the Hub" "a Hub that only the proxy knows answered"
    inside windows wine reg add "$settings" /v ProxyServer /t REG_SZ /d "$(address hub):1" /f >/dev/null 2>&1
    on windows '' -q model search org/model >/dev/null
    row "and never for peers" "with a dead proxy, peers answer"
    inside windows wine reg add "$settings" /v ProxyEnable /t REG_DWORD /d 0 /f >/dev/null 2>&1
    kill "$hub_pid"
}

lab() {
    local machine entry
    cargo build --locked --quiet --profile "$profile" --bin hffs --example test-hub
    local native=${CARGO_TARGET_DIR:-$PWD/target}/$folder
    hffs=$native/hffs
    test_hub=$native/examples/test-hub
    [[ -e $exe ]] || build
    printf '\n%s, %d MiB, %d cores, load %s\n\n' "$(wine --version)" "$mib" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    network
    mkdir -p "$work"/{one,two}
    for machine in one two windows; do on "$machine" '' -q daemon start >/dev/null; done
    row "the work directory" "$(on windows '' conf cache get | tr -d '\r')"
    discovery
    both_ways
    killed
    walled
    proxied
    row "stop" "$(on windows '' daemon stop 2>&1 | tr -d '\r')"
    printf '\n%-66s %s\n' "seen with $(wine --version)" ""
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
