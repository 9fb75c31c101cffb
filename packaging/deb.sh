#!/bin/sh
# Makes the Debian package: packaging/deb.sh amd64|arm64 BINARY DIRECTORY
#
# BINARY is the dynamic one: on a plain host names are resolved as its nsswitch.conf says, like the mount helpers do.
set -eu

arch=${1:?amd64 or arm64} binary=${2:?the binary} directory=${3:?where the package goes}
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH="$epoch"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
put() { install -D -m "$1" "$2" "$root/$3"; }

put 755 "$binary" usr/bin/mountwarden
put 644 packaging/systemd/config.yaml etc/mountwarden/config.yaml
put 644 packaging/icinga/mountwarden.conf usr/share/mountwarden/icinga/mountwarden.conf
sed 's|/usr/local/bin/|/usr/bin/|' packaging/systemd/mountwarden.service >"$scratch/unit"
put 644 "$scratch/unit" lib/systemd/system/mountwarden.service
sed -i 's|/usr/local/bin/|/usr/bin/|' "$root/usr/share/mountwarden/icinga/mountwarden.conf"
packaging/extras.sh "$binary" "$scratch/extras"
for page in "$scratch"/extras/man/*.1; do
    gzip -9n "$page"
    put 644 "$page.gz" "usr/share/man/man1/$(basename "$page").gz"
done
put 644 "$scratch/extras/completions/mountwarden.bash" usr/share/bash-completion/completions/mountwarden
put 644 "$scratch/extras/completions/_mountwarden" usr/share/zsh/vendor-completions/_mountwarden
put 644 "$scratch/extras/completions/mountwarden.fish" usr/share/fish/vendor_completions.d/mountwarden.fish
put 644 README.md usr/share/doc/mountwarden/README.md
for file in docs/*.md docs/*.svg docs/example-config.yaml; do put 644 "$file" "usr/share/doc/mountwarden/$file"; done
for file in alerts/*.yaml dashboards/*.json; do put 644 "$file" "usr/share/mountwarden/$file"; done
{
    echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
    echo
    echo 'Files: *'
    echo 'Copyright: the mountwarden authors'
    echo 'License: Apache-2.0'
    echo ' The whole text follows.'
    sed 's/^$/./; s/^/ /' LICENSE
} >"$scratch/copyright"
put 644 "$scratch/copyright" usr/share/doc/mountwarden/copyright
packaging/notices.py "$scratch/notices"
put 644 "$scratch/notices" usr/share/doc/mountwarden/third-party-licenses.txt

# Which C library it wants, by its symbols.
mkdir -p "$scratch/debian" "$root/DEBIAN"
printf 'Source: mountwarden\n\nPackage: mountwarden\nArchitecture: any\n' >"$scratch/debian/control"
depends=$(cd "$scratch" && dpkg-shlibdeps -O "$root/usr/bin/mountwarden" | sed -n 's/^shlibs:Depends=//p')
cat >"$root/DEBIAN/control" <<CONTROL
Package: mountwarden
Version: $version
Architecture: $arch
Maintainer: the mountwarden authors <maintainers@mountwarden.invalid>
Installed-Size: $(du -sk "$root/usr" | cut -f 1)
Depends: $depends
Suggests: nfs-common, prometheus
Section: admin
Priority: optional
Description: tells which network mounts of a host are dead, and why
 Probes NFS, EFS, CIFS and FUSE mounts from processes of their own, so that a
 server that does not answer blocks nothing, and says which are hung, stale,
 lost, denied or full, and what to do: as metrics for Prometheus, a page, a
 Nagios plugin and on the command line.
CONTROL
echo /etc/mountwarden/config.yaml >"$root/DEBIAN/conffiles"
# What dh_installsystemd writes: enabled and started at the first installation, restarted by an upgrade.
cat >"$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper unmask mountwarden.service >/dev/null || true
    if deb-systemd-helper --quiet was-enabled mountwarden.service; then
        deb-systemd-helper enable mountwarden.service >/dev/null || true
    else
        deb-systemd-helper update-state mountwarden.service >/dev/null || true
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        if [ -n "$2" ]; then action=restart; else action=start; fi
        deb-systemd-invoke $action mountwarden.service >/dev/null || true
    fi
fi
SCRIPT
cat >"$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ] && [ -x /usr/bin/deb-systemd-invoke ]; then
    deb-systemd-invoke stop mountwarden.service >/dev/null || true
fi
SCRIPT
cat >"$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ] && [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper purge mountwarden.service >/dev/null || true
fi
SCRIPT
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
find "$root" -depth -newermt "@$epoch" -exec touch -hd "@$epoch" {} +
mkdir -p "$directory"
dpkg-deb --root-owner-group -Zxz --build "$root" "$directory/mountwarden_${version}_$arch.deb"
