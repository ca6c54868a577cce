#!/usr/bin/env bash
# Puts together what a release consists of, in dist/release/: make release VERSION=v0.1.0 runs it after make images.
#
# It needs no network, and the same commit gives the same files, to the byte: the archives are as old as the commit, and
# belong to nobody. IMAGE_REPOSITORY is where the images will be, for the chart, and RELEASE_URL is where the files will be,
# for krew.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$1 ldflags=$2
url=${RELEASE_URL:-https://everynode.dev/releases/$version}
out=dist/release
stage=dist/stage

# pack ARCHIVE FOLDER makes an archive of what is in a folder. Names don't begin with ./, where helm finds no chart.
pack() {
  (cd "$2" && tar --create --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode='u=rwX,go=rX' -- *) | case $1 in *.gz | *.tgz) gzip --no-name -9 ;; *) cat ;; esac >"$1"
}

rm -rf "$out" "$stage"
mkdir -p "$out" "$stage"

# bundle NAME PROGRAM... makes an archive of programs.
bundle() {
  local name=$1 dir=$stage/$1
  shift
  mkdir -p "$dir"
  cp "$@" LICENSE "$dir"
  cp -r dist/files/licenses "$dir"
  pack "$out/$name.tar.gz" "$dir"
}

for arch in amd64 arm64; do
  bundle "everynode_linux_$arch" dist/linux/$arch/everynode-{scheduler,webhook}
done
for os in linux darwin windows; do
  for arch in amd64 arm64; do
    program=dist/$os/$arch/kubectl-everynode
    if [[ $os != linux ]]; then
      GOOS=$os GOARCH=$arch hack/progress.sh "Building kubectl-everynode for $os/$arch" \
        go build -ldflags "$ldflags" -o "dist/$os/$arch/" ./cmd/kubectl-everynode
    fi
    if [[ $os == windows ]]; then program+=.exe; fi
    bundle "kubectl-everynode_${os}_$arch" "$program"
  done
done

for layout in dist/images/*/; do
  pack "$out/$(basename "$layout").oci.tar" "$layout"
done
cp dist/images/*.cdx.json "$out"

# The chart names the images of this release. helm packages with the time of day in it.
cp --recursive --dereference charts/everynode "$stage/chart"
sed -i "0,/^  registry: \"\"\$/s||  registry: $IMAGE_REPOSITORY|" "$stage/chart/values.yaml"
bin/helm show values "$stage/chart" | grep -q "^  registry: $IMAGE_REPOSITORY$" || { echo 'hack/release.sh: the chart has no image.registry' >&2; exit 1; }
bin/helm package "$stage/chart" --version "${version#v}" --app-version "$version" --destination "$stage" >/dev/null
mkdir "$stage/package"
tar --extract --file "$stage/everynode-${version#v}.tgz" --directory "$stage/package"
pack "$out/everynode-${version#v}.tgz" "$stage/package"
bin/helm template "$out/everynode-${version#v}.tgz" | grep -qF "image: $IMAGE_REPOSITORY/everynode-scheduler:$version" ||
  { echo 'hack/release.sh: the packaged chart does not install the images of this release' >&2; exit 1; }

mkdir "$stage/kustomize"
cp --recursive --dereference LICENSE deploy "$stage/kustomize"
rm -r "$stage"/kustomize/deploy/{krew,*.go}
sed -i -E "s#image: (everynode-[a-z]+):.*#image: $IMAGE_REPOSITORY/\1:$version#" "$stage/kustomize/deploy/static-pod/everynode-scheduler.yaml"
for overlay in "$stage"/kustomize/deploy/overlays/*; do
  (cd "$overlay" && "$OLDPWD/bin/kustomize" edit set image "everynode-scheduler=$IMAGE_REPOSITORY/everynode-scheduler:$version" \
    "everynode-webhook=$IMAGE_REPOSITORY/everynode-webhook:$version")
  images=$(bin/kustomize build "$overlay" | sed -nE 's/^ +(- )?image: //p' | sort -u | paste -sd ' ')
  if [[ $images != "$IMAGE_REPOSITORY/everynode-scheduler:$version $IMAGE_REPOSITORY/everynode-webhook:$version" ]]; then
    echo "hack/release.sh: $(basename "$overlay") has the images $images" >&2
    exit 1
  fi
done
pack "$out/everynode-kustomize.tar.gz" "$stage/kustomize"

fill=(-e "/^#/d" -e "s|@VERSION@|$version|" -e "s|@URL@|$url|")
for archive in "$out"/kubectl-everynode_*.tar.gz; do
  platform=$(basename "$archive" .tar.gz)
  fill+=(-e "s|@SHA256_${platform#kubectl-everynode_}@|$(sha256sum "$archive" | cut -d ' ' -f 1)|")
done
sed "${fill[@]}" deploy/krew/everynode.yaml >"$out/krew.yaml"
if grep -q '@' "$out/krew.yaml"; then
  echo "hack/release.sh: deploy/krew/everynode.yaml has something between @ that nobody knows" >&2
  exit 1
fi

rm -rf "$stage"
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "The release is in $out:"
ls -l "$out" | awk 'NR > 1 {printf "  %10d  %s\n", $5, $9}'
