# Sourced by the scripts that play a person at a terminal: a tmux server of the test's own, one window, keys
# typed into it, and the screen read back. What waits, waits for text on the screen.
export TMUX_TMPDIR=$PWD
screen_tmux() { tmux -L screen -f /dev/null "$@"; }
trap 'screen_tmux kill-server 2>/dev/null' EXIT

start_screen() { screen_tmux new-session -d -x 80 -y 24 "$*"; }
keys() { screen_tmux send-keys "$@"; }
screen() { screen_tmux capture-pane -p 2>/dev/null; }
wait_for_text() {
  local end=$((SECONDS + 60))
  until screen | grep -qF -- "$1"; do
    if ((SECONDS > end)); then
      echo "never appeared: $1"
      screen
      exit 9
    fi
    read -rt 0.05 <> <(:) || :
  done
}
wait_for_end() {
  local end=$((SECONDS + 60))
  while screen_tmux has-session 2>/dev/null; do
    ((SECONDS > end)) && { echo 'the program did not end'; screen; exit 9; }
    read -rt 0.05 <> <(:) || :
  done
}
