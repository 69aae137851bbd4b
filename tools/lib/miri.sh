#!/usr/bin/env bash
# Runs the tests of the files with unsafe code under miri. What miri cannot do (io_uring, maps of
# files) is left out by the tests themselves, which name it.
#
#   tools/lib/miri.sh --available    can it run here? installs the component if it can
#   tools/lib/miri.sh                runs them
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "${1:-}" = --available ]; then
    cargo +nightly --version >/dev/null 2>&1 || exit 1
    cargo +nightly miri --version >/dev/null 2>&1 && exit 0
    command -v rustup >/dev/null 2>&1 || exit 1
    rustup --quiet component add --toolchain nightly miri rust-src >&2
    exit
fi
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/miri}
cargo +nightly miri test --quiet -p quoin-storage --features sim --lib -- \
    disk::aligned
