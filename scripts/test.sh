#!/usr/bin/env bash
# Everything that must hold before a change lands. The lab needs root; without it, it says that it was skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/need.sh

export PATH="$PATH:/usr/sbin:/sbin"
say() { printf '\n== %s\n' "$*"; }

# Without these, the tests that need them say so; on CI they then fail.
need ip=iproute2 nft=nftables curl=curl python3=python3 || true
# A Python from elsewhere brings its own; Debian's comes without.
python3 -c 'import venv, ensurepip' 2>/dev/null || need ensurepip=python3-venv || true

say format
cargo fmt --check
say clippy
cargo clippy --locked --all-targets --quiet -- -D warnings
say documentation
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
say tests
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --locked
else
    cargo test --locked --no-fail-fast
fi
