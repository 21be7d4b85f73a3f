#!/usr/bin/env bash
# What does not run for every change, because it takes its time: the other compiler, the thread sanitizer, the
# paths for older kernels, fuzz campaigns and soaks. scripts/test-all.sh [PART...], where PART is one of
# test moves vm clang thread features fuzz soak; without, all in this order. Every part ends with its own line; the
# status is 0 only if all of them succeeded.
#   MOSIX_SOAK_MINUTES (20), MOSIX_FUZZ_SECONDS (120, for each fuzzer)
set -uo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh || exit 1
export MOSIX_TEST_NO_SETUP=1
bad=()

run_test() { scripts/test.sh; }

# Programs and calls while their processes are moved every 200 ms, and at each of their move points, in the optimised
# build, whose timing is another.
run_moves() { scripts/build.sh && MOSIX_TEST_BUILD=build scripts/test.sh --suite moves; }

# Debian 12's own kernel, 6.1, in an emulator.
run_vm() { scripts/setup.sh --vm && scripts/build.sh && MOSIX_TEST_BUILD=build scripts/test.sh --suite vm; }

run_clang() {
  scripts/build.sh --sanitize --clang && MOSIX_TEST_BUILD=$(scripts/build.sh --sanitize --clang --print-dir) scripts/test.sh
}

# Guests and the agent are not instrumented; mosixd, custodian, supervisor and the unit tests are.
run_thread() {
  scripts/build.sh --thread &&
    TSAN_OPTIONS=halt_on_error=1 MOSIX_TEST_SLOWNESS=5 MOSIX_TEST_BUILD=$(scripts/build.sh --thread --print-dir) scripts/test.sh
}

# Everything that a kernel later than 6.1 adds is switched off; then each feature by itself.
run_features() {
  local status=0 feature
  scripts/build.sh || return 1
  for feature in all io_uring ring_without_fd sync_wake_up pagemap_scan userfaultfd time_namespace fast_path; do
    echo "features: without $feature"
    MOSIX_FEATURES_OFF=$feature MOSIX_TEST_BUILD=build scripts/test.sh --suite syscalls || status=1
  done
  return $status
}

run_fuzz() {
  scripts/build.sh --sanitize --clang || return 1
  local dir status=0 fuzzer
  dir=$(scripts/build.sh --sanitize --clang --print-dir)
  local fuzzers=("$dir"/tests/fuzz/fuzz_*)
  [[ -x ${fuzzers[0]} ]] || { echo 'fuzz: no fuzzers in this build'; return 1; }
  for fuzzer in "${fuzzers[@]}"; do
    [[ -f $fuzzer && -x $fuzzer ]] || continue
    local corpus=$dir/fuzz-corpus/${fuzzer##*/}
    mkdir -p "$corpus"
    "${fuzzer%/*}/random_${fuzzer##*/fuzz_}" --write-seeds "$corpus" || { status=1; continue; }
    echo "fuzz: ${fuzzer##*/}"
    "$fuzzer" -max_total_time="${MOSIX_FUZZ_SECONDS:-120}" -print_final_stats=1 "$corpus" \
      >"$corpus.log" 2>&1 || { status=1; tail -n 30 "$corpus.log"; }
    grep -E 'number_of_executed_units' "$corpus.log"
  done
  return $status
}

run_soak() { scripts/soak.sh "${MOSIX_SOAK_MINUTES:-20}"; }

parts=("$@")
[[ ${#parts[@]} -gt 0 ]] || parts=(test moves vm clang thread features fuzz soak)
for part in "${parts[@]}"; do
  declare -F "run_$part" >/dev/null || { echo "test-all: no part $part" >&2; exit 2; }
  echo "== $part"
  "run_$part" || bad+=("$part")
done
if [[ ${#bad[@]} -gt 0 ]]; then
  echo "test-all: failed: ${bad[*]}"
  exit 1
fi
echo "test-all: all parts passed: ${parts[*]}"
