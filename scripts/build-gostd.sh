#!/usr/bin/env bash
# scripts/build-gostd.sh DIR: the Go standard library's own tests, from Debian's golang packages, one static program for
# each package, DIR/bin/PACKAGE (with _ for /): without libc, with system calls of their own. Each is run in the folder of its
# sources, which DIR/folders names. What is there already is not made again.
set -euo pipefail
dir=${1:?usage: $0 DIR}
[[ ! -f $dir/complete ]] || exit 0
mkdir -p "$dir/bin"
dir=$(realpath "$dir")
export CGO_ENABLED=0 GOCACHE=$dir/cache GOFLAGS= GO111MODULE=off

packages=(archive/tar archive/zip bufio bytes compress/flate container/heap context crypto/sha256 crypto/tls
  database/sql encoding/gob encoding/json errors fmt hash/crc32 image/png io io/fs io/ioutil log log/syslog math math/big
  mime/multipart net net/http net/http/httptest net/mail net/netip net/rpc net/smtp net/textproto net/url os os/exec
  os/signal os/user path path/filepath reflect regexp runtime runtime/debug runtime/pprof sort strconv strings sync
  sync/atomic syscall testing text/template time unicode/utf8)
: >"$dir/folders"
for package in "${packages[@]}"; do
  name=${package//\//_}
  go test -c -o "$dir/bin/$name" "$package" || continue
  printf '%s\t%s\n' "$name" "$(go list -f '{{.Dir}}' "$package")" >>"$dir/folders"
done
rm -rf "$dir/cache"
touch "$dir/complete"
echo "gostd: $(wc -l <"$dir/folders") of ${#packages[@]} packages built"
