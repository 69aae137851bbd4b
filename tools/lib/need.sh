# Shared by the scripts of this folder: finds what is missing and installs it.

say() { printf '\n== %s\n' "$*"; }

# need_packages COMMAND=PACKAGE ...: installs the Debian package of each command that is absent.
need_packages() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "missing: ${missing[*]}; install them (this needs root, and there is no sudo)" >&2
            return 1
        }
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null 2>&1 || {
        echo "missing: ${missing[*]}; there is no apt-get here, install them by hand" >&2
        return 1
    }
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# What a build needs: a linker, and make for the runtime's bundled liburing.
need_build_tools() {
    command -v cargo >/dev/null 2>&1 || {
        echo "missing: a Rust toolchain (1.88 or later); https://rustup.rs installs one" >&2
        return 1
    }
    need_packages cc=build-essential make=build-essential
}

# What the tests and the comparisons need besides: Python for the client written from the
# protocol's page, protoc for the client library with which etcd is driven.
need_test_tools() {
    need_build_tools && need_packages python3=python3 protoc=protobuf-compiler
}
