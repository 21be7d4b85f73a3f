#!/usr/bin/env bash
# bench/run.sh [--quick] [NAME...]: the project's figures, one tab-separated line each: name, value, unit,
# baseline, ratio. Without names all of them, the long one (round_trips) last. Notes go to standard error.
#   MOSIX_BENCH_BUILD=DIR   measures another build folder (default: build/, which is built if it is not there)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${MOSIX_BENCH_BUILD:-build}
if [[ ! ${MOSIX_BENCH_BUILD-} ]]; then
  scripts/build.sh >&2
fi
dir=$(realpath "$dir")
export PATH=$dir/tools:$dir/cluster:$dir/deputy:$dir/remote:$PATH MOSIX_LIBEXEC=$dir
exec python3 bench/figures.py "$dir" "$@"
