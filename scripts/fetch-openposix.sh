#!/usr/bin/env bash
# scripts/fetch-openposix.sh DIR: the Open POSIX Test Suite, from Debian's source package posixtestsuite, each of its tests
# built as a program DIR/bin/INTERFACE_NUMBER. What is there already is not made again. Tests that do not compile
# here are listed in DIR/not-built. Needs: gcc, dpkg-dev, the package archive that apt uses.
set -euo pipefail
dir=${1:?usage: $0 DIR}
[[ ! -f $dir/complete ]] || exit 0
mkdir -p "$dir/apt/lists/partial" "$dir/bin"
dir=$(realpath "$dir")

# apt's own settings stay as they are: a list of sources for this once.
read -r uri release < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk '$3 == "main" { print $1, $2; exit }')
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $release main" >"$dir/apt/sources.list"
apt=(apt-get -o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o Dir::State::lists="$dir/apt/lists" -o APT::Sandbox::User=root)
if [[ ! -d $dir/source ]]; then
  "${apt[@]}" -qq update
  (cd "$dir" && "${apt[@]}" -qq source --download-only posixtestsuite && dpkg-source --no-check -x posixtestsuite_*.dsc source)
fi

build_one() {
  local source=$1 name=${1#conformance/interfaces/}
  name=${name%.c}
  gcc -O1 -w -D_GNU_SOURCE -Iinclude "-I$(dirname "$source")" -o "$2/bin/${name//\//_}" "$source" -pthread -lrt -lm \
    2>/dev/null || echo "$name"
}
export -f build_one
cd "$dir/source"
find conformance/interfaces -name '[0-9]*-[0-9]*.c' ! -name '*buildonly*' | sort |
  xargs -P "$(nproc)" -I{} bash -c 'build_one "$1" "$2"' _ {} "$dir" >"$dir/not-built"
touch "$dir/complete"
echo "openposix: $(ls "$dir/bin" | wc -l) tests built, $(wc -l <"$dir/not-built") do not compile here"
