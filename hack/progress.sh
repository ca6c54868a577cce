#!/usr/bin/env bash
# Runs a command that may take minutes without printing anything, and shows that it is at work:
# hack/progress.sh 'Building something' COMMAND...
set -uo pipefail

what=$1
shift
began=$SECONDS
output=$(mktemp)
"$@" >"$output" 2>&1 &
pid=$!
trap 'rm -f "$output"; kill $pid 2>/dev/null' EXIT

while kill -0 $pid 2>/dev/null; do
  if [[ -t 1 ]]; then
    printf '\r%s ... %3ds ' "$what" $((SECONDS - began))
  elif ((SECONDS - began > 0 && (SECONDS - began) % 60 == 0)); then
    # No terminal to draw in: a line a minute.
    printf '%s ... %ds\n' "$what" $((SECONDS - began))
    sleep 0.8
  fi
  sleep 0.2
done
wait $pid
code=$?
if [[ -t 1 ]]; then printf '\r\033[K'; fi
# What was downloaded is progress too, but nobody has to read it afterwards.
grep -v '^go: downloading ' "$output"
if ((code == 0)); then
  printf '%s: done in %ds\n' "$what" $((SECONDS - began))
else
  printf '%s: failed after %ds\n' "$what" $((SECONDS - began)) >&2
fi
exit $code
