# Faults one after the other, and after each the server is asked without the mount (asks.rs).
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
# Only privileged ports may ask: that is what exports are like unless somebody says otherwise.
EXPORT_OPTIONS=${EXPORT_OPTIONS/insecure,/}
# Without fsid=0 the server makes the way from its root to the exports up. Its root has to be a filesystem that can be
# exported, which this machine's own is not.
if [ -n "${PSEUDO:-}" ]; then
  printf '[exports]\nrootdir=/mnt\n' >/run/nfs.conf
  mount --bind /run/nfs.conf /etc/nfs.conf
  export_dir() { in_srv exportfs -o "$EXPORT_OPTIONS,fsid=$(($2 + 5))" "*:${1#/mnt}"; }
  unexport_dir() { in_srv exportfs -u "*:${1#/mnt}"; }
  mkdir /mnt/other
fi
ask() {
  if [ -n "${ORDINARY:-}" ]; then
    setpriv --bounding-set=-net_bind_service /run/runner guest ask $MNT "$@"
  else
    /run/runner guest ask $MNT "$@"
  fi
}
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
# One that stays: a server without any export answers otherwise.
if [ -n "${PSEUDO:-}" ]; then export_dir /mnt/other 4; fi
client_mount || say "not mounted"
# State that has to be reclaimed: without any, a restarted server has no grace period.
exec 9>>$MNT/open-file
while read -r one; do
  ask || say "no baseline for $one"
  fault "${one%%:*}"
  ask "$one" >>/run/rows
  exec 9>&-
  heal "${one%%:*}"
  say "$one is over"
done </run/out/cases
cp /run/rows /run/out/rows
touch /run/out/finished
