#!/usr/bin/env bash
# Looks for known vulnerabilities in what everynode calls: hack/vulncheck.sh BIN [PACKAGES...]
#
# The database is the one whose version hack/tools.mod pins, so that this needs no network and says the same everywhere;
# with VULNDB=live govulncheck asks the newest one. A vulnerable module fails. A vulnerable standard library only warns,
# as which Go there is cannot be helped from here, unless STRICT is set, as it is for a release.
set -euo pipefail

bin=$1
shift

# These are for ever in all of k8s.io/kubernetes, as the database has it, but are in what everynode has nothing of:
# the API server (a race of its own), and the kubelet (gitRepo volumes).
accepted='GO-2025-3547 GO-2025-3521'

db=()
if [[ ${VULNDB:-} != live ]]; then
  module=$(go list -m -modfile=hack/tools.mod -f '{{.Version}} {{.Dir}}' golang.org/x/vulndb)
  read -r version dir <<<"$module"
  if [[ -z $dir ]]; then
    go mod download -modfile=hack/tools.mod golang.org/x/vulndb
    read -r version dir <<<"$(go list -m -modfile=hack/tools.mod -f '{{.Version}} {{.Dir}}' golang.org/x/vulndb)"
  fi
  rm -rf "$bin/vulndb"
  "$bin/indexdb" -vulns "$dir/data/osv" -out "$bin/vulndb"
  db=(-db "file://$(realpath "$bin")/vulndb")
  echo "The database is of $(sed -E 's/.*-([0-9]{4})([0-9]{2})([0-9]{2})[0-9]{6}-.*/\1-\2-\3/' <<<"$version")."
fi

code=0
report=$("$bin/govulncheck" "${db[@]}" "$@") || code=$?
# 3 means that there are some.
if ((code != 0 && code != 3)); then exit $code; fi
# The traces name every call and can have hundreds of lines; two of each are enough to find the place.
awk '/^ +#[0-9]+: / {split($1, n, /[#:]/); if (n[2] > 2) next} {print}' <<<"$report"
if ((code == 0)); then exit 0; fi

found=$(awk '/^Vulnerability #/ {id = $3} /^  Module: / {print id}' <<<"$report" | grep -vwF "${accepted// /$'\n'}" || true)
if [[ -n $found ]]; then
  echo "everynode calls what is vulnerable in modules:" $found >&2
  echo "See above for the versions without, and take those: go get MODULE@VERSION && go mod tidy" >&2
  exit 3
fi
newest=$(sed -nE 's/^ +Fixed in: .*@(go[0-9.]+)$/\1/p' <<<"$report" | sort -V | tail -n 1)
if [[ -n $newest ]]; then
  echo "The standard library of $(go env GOVERSION) is vulnerable where everynode calls it: build releases with $newest." >&2
  [[ -z ${STRICT:-} ]]
fi
