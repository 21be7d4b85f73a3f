#!/bin/bash
# Answers each line with its pid, a counter and the line; between them it computes, forks and reads a file of
# home's, so that a place at which it could not go on is seen.
count=0
while read -r word; do
  count=$((count + 1))
  for ((i = 0; i < 300; i++)); do x=$((x + i * i)); done
  name=$(cat /run/.hostname)
  [[ $name == node1 ]] && name=emulated-free
  echo "$$ $count $word $name"
done
