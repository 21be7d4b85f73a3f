#!/bin/bash
# Pipelines, subshells, here-documents, traps and background jobs.
trap 'echo end' EXIT
trap 'echo usr1' USR1
seq 1 2000 | gzip -c | gzip -dc | sort -rn | head -n 3
seq 1 500 | sha256sum | cut -c 1-16
(cd /tmp && echo subshell; exit 3)
echo "status $?"
kill -USR1 $$
cat <<end
a document with $((6 * 7)) and $(echo a substitution)
end
for i in 1 2 3; do (exit $i) & pids="$pids $!"; done
for pid in $pids; do wait "$pid"; echo "waited $?"; done
mkfifo fifo.$$
tr a-z A-Z <fifo.$$ &
echo through a fifo >fifo.$$
wait
rm fifo.$$
awk 'BEGIN { for (i = 0; i < 20000; i++) s += i * i; print s }'
false | true; echo "${PIPESTATUS[*]}"
