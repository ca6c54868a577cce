#!/usr/bin/env bash
# Pins go.mod to one Kubernetes release: hack/kubernetes-version.sh v1.37.2
#
# k8s.io/kubernetes requires its staging modules (k8s.io/api, k8s.io/client-go, ...) at v0.0.0 and points them at
# folders of its own repository. Those replaces don't apply to us, so go.mod has to name the published version of
# every one of them. The list is read from the release itself; nobody keeps it by hand.
set -euo pipefail

version=${1:?usage: hack/kubernetes-version.sh v1.X.Y}
[[ $version =~ ^v1\.[0-9]+\.[0-9]+$ ]] || { echo "hack/kubernetes-version.sh: $version is not of the form v1.X.Y" >&2; exit 2; }
staging=v0.${version#v1.}

cd "$(dirname "$0")/.."
upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')

edits=(-require="k8s.io/kubernetes@$version")
for module in $(sed -n 's|^\t\(k8s.io/[a-z-]*\) => \./staging/.*|\1|p' "$upstream"); do
  edits+=(-replace="$module=$module@$staging")
done
go mod edit "${edits[@]}"

# Direct requirements on staging modules follow, so that go.mod reads as what is really built.
for module in $(go mod edit -json | sed -n 's|^\t\t\t"Path": "\(k8s.io/[a-z-]*\)",$|\1|p' | sort -u); do
  grep -q "^	$module v0" go.mod && go mod edit -require="$module@$staging"
done
go mod tidy
