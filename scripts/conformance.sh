#!/usr/bin/env bash
# scripts/conformance.sh [OPTION]... [SUITE[:CASE,...]]...: suites that others wrote, natively, at home, away and in
# storms; the table of all results goes to docs/conformance.md. Takes hours for all of them; results stay in
# build/conformance/, and a run that is there is not made again (--again makes it).
# SUITE: cpython gostd openposix stress-ng. Options: those of tests/conformance/run_suites.py.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1-} in -h | --help) exec tests/conformance/run_suites.py --help ;; esac
scripts/setup.sh --suites
scripts/build.sh
dir=$(scripts/build.sh --print-dir)
scripts/fetch-openposix.sh "$dir/suites/openposix"
scripts/build-gostd.sh "$dir/suites/gostd"
export MOSIX_SUITES=$PWD/$dir/suites PATH=$PWD/$dir/tools:$PWD/$dir/cluster:$PWD/$dir/deputy:$PWD/$dir/remote:$PATH MOSIX_LIBEXEC=$PWD/$dir
exec tests/conformance/run_suites.py --results "$dir/conformance" --table docs/conformance.md "$@"
