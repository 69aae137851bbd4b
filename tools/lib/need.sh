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

# go_program NAME VERSION PACKAGE MODULE: builds a program of etcd's into build/bin.
# `go install` refuses these packages (their modules replace others), so each gets a module of
# its own that requires it.
go_program() {
    local name=$1 version=$2 package=$3 module=$4
    local work=build/peers/$name stamp="$package@$version"
    if [ -x "build/bin/$name" ] && [ "$(cat "$work/built" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "building $stamp" >&2
    mkdir -p build/bin "$work"
    printf 'module peers/%s\n\ngo 1.24\n\nrequire %s %s\n' "$name" "$module" "$version" \
        >"$work/go.mod"
    rm -f "$work/go.sum"
    (cd "$work" && go build -mod=mod -buildvcs=false -o "../../bin/$name" "$package") \
        >"$work/build.log" 2>&1 || {
        tail -n 5 "$work/build.log" >&2
        return 1
    }
    echo "$stamp" >"$work/built"
}

# go_client: builds tests/conformance/go, programs over etcd's own client, into build/bin.
go_client() {
    local source=tests/conformance/go work=build/peers/conformance stamp
    stamp=$(cat "$source"/go.mod "$source"/go.sum "$source"/*.go | sha256sum)
    if [ -x build/bin/conformance ] && [ "$(cat "$work/built" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "building the programs over etcd's own client" >&2
    mkdir -p build/bin "$work"
    (cd "$source" && go build -buildvcs=false -o ../../../build/bin/conformance .) \
        >"$work/build.log" 2>&1 || {
        tail -n 5 "$work/build.log" >&2
        return 1
    }
    echo "$stamp" >"$work/built"
}
