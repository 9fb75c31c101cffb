#!/bin/sh
# Builds the static binary: packaging/static.sh amd64|arm64 DIRECTORY
#
# musl, since a static glibc loads libnss_*.so of the very version it was built with when it resolves a name. What is lost:
# names that only nsswitch knows (sssd, mDNS); the Debian package has the dynamic binary for hosts with such names.
set -eu

case "${1:-}" in
amd64) target=x86_64-unknown-linux-musl ;;
arm64)
    target=aarch64-unknown-linux-musl
    # Debian's cross compiler: for the C parts, and as the linker of Rust's own musl.
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
    export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar
    ;;
*)
    echo "usage: $0 amd64|arm64 DIRECTORY" >&2
    exit 64
    ;;
esac
directory=${2:?the directory to put mountwarden into}

if command -v rustup >/dev/null; then
    rustup -q target add "$target"
fi
# In the repository: its toolchain file says which Rust.
"${CARGO:-cargo}" build --release --locked --target "$target" --bin mountwarden
mkdir -p "$directory"
cp "${CARGO_TARGET_DIR:-target}/$target/release/mountwarden" "$directory/mountwarden"
chmod 755 "$directory/mountwarden"
