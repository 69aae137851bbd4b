#!/usr/bin/env bash
# Runs each coverage-guided fuzz target for a while.
#
#   tools/lib/fuzz.sh --available    can it run here? installs cargo-fuzz if it can
#   tools/lib/fuzz.sh BUDGET         BUDGET x 10 s for each target
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "${1:-}" = --available ]; then
    command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz >&2
    exit
fi
budget=${1:?usage: tools/lib/fuzz.sh BUDGET}
for target in tests/fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    echo "-- $name"
    mkdir -p "tests/fuzz/corpus/$name"
    log=$(mktemp)
    if ! cargo +nightly fuzz run --fuzz-dir tests/fuzz "$name" -- \
        -max_total_time=$((budget * 10)) -max_len=65536 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "the fuzz target $name failed" >&2
        exit 1
    fi
    grep -E 'number_of_executed_units|new_units_added' "$log" || tail -n 3 "$log"
    rm -f "$log"
done
