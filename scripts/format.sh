#!/usr/bin/env bash
# scripts/format.sh [--check]: lays out every C and C++ file as .clang-format says (Debian 12's clang-format 14; another
# version may see some lines differently). With --check nothing is written: status 1 and the places if something is
# not laid out so, 77 if there is no clang-format.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || { echo 'format: clang-format is not installed (scripts/setup.sh)' >&2; exit 77; }
how=(-i)
case ${1-} in
  '') ;;
  --check) how=(--dry-run --Werror) ;;
  *) sed -n '2,4s/^# //p' "$0"; [[ $1 == --help ]] && exit 0; exit 2 ;;
esac
find libmosix deputy remote cluster tools tests bench -type f \( -name '*.cc' -o -name '*.h' -o -name '*.c' \) -print0 |
  xargs -0 clang-format "${how[@]}"
