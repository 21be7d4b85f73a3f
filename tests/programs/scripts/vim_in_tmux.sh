# A full-screen editor in a real terminal: types, deletes, searches, replaces, resizes, suspends nothing, writes.
. "$PROGRAMS/scripts/tmux_tools.sh"
printf 'first line\nsecond line\nthird line\n' >file
start_screen "$1 vim -u NONE -N -n -i NONE file"
wait_for_text 'third line'
keys G o 'typed into vim' Escape
wait_for_text 'typed into vim'
keys '1Gdd' ':%s/second/SECOND/' Enter
wait_for_text 'SECOND line'
screen_tmux resize-window -x 60 -y 20
# It hears of its new size when it comes to it: it may be asked too early.
for _ in $(seq 100); do
  keys Escape ':set columns? lines?' Enter
  sleep 0.1
  screen | grep -q 'columns=60' && break
done
wait_for_text 'columns=60'
keys Enter
keys ":r !echo from a ''child" Enter  # what is typed is not what is waited for
wait_for_text 'from a child'
screen | grep -v '^~' | head -n 5
keys ':wq' Enter
wait_for_end
cat file
