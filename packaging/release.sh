#!/bin/sh
# Everything that is published of a version, into target/dist: packaging/release.sh [amd64] [arm64]
#
# docs/release.md tells what each file is. Needs Debian's buildah, dpkg-dev and cross compilers (tests/packages.sh image), and
# builds cargo-sbom once (target/tools).
set -eu

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- amd64
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MOUNTWARDEN_REVISION=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export MOUNTWARDEN_REVISION SOURCE_DATE_EPOCH
[ -z "$(git status --porcelain)" ] || echo "release.sh: the work tree has changes that $MOUNTWARDEN_REVISION has not" >&2
cargo=${CARGO:-cargo}
dist=target/dist
rm -rf "$dist"
mkdir -p "$dist"
CARGO=$cargo packaging/notices.py "$dist/third-party-licenses.txt"

own=$(dpkg --print-architecture)
for arch in "$@"; do
    scratch=target/dist-$arch
    rm -rf "$scratch"
    name=mountwarden-$version-linux-$arch
    packaging/static.sh "$arch" "$scratch/$name"
    packaging/image.sh "$arch" "$scratch/$name/mountwarden" "$dist/mountwarden-$version-image-$arch.tar"
    # What a binary of another machine would write is the same.
    self=$scratch/$name/mountwarden
    [ "$arch" = "$own" ] || self=target/dist-$own/mountwarden-$version-linux-$own/mountwarden
    packaging/extras.sh "$self" "$scratch/$name"
    cp README.md LICENSE "$dist/third-party-licenses.txt" packaging/systemd/* packaging/icinga/mountwarden.conf "$scratch/$name"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$scratch" -c "$name" |
        gzip -9n >"$dist/$name.tar.gz"
done

# The package has the dynamic binary, so it is made for this machine's architecture alone.
"$cargo" build --release --locked --bin mountwarden
packaging/deb.sh "$own" "${CARGO_TARGET_DIR:-target}/release/mountwarden" "$dist"

for file in k8s/install*.yaml; do cp "$file" "$dist/"; done
cp alerts/rules.yaml "$dist/alert-rules.yaml"
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c dashboards/*.json |
    gzip -9n >"$dist/dashboards.tar.gz"

# Of what the binary is made of: dependencies of tests and of the build are not in it. Without the package's name the bill is
# one of the directory's name.
[ -x target/tools/bin/cargo-sbom ] || "$cargo" install --quiet --locked --root target/tools cargo-sbom@0.10.0
target/tools/bin/cargo-sbom --cargo-package mountwarden --output-format cyclone_dx_json_1_6 >"$dist/mountwarden-$version.cdx.json"

(cd "$dist" && sha256sum -- * >SHA256SUMS)
(cd "$dist" && ls -l)
