#!/usr/bin/env bash
# A cluster of two nodes on this machine, and a program that lives on both: for a person to watch, in less than
# three minutes. Needs nothing but scripts/setup.sh and scripts/build.sh, which it runs if they are due.
set -uo pipefail
cd "$(dirname "$0")/.."

if [[ ${MOSIX_DEMO_INSIDE-} != 1 ]]; then
  scripts/setup.sh && scripts/build.sh || exit 1
  dir=$PWD/$(scripts/build.sh --print-dir)
  export PATH=$dir/tools:$dir/cluster:$dir/deputy:$dir/remote:$PATH MOSIX_LIBEXEC=$dir MOSIX_DEMO_INSIDE=1
  exec mosixlab run -n 2 -- "$PWD/scripts/demo.sh"
fi

# ---- from here on we are on node1

work=$(mktemp -d)
started=()
cleanup() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
  wait 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() {
  printf '\033[2m$ %s\033[0m\n' "$*"
  "$@"
}
problem() {
  printf '\033[1mdemo: %s\033[0m\n' "$*" >&2
  exit 1
}
# Waits for an event, not for a time: the condition is looked at ten times a second, for ten seconds.
until_true() {
  local tries=0
  until "$@" 2>/dev/null; do
    ((++tries > 100)) && problem "this did not become true: $*"
    read -rt 0.1 <> <(:) || :
  done
}
is_on() { [[ $(mosctl where "$1") == "$2" ]]; }
has_lines() { (($(wc -l <"$1") >= $2)); }

title 'Two nodes, each with its own files, processes, network and mosixd'
show mosctl nodes
echo "This shell runs on $(hostname)."

title "openMosix's classic CPU stress test (six times as long), started on node2"
exec 7>"$work/open-file"
echo 'this file is open at home' >&7
loop='BEGIN {for(i=0;i<60000;i++)for(j=0;j<10000;j++);}'
printf "\033[2m$ mosrun -r node2 --require awk '%s' &\033[0m\n" "$loop"
mosrun -r node2 --require awk "$loop" &
stress=$!
started+=("$stress")
until_true is_on "$stress" node2
echo "Process $stress is an ordinary child of this shell, here on node1:"
show ps -o pid,ppid,tty,stat,comm -p "$stress"
echo 'and this is where it really runs, and how much CPU time it has had there:'
read -rt 2 <> <(:) || :
show mosps
echo "It still has home's files open, as this shell handed them down:"
show readlink "/proc/$stress/fd/7"

title 'It comes home, and leaves again, while it computes'
show migrate "$stress" home
show mosctl where "$stress"
show migrate "$stress" node2
show mosctl where "$stress"

title 'A program that prints, moved while it prints'
# Every line says what the program sees of the machine: its pid, the host name, the number of the line.
cat >"$work/printer" <<'PRINTER'
import os, socket, sys, time
for line in range(1, 41):
    print(f'line {line:2} of process {os.getpid()} on {socket.gethostname()}, parent {os.getppid()}', flush=True)
    end = time.monotonic() + 0.25
    while time.monotonic() < end:
        pass
PRINTER
python=/usr/bin/python3
[[ -x $python ]] || python=$(command -v python3)
printf '\033[2m$ mosrun -h python3 printer >lines &\033[0m\n'
mosrun -h "$python" "$work/printer" >"$work/lines" &
printer=$!
started+=("$printer")
last=0
for place in node2 home node2 home; do
  until_true has_lines "$work/lines" $((last += 6))
  tail -n 1 "$work/lines"
  show migrate "$printer" "$place" || problem "the move to $place failed"
done
wait "$printer" || problem "the printing program ended with status $?"
echo 'It has ended. First and last line, and how many there are (40, each once):'
sed -n '1p;$p' "$work/lines"
echo "$(sort -u "$work/lines" | wc -l) different lines, $(cut -d' ' -f2-6,7- "$work/lines" | grep -o 'process.*' | sort -u | wc -l) process, host and parent"

title 'What a program that is away asks of its home: mostrace'
printf '\033[2m$ mostrace mosrun -r node2 cat /etc/hostname\033[0m\n'
mostrace -o "$work/trace" mosrun -r node2 --require cat /etc/hostname
tail -n 12 "$work/trace"
show mostrace -c mosrun -r node2 --require ls / >"$work/summary" 2>&1
head -n 12 "$work/summary"

title 'The end'
if wait "$stress"; then
  echo "The stress test has ended with status 0, as it would have at home."
else
  problem "the stress test ended with status $?"
fi
started=()
show mosps
echo 'Try it yourself: meson devenv -C build mosixlab run -n 3 -- bash'
