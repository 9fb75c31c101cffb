# Faults one after the other, and after each the server is asked without the mount (asks.rs).
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
# Only privileged ports may ask: that is what exports are like unless somebody says otherwise.
EXPORT_OPTIONS=${EXPORT_OPTIONS/insecure,/}
# Inodes with room for the time of making; small images get smaller ones.
mke2fs() { command mke2fs -I 256 "$@"; }
# A fresh filesystem of the same kind and size: the same root inode, another time of making.
other_ext4() {
  truncate -s 32M $STORE/img2
  mke2fs -q -t ext4 -F -O ^has_journal $STORE/img2
  mount -o loop $STORE/img2 $EXP
}
make() { if [ "$1" = swap_ext4 ]; then exec 9>&-; sleep 1.1; swap_export other_ext4; else fault "$1"; fi; }
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
client_mount || say "not mounted"
# State that has to be reclaimed: without any, a restarted server has no grace period.
exec 9>>$MNT/open-file
for one in $FAULTS; do
  /run/runner guest ask $MNT || say "no baseline for $one"
  make "${one%%:*}"
  /run/runner guest ask $MNT "$one" >>/run/rows
  exec 9>&-
  heal "${one%%:*}"
  say "$one is over"
done
cp /run/rows /run/out/rows
