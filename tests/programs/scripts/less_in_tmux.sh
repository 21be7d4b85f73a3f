# A pager in a real terminal: pages, searches, goes to the end, and is interrupted by Ctrl-C.
. "$PROGRAMS/scripts/tmux_tools.sh"
seq -f 'line number %g' 1 5000 >file
start_screen "$1 less file"
wait_for_text 'line number 1'
keys ' '
wait_for_text 'line number 46'
screen | sed -n '1p;23p'
keys '/number 3210' Enter
wait_for_text 'line number 3210'
screen | sed -n '1p'
keys F
wait_for_text 'Waiting for data'
echo 'appended meanwhile' >>file
wait_for_text 'appended meanwhile'
keys C-c
wait_for_text '(END)'
keys 1 G
wait_for_text 'line number 2'
screen | sed -n '1,3p'
keys q
wait_for_end
echo ended
