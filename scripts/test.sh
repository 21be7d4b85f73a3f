#!/usr/bin/env bash
# Everything that a change has to pass: packages, a build with GCC and the address and undefined behaviour
# sanitizers, then every test. Ends with one line, "N passed, N failed, N skipped"; the status is 0 only if
# nothing failed. Arguments go to `meson test` (names, --suite unit, -v).
#   MOSIX_TEST_BUILD=build      run the tests of another build folder (it is built as it is configured)
#   MOSIX_TEST_NO_SETUP=1       do not look at packages
#   MOSIX_TEST_SLOWNESS=5       everything takes so many times as long, as under the thread sanitizer
set -uo pipefail
cd "$(dirname "$0")/.."

[[ ${MOSIX_TEST_NO_SETUP-} ]] || scripts/setup.sh || exit 1
if [[ ${MOSIX_TEST_BUILD-} ]]; then
  dir=$MOSIX_TEST_BUILD
  ninja -C "$dir" >/dev/null || exit 1
else
  scripts/build.sh --sanitize || exit 1
  dir=$(scripts/build.sh --sanitize --print-dir)
fi

# The emulated node runs the ordinary build; without the emulator its test is skipped.
if command -v qemu-system-x86_64 >/dev/null && [[ $dir != build ]]; then scripts/build.sh --programs || exit 1; fi

# Leaks are looked for where a test ends by itself; the daemons are ended by signal.
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:detect_leaks=0:detect_stack_use_after_return=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}

meson test -C "$dir" --no-rebuild --print-errorlogs --num-processes 2 \
  --timeout-multiplier "${MOSIX_TEST_SLOWNESS:-1}" "$@"
status=$?
python3 scripts/tally.py "$dir/meson-logs/testlog.json" "$status"
