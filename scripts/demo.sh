#!/usr/bin/env bash
# The main job on one machine: three daemons, a model from the Hub to the first and from there to the others.
#
#   scripts/demo.sh            with a Hub of its own and a small made-up model: no internet, no root
#   scripts/demo.sh REPO_ID    with the real Hub (or what HF_ENDPOINT names)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 ]] || say() { printf '\n== %s\n' "$*"; }

cargo build --locked --quiet --bin hffs --example test-hub
hffs=$PWD/target/debug/hffs
[[ -z ${CARGO_TARGET_DIR:-} ]] || hffs=$CARGO_TARGET_DIR/debug/hffs
lab=$(mktemp -d)
hub_pid=

clean_up() {
    local home
    for home in "$lab"/*/; do
        HFFS_HOME=$home "$hffs" daemon stop >/dev/null 2>&1 || true
    done
    [[ -z $hub_pid ]] || kill "$hub_pid" 2>/dev/null || true
    rm -rf "$lab"
}
trap clean_up EXIT

# on NAME COMMAND… : runs hffs with the work directory of that machine.
on() {
    local machine=$1
    shift
    HFFS_HOME=$lab/$machine "$hffs" "$@"
}

# The numbers that follow a key in a JSON document, added up.
total() {
    tr -d ' \n' | grep -o "\"$1\":\({[^}]*}\|[0-9]*\)" | grep -o ':[0-9]\+' | tr -d : | awk '{ sum += $1 } END { print sum + 0 }'
}

repo=${1:-org/model}
if (($# == 0)); then
    say "A Hub with the made-up model $repo"
    unset HF_TOKEN HF_TOKEN_PATH HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HTTP_PROXY HTTPS_PROXY ALL_PROXY \
        http_proxy https_proxy all_proxy
    "$(dirname "$hffs")/examples/test-hub" --size 64 >"$lab/hub.txt" &
    hub_pid=$!
    until [[ $(wc -l <"$lab/hub.txt") -ge 2 ]]; do
        kill -0 "$hub_pid"
        sleep 0.1
    done
    HF_ENDPOINT=$(sed -n 's/^hub //p' "$lab/hub.txt")
    export HF_ENDPOINT
    echo "$HF_ENDPOINT"
fi

say "Three machines, each with its own daemon"
machines=(first second third)
for machine in "${machines[@]}"; do
    mkdir "$lab/$machine"
    on "$machine" daemon start
done
# They would find each other by themselves where multicast works; saying where the first one is works everywhere.
port=$(on first --json daemon status | tr -d ' \n' | sed 's/.*"listen":\["[^"]*:\([0-9]*\)".*/\1/')
for machine in second third; do
    on "$machine" peer add 127.0.0.1 --port "$port"
done
echo "\$ hffs peer ls          # on the first"
on first peer ls

for machine in "${machines[@]}"; do
    say "hffs model add $repo     # on the $machine"
    started=$EPOCHREALTIME
    document=$(on "$machine" --json model add "$repo")
    took=$(awk "BEGIN { print ${EPOCHREALTIME/,/.} - ${started/,/.} }")
    printf 'from the Hub %s bytes, from peers %s bytes, in %.1f s\n' \
        "$(total hub_bytes <<<"$document")" "$(total peer_bytes <<<"$document")" "$took"
done

say "hffs model search $repo     # on the third"
on third model search "$repo"
say "hffs model ls               # on the third"
on third model ls
say "hffs model ls --repo_id $repo"
on third model ls --repo_id "$repo"

say "Where transformers finds it: HF_HOME=$lab/third"
find "$lab/third/hub" -path '*/snapshots/*' \( -type l -o -type f \)
