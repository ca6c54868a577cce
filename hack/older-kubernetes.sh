#!/usr/bin/env bash
# Pins the control plane of an older minor version of Kubernetes to one release: hack/older-kubernetes.sh v1.36.3
# It writes test/localcluster/kubernetes-1.36.mod. hack/kubernetes-version.sh says why the replaces are there.
set -euo pipefail

version=${1:?usage: hack/older-kubernetes.sh v1.X.Y}
[[ $version =~ ^v(1\.[0-9]+)\.[0-9]+$ ]] || { echo "hack/older-kubernetes.sh: $version is not of the form v1.X.Y" >&2; exit 2; }
minor=${BASH_REMATCH[1]}

cd "$(dirname "$0")/../test/localcluster"
# go mod tidy looks at all packages of a module, and only these are to be compiled.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/test/localcluster"
cp -r controlplane "$dir/test/localcluster/"

upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
(
  cd "$dir"
  export GOFLAGS=
  go mod init everynode.dev/everynode
  edits=(-go="$(sed -n 's/^go //p' "$OLDPWD/../../go.mod")" -require="k8s.io/kubernetes@$version")
  for module in $(sed -n 's|^\t\(k8s.io/[a-z-]*\) => \./staging/.*|\1|p' "$upstream"); do
    edits+=(-replace="$module=$module@v0.${version#v1.}")
  done
  go mod edit "${edits[@]}"
  go mod tidy
)
mv "$dir/go.mod" "kubernetes-$minor.mod"
mv "$dir/go.sum" "kubernetes-$minor.sum"
