#!/usr/bin/env bash
# What a lab draws from the Hub, and how long it takes, by how many machines bring one file at once: simulated, in seconds.
#
#   scripts/curves.sh [SEEDS]      then tries up to 64 machines and so many random labs, with joins, deaths, stalls and
#                                  lies; 2000 by default
#
# The plans are the real ones; lines, faults and time are made up (src/plan/lab.rs). scripts/swarm.sh measures real ones.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { cargo test --locked --quiet --profile "${PROFILE:-release}" --lib -- --nocapture --quiet "$@" | grep -v '^$'; }
run --ignored plan::lab::curves
SEEDS=${1:-2000} run plan::lab
