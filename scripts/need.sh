# Sourced by the other scripts: installs what is missing, and only that.

# need COMMAND=PACKAGE… : every command is there afterwards, or a message says which package brings it.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)) || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}" >&2
        return 1
    fi
    # A new machine has no package lists, and an old one has stale ones.
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}
