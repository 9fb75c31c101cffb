#!/bin/sh
# Makes the image of the Dockerfile from a binary that is there: packaging/image.sh amd64|arm64 BINARY TARBALL
#
# With buildah, and without root or a registry. Loaded with: podman load -i TARBALL, or pushed with: skopeo copy.
set -eu

arch=${1:?amd64 or arm64} binary=${2:?the static binary} tarball=${3:?the tarball to write}
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || true)
# Of the commit, not of the build: the same commit gives the same image.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

if ! command -v buildah >/dev/null; then
    echo "image.sh: buildah is lacking: tests/packages.sh image, or: docker build -t mountwarden:$version ." >&2
    exit 1
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/build/out/usr/local/bin"
install -m 755 "$binary" "$root/build/out/usr/local/bin/mountwarden"

# The stage `build` of the Dockerfile is replaced by that directory; nothing is pulled.
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
storage="--root $root/storage --runroot $root/run"
set --
for pair in title=mountwarden "version=$version" "revision=$revision" "created=$created" licenses=Apache-2.0 \
    description="Watches the network mounts of a node: which are hung, stale, lost or denied, and why"; do
    set -- "$@" --label "org.opencontainers.image.$pair"
done
# The last stage alone: what stands before it needs a registry and a compiler.
sed -n '/^FROM scratch/,$p' Dockerfile >"$root/Dockerfile"
# shellcheck disable=SC2086 # a list of words
buildah $storage build --quiet --arch "$arch" --timestamp "$epoch" --identity-label=false "$@" \
    --build-context "build=$root/build" --file "$root/Dockerfile" --tag "mountwarden:$version" "$root/build" >/dev/null
mkdir -p "$(dirname "$tarball")"
rm -f "$tarball"
# shellcheck disable=SC2086 # a list of words
buildah $storage push --quiet "mountwarden:$version" "docker-archive:$tarball:mountwarden:$version" >/dev/null
echo "$tarball: $(stat -c %s "$tarball") bytes, mountwarden:$version for $arch"
