#!/usr/bin/env bash
# Runs a command that may take minutes without printing anything, and shows that it is at work:
# hack/progress.sh 'what is being built' COMMAND...
set -uo pipefail

what=$1
shift
began=$SECONDS
output=$(mktemp)
trap 'rm -f "$output"' EXIT

"$@" >"$output" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null' INT TERM
while kill -0 $pid 2>/dev/null; do
  if [[ -t 1 ]]; then
    printf '\rBuilding %s ... %3ds ' "$what" $((SECONDS - began))
    sleep 0.2
  else
    # Not a terminal: a line a minute.
    for _ in $(seq 300); do kill -0 $pid 2>/dev/null || break; sleep 0.2; done
    ((SECONDS - began >= 60)) && kill -0 $pid 2>/dev/null && printf 'Building %s ... %3ds\n' "$what" $((SECONDS - began))
  fi
done
wait $pid
code=$?
if [[ -t 1 ]]; then printf '\r\033[K'; fi
# Downloads of modules are progress too, but nobody has to read them afterwards.
grep -v '^go: downloading ' "$output"
if ((code == 0)); then
  printf 'Built %s in %ds\n' "$what" $((SECONDS - began))
else
  printf 'Building %s failed after %ds\n' "$what" $((SECONDS - began)) >&2
fi
exit $code
