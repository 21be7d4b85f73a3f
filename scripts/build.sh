#!/usr/bin/env bash
# Builds everything: scripts/build.sh [--sanitize | --thread] [--clang] [--programs] [--print-dir]
#   (nothing)    optimised with debug information, in build/
#   --sanitize   address and undefined behaviour sanitizers, in build-asan/ (agent and preload opt out)
#   --thread     thread sanitizer, in build-tsan/
#   --clang      with Clang instead of GCC; the folder's name ends in -clang
#   --programs   only what runs on a node, and the programs that tests run there: no tests of parts, no benchmarks
#   --print-dir  say which folder it would be, build nothing
set -euo pipefail
cd "$(dirname "$0")/.."

dir=build
options=()
compilers=(CC=gcc CXX=g++)
suffix=
only_print=no
targets=()
for argument in "$@"; do
  case $argument in
    # Not optimised: GCC takes five times as long to optimise what the sanitizers add, and nothing here is timed.
    --sanitize) dir=build-asan
      options+=(-Db_sanitize=address,undefined -Db_lundef=false -Doptimization=0 -Dcpp_args=-g1) ;;
    --thread) dir=build-tsan; options+=(-Db_sanitize=thread -Db_lundef=false -Doptimization=1 -Dcpp_args=-g1) ;;
    --clang) suffix=-clang; compilers=(CC=clang CXX=clang++) ;;
    --programs) targets=(node_programs) ;;
    --print-dir) only_print=yes ;;
    *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
  esac
done
dir=$dir$suffix
if [[ $only_print == yes ]]; then
  echo "$dir"
  exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [[ ! -f $dir/build.ninja ]]; then
  env "${compilers[@]}" meson setup "$dir" "${options[@]}" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
echo "build: $dir"
ninja -C "$dir" "${targets[@]}" >"$log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\] (Compiling|Linking)' "$log" >&2; exit 1; }
tail -n 1 "$log"
