#!/usr/bin/env bash
# Installs the Debian 12 packages that build, tests, benchmarks and demo need; only what is missing. Quiet
# unless something goes wrong. Asks sudo when it is not root. `--list` prints the packages and ends. `--vm` adds
# what tests/vm needs, an emulator and its helpers (some 90 MB installed); its kernel is fetched by the test.
# `--suites` adds those that scripts/conformance.sh runs.
set -euo pipefail

with_vm=no with_suites=no
while [[ ${1-} == --vm || ${1-} == --suites ]]; do
  if [[ $1 == --vm ]]; then with_vm=yes; else with_suites=yes; fi
  shift
done

build=(gcc g++ clang meson ninja-build pkg-config clang-format binutils
  libc6-dev libfmt-dev libexpected-dev libcli11-dev nlohmann-json3-dev libtomlplusplus-dev doctest-dev
  libseccomp-dev liburing-dev libssl-dev libunwind-dev libzstd-dev liblz4-dev libxxhash-dev libsqlite3-dev
  libsystemd-dev)
lab=(iproute2 util-linux procps)
programs=(bash coreutils gawk mawk perl python3 sqlite3 gzip xz-utils zstd tar findutils openssl curl make tmux
  vim less ffmpeg povray povray-includes netcat-openbsd man-db musl-tools)
suites=(stress-ng libpython3.11-testsuite python3.11 dpkg-dev golang-go tzdata)
vm=(qemu-system-x86 ipxe-qemu busybox-static kmod)
# The clang build with sanitizers needs its runtime library, which clang itself only recommends.
packages=("${build[@]}" "${lab[@]}" "${programs[@]}" libclang-rt-dev)
[[ $with_vm == no ]] || packages+=("${vm[@]}")
[[ $with_suites == no ]] || packages+=("${suites[@]}")

if [[ ${1-} == --list ]]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
# The test asks apt for the kernel's version, and apt forgets its lists in many images.
lists=yes
[[ $with_vm == no ]] || apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || lists=no
if [[ ${#missing[@]} -eq 0 && $lists == yes ]]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "setup: run as root, or install sudo; missing: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { # keeps apt silent while it works, shows everything when it fails
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "setup: apt-get $1 failed" >&2
    exit 1
  fi
}

echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
apt update
[[ ${#missing[@]} -eq 0 ]] || apt install -y --no-install-recommends "${missing[@]}"
echo "setup: done"
