#!/bin/sh
# link_tree.sh FOLDER STAMP: lays out FOLDER, which holds libmosix.so and perhaps libmosix-32.so, so that
# FOLDER/$LIB/libmosix.so is the right library for every dynamic loader that may meet it in LD_PRELOAD: the
# empty one for 32-bit programs. As an install script (FOLDER --installed) it works below DESTDIR.
set -eu
folder=$1 stamp=$2
if [ "$stamp" = --installed ]; then folder=${DESTDIR:-}$folder stamp=/dev/null; fi

put() { # put LIBRARY SUBFOLDER
  [ -e "$folder/$1" ] || return 0
  mkdir -p "$folder/$2"
  up=$(echo "$2" | sed 's,[^/][^/]*,..,g')
  ln -sf "$up/$1" "$folder/$2/libmosix.so"
}

put libmosix.so lib/x86_64-linux-gnu # Debian and its children
put libmosix.so lib64                # Fedora, SUSE, Gentoo
put libmosix-32.so lib/i386-linux-gnu
put libmosix-32.so lib32
if [ -e /usr/lib64/libc.so.6 ]; then
  put libmosix-32.so lib # Fedora and SUSE keep 32-bit libraries there
else
  put libmosix.so lib # Arch, nix, guix
fi
: >"$stamp"
