#!/bin/bash
# The checks of checks.list, on the emulated node. `checks.sh all` runs them, those of one lab in one lab after the
# other; `checks.sh lab WHOSE` is that lab's command; `checks.sh one COMMAND...` is one check, a function below.
# Verdicts go to the second serial line and, to be counted, to /tmp/verdicts.
readonly limit=400 # seconds for each check; by itself the longest takes some 60, with eight other jobs on two processors 150

verdict() { # verdict passed|failed NAME REMARK...
  echo "vm: $*" >/dev/ttyS1
  echo "$2" >>/tmp/verdicts
}

show() { # show FILE: the end of a log of something that failed
  tail -n 40 "$1" | sed 's/^/    /' >/dev/ttyS1
}

run_all() {
  local whose name command
  while read -r whose name command; do
    [[ $whose == machine ]] && run_one "$name" "$command"
  done </vm/checks.list
  for whose in root user; do
    grep -q "^$whose " /vm/checks.list || continue
    local options=()
    [[ $whose == root ]] || options=(--user)
    mkdir -p -m 1777 "/tmp/$whose"
    mosixlab run -n 3 "${options[@]}" --keep-logs "/tmp/logs-$whose" -- /bin/bash /vm/checks.sh lab "$whose"
    local status=$?
    [[ $status -eq 0 ]] || echo "vm: the lab of $whose ended with status $status" >/dev/ttyS1
    if [[ -e /tmp/$whose/failed || $status -ne 0 ]]; then
      for log in "/tmp/logs-$whose"/*; do
        echo "vm: $log" >/dev/ttyS1
        show "$log"
      done
    fi
  done
  # Last, because it is about all of them.
  if grep -q '^after ' /vm/checks.list; then
    while read -r whose name command; do
      [[ $whose == after ]] && run_one "$name" "$command"
    done </vm/checks.list
  fi
}

run_lab() {
  local whose name command
  while read -r whose name command; do
    [[ $whose == "$1" ]] || continue
    mkdir -p "/tmp/$1/$name"
    cd "/tmp/$1/$name" || return 1
    run_one "$name" "$command" || : >"/tmp/$1/failed"
    cd /tmp || return 1
  done </vm/checks.list
}

run_one() { # run_one NAME COMMAND: with a verdict
  local begin=$SECONDS log=/tmp/$1.log status
  # shellcheck disable=SC2086
  timeout -k 5 "$limit" bash /vm/checks.sh one $2 >"$log" 2>&1 </dev/null
  status=$?
  if [[ $status -eq 0 ]]; then
    verdict passed "$1" "in about $((SECONDS - begin)) s"
    return 0
  fi
  verdict failed "$1" "with status $status after $((SECONDS - begin)) s"
  show "$log"
  return 1
}

# ---- the checks

fail() {
  echo "$*"
  exit 1
}

is_kernel() { # is_kernel SERIES
  [[ $(uname -r) == "$1".* ]] || fail "this is Linux $(uname -r)"
}

# What this kernel lacks, as `mosctl check` names it: neither more nor less. Columns of its table are at least two
# blanks apart.
lacks() { # lacks FEATURE;FEATURE;...
  local status lacking
  mosctl check --kernel >report
  status=$?
  cat report
  [[ $status -eq 0 ]] || fail "mosctl check ended with status $status"
  lacking=$(awk -F '   *' '/LACKING/ { printf "%s%s", comma, $1; comma = ";" }' report)
  [[ $lacking == "$*" ]] || fail "lacking is: $lacking"$'\n'"and not:    $*"
}

# `PROGRAM -CHECK...`, a program of tests/syscalls without these checks: what takes the emulator too long. Sets $command.
settle() {
  [[ $2 == -* ]] || { command=("$@"); return; }
  command=("$1")
  local word left
  left=" $("$1" --list | tr '\n' ' ')"
  for word in "${@:2}"; do
    [[ $left == *" ${word#-} "* ]] || fail "$1 has no check ${word#-}"
    left=${left/ ${word#-} / }
  done
  # shellcheck disable=SC2206
  command+=($left)
}

natively() { # the specification: what it prints and how it ends here, without mosix
  "${command[@]}" >native.out 2>native.err
  native=$?
}

compare() { # compare STATUS: of what has written got.out and got.err
  [[ $1 == "$native" ]] || { cat got.err; fail "status $1 and not $native"; }
  diff native.out got.out && diff native.err got.err || exit 1
}

away() { # from its first instruction on node2, with the same output as natively, which is a success
  local command native
  settle "$@"
  natively
  [[ $native == 0 ]] || { cat native.err; fail "natively its status is $native"; }
  mosrun --require -r node2 "${command[@]}" >got.out 2>got.err
  compare $?
}

moved() { # as often as it can be while it runs, with the same output as natively
  local command native
  settle "$@"
  natively
  MOSIX_TEST_LAST=4 mosrun -h "${command[@]}" >got.out 2>got.err &
  local pid=$! moves=0 places=(node2 node3 home) why
  while [[ -e /proc/$pid/exe ]]; do
    why=$(migrate "$pid" "${places[moves % 3]}" 2>&1) && moves=$((moves + 1)) || echo "not moved: $why"
  done
  wait "$pid"
  compare $?
  echo "$moves moves"
  [[ $moves -ge 3 ]] || fail "it was moved only $moves times"
}

descriptors() { ls "/proc/$1/fd" | tr '\n' ' '; }

# A program that answers what it is asked, seen at each place: out, on, home and out again; same pid, its counter
# goes on, and at home no descriptor of ours appears.
steps() {
  local answer count=0 place here before
  coproc stepper { exec mosrun -h /bin/bash /vm/stepper.sh; }
  local pid=$stepper_PID in=${stepper[1]} out=${stepper[0]}
  for place in home node2 node3 home node2 node3 node2 home; do
    migrate "$pid" "$place" || fail "it does not go to $place"
    here=$(mosctl where "$pid")
    [[ $here == "$place" ]] || fail "it is on $here and not on $place"
    count=$((count + 1))
    echo "$place" >&"$in"
    read -r -t 20 answer <&"$out" || fail "no answer on $place"
    echo "$answer"
    [[ $answer == "$pid $count $place emulated-free" ]] || fail "expected: $pid $count $place"
    [[ $before ]] || before=$(descriptors "$pid")
    [[ $(descriptors "$pid") == "$before" ]] || fail "descriptors on $place: $(descriptors "$pid"), before: $before"
  done
  exec {in}>&-
  wait "$pid" || fail "it ended with status $?"
}

quiet_kernel() { # nothing that the kernel calls a mistake of its own
  ! dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|general protection|soft lockup|hung task'
}

case $1 in
  all) run_all ;;
  lab) run_lab "$2" ;;
  one)
    shift
    "$@"
    ;;
esac
