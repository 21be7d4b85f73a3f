#!/bin/sh
# Writes docs/syscalls.md from the table, or with --check says whether it is up to date.
#   scripts/update-syscalls-doc.sh [--check] MOSIX_TABLE     (the program, built: tools/mosix-table)
set -eu

check=no
if [ "${1-}" = --check ]; then
  check=yes
  shift
fi
table=${1:?usage: $0 [--check] MOSIX_TABLE}
document=$(dirname "$0")/../docs/syscalls.md
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
"$table" --markdown >"$printed"

if [ "$check" = yes ]; then
  if diff -u "$document" "$printed"; then
    exit 0
  fi
  echo "docs/syscalls.md is not what the table says: run scripts/update-syscalls-doc.sh $table" >&2
  exit 1
fi
cp "$printed" "$document"
chmod 644 "$document"
