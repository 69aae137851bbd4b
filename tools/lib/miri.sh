#!/usr/bin/env bash
# Runs under miri what goes through unsafe code and can run there: single files by their own tests,
# the tree with readers on threads and with a random history.
#
#   tools/lib/miri.sh --available    can it run here? installs the component if it can
#   tools/lib/miri.sh --left-out     names the files with unsafe code that it does not reach, a line
#                                    each, and why
#   tools/lib/miri.sh                runs them
set -euo pipefail
cd "$(dirname "$0")/../.."

# Every file with unsafe code is in one of the two lists.
reached="
storage/src/disk/aligned.rs
storage/src/disk/mod.rs
storage/src/disk/tests.rs
storage/src/page/cast.rs
storage/src/tree/frames.rs
storage/src/tree/publish.rs
"
left_out="
storage/src/disk/mmap.rs: maps of files and the size of a file system (maps of memory are run)
storage/src/disk/uring.rs: io_uring
src/runtime/listen.rs: sockets of glommio
src/runtime/os.rs: calls of Linux
bench/src/os.rs: calls of Linux
bench/src/storage/lmdb.rs: LMDB, which is C
"

if [ "${1:-}" = --available ]; then
    cargo +nightly --version >/dev/null 2>&1 || exit 1
    cargo +nightly miri --version >/dev/null 2>&1 && exit 0
    command -v rustup >/dev/null 2>&1 || exit 1
    rustup --quiet component add --toolchain nightly miri rust-src >&2
    exit
fi
if [ "${1:-}" = --left-out ]; then
    printf '%s' "$left_out" | grep .
    exit
fi

unsafe=$(grep -rlE '^[^/]*\bunsafe (\{|fn|impl)' --include='*.rs' src storage/src bench/src | sort)
listed=$(printf '%s%s' "$reached" "$left_out" | grep . | sed 's/:.*//' | sort)
if [ "$unsafe" != "$listed" ]; then
    echo "tools/lib/miri.sh does not list what has unsafe code (<: has some, >: is listed):" >&2
    diff <(echo "$unsafe") <(echo "$listed") >&2 || exit 1
fi

export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/miri}
cargo +nightly miri test --quiet -p quoin-storage --features sim \
    --lib --test tree_limits --test tree_model -- \
    disk::aligned the_simulated_disk_keeps_its_promises page:: \
    readers_on_threads_see_whole_states short_keys
