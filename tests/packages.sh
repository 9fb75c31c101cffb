#!/bin/sh
# Installs the Debian packages that a make target lacks: packages.sh build|test|lab|demo|bench|image|page
#
# Says nothing and does nothing when none is lacking. Without root it names them and fails. Daemons among them (the NFS
# server of the lab, the exporter of the benchmark) are neither started nor enabled: only their files are wanted.
set -eu

# A linker and the C library's headers: all that cargo does not bring along.
build='gcc libc6-dev'
# The guest's kernel, and what its client and server side run; the guest sees the files of this machine, the certificates
# that a client of the API server wants among them.
lab='user-mode-linux nfs-kernel-server nfs-common rpcbind iproute2 kmod util-linux mount busybox-static procps e2fsprogs
    ca-certificates'
# strace shows that the agent itself touches no mount; promtool and amtool test the alerts, Prometheus runs them and the dashboards.
test="$lab strace prometheus prometheus-alertmanager"
# The peer that the benchmark measures beside the agent; one figure comes from a guest of the lab.
bench="$lab prometheus-node-exporter"

# A static binary and its cross compiler, an image without a registry, the Debian package.
image="$build musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross buildah podman runc dpkg-dev python3"
# A browser that looks at the status page, and what fetches the accessibility checker.
page='chromium fonts-dejavu-core'
command -v npm >/dev/null || page="$page npm"

case "${1:-}" in
build) wanted=$build ;;
image) wanted=$image ;;
lab | demo) wanted="$build $lab" ;;
test) wanted="$build $test" ;;
bench) wanted="$build $bench" ;;
page) wanted="$build $page" ;;
*)
    echo "usage: $0 build|test|lab|demo|bench|image|page" >&2
    exit 64
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: this is no Debian; make sure that you have what these packages hold: $wanted" >&2
    exit 0
fi

lacking=''
for package in $wanted; do
    # shellcheck disable=SC2016 # dpkg-query replaces it, not the shell
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || lacking="$lacking $package"
done
[ -n "$lacking" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "packages.sh: these Debian packages are lacking:$lacking" >&2
    echo "packages.sh: install them with: sudo apt-get install --no-install-recommends$lacking" >&2
    exit 1
fi

# invoke-rc.d(8) asks this file whether a daemon may be started; 101 means no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "packages.sh: installing$lacking"
export DEBIAN_FRONTEND=noninteractive
# Another apt-get may be at work, on a fresh machine most of all: wait for it.
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >&2; }
apt update || echo "packages.sh: the package lists could not be renewed; trying with those at hand" >&2
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends $lacking

# Installed for their files: what was not here before must not come up at the next boot either.
if command -v systemctl >/dev/null; then
    for package in $lacking; do
        case "$package" in
        nfs-kernel-server) units='nfs-server.service' ;;
        nfs-common) units='nfs-client.target' ;;
        rpcbind) units='rpcbind.service rpcbind.socket' ;;
        prometheus-node-exporter | prometheus | prometheus-alertmanager) units="$package.service" ;;
        *) continue ;;
        esac
        # shellcheck disable=SC2086 # a list of words
        systemctl disable --quiet $units || echo "packages.sh: could not disable $units" >&2
    done
fi
