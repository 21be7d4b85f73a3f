#!/usr/bin/env bash
# scripts/soak.sh [MINUTES]: moves programs about for a long time (default 20) and counts what is lost.
#   1. round trips of a 50 MB program of five threads that verifies its memory all the time
#   2. the programs of tests/syscalls and tests/programs, moved every 60 ms, again and again, for MINUTES
# MOSIX_BENCH_BUILD names another build folder than build/. Status 0 only if nothing was lost.
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-20}
dir=${MOSIX_BENCH_BUILD:-build}
[[ ${MOSIX_BENCH_BUILD-} ]] || scripts/build.sh || exit 1
dir=$(realpath "$dir")
export PATH=$dir/tools:$dir/cluster:$dir/deputy:$dir/remote:$PATH MOSIX_LIBEXEC=$dir
failures=0

echo "soak: round trips"
result=$(MOSIX_BENCH_BUILD=$dir bench/run.sh round_trips) || failures=$((failures + 1))
echo "$result"
[[ $(cut -f5 <<<"$result") == 1.000 ]] || failures=$((failures + 1))

# What does not pass, shown; counted also where a run ends without a word.
move_about() {
  local output status
  output=$(tests/run_matrix.py --keep "$dir/soak-logs" --interval 60 "$@")
  status=$?
  [[ $status -eq 0 || $status -eq 77 ]] || failures=$((failures + 1))
  grep -vE '^(passed|tally|skipped)' <<<"$output"
}

# The programs have the whole time, however long the round trips took.
end=$((SECONDS + 60 * minutes)) rounds=0
while ((SECONDS < end)); do
  for program in "$dir"/tests/syscalls/guest_*; do
    [[ -x $program && -f $program ]] || continue
    move_about --modes moved,points --limit 120 -- "$program"
    ((SECONDS < end)) || break
  done
  move_about --modes moved --list tests/programs/list.tsv
  rounds=$((rounds + 1))
done
echo "soak: $rounds rounds, $failures with losses"
exit $((failures > 0))
