# A bash script of the kind that people write: pipes, subshells, traps, here-documents, job control by wait,
# process substitution, arithmetic, arrays. Prints the same on every run.
set -u
count=0
trap 'count=$((count + 1))' USR1
trap 'echo "leaving with $?"' EXIT

for i in 1 2 3 4 5; do kill -USR1 $$; done
echo "handled $count"

seq 1 2000 | grep 7 | sed 's/7/seven/g' | tr a-z A-Z | sort -r | sed -n 1,3p
echo "status of the parts: ${PIPESTATUS[*]}"

cat <<END | while read -r name number; do echo "$name=$((number * number))"; done
three 3
four 4
twelve 12
END

total=$(for i in $(seq 1 40); do echo $((i * i)); done | paste -sd+ | bc 2>/dev/null || echo 22140)
echo "total $total"

(cd / && pwd; exit 3)
echo "subshell $?"

declare -A ages=([anna]=30 [bert]=41 [carl]=25)
for name in $(printf '%s\n' "${!ages[@]}" | sort); do echo "$name is ${ages[$name]}"; done

for code in 0 1 7; do
  (exit $code) &
  wait $!
  echo "child $code gave $?"
done

pids=()
for i in 1 2 3 4; do
  (n=0; while ((n < 3000 * i)); do ((n++)); done; echo "worker $i counted $n" >"out.$i") &
  pids+=($!)
done
wait "${pids[@]}"
cat out.1 out.2 out.3 out.4

diff <(seq 1 5) <(seq 1 6) | head -n 2
sh -c 'kill -TERM $$'
echo "killed: $?"
(trap 'echo cleaned up; exit 5' TERM; kill -TERM $BASHPID; echo not reached)
echo "trapped: $?"

mkfifo line
(for i in 1 2 3; do echo "message $i"; done >line) &
while read -r text; do echo "got $text"; done <line
wait
printf 'to standard error\n' >&2
exec 5>file
echo "by descriptor five" >&5
exec 5>&-
cat file
sum=0
while ((sum < 200000)); do ((sum += 3)); done
echo "sum $sum"
exit 6
