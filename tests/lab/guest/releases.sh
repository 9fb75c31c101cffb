# Pods with users stuck on a mount whose server is silent, and what lets go of them (releases.rs).
cat >/run/out/cell.env <<ENV
VERS=$LAB_VERSION MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=dir
ENV
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/run/runner guest releases "$LAB_ONLY" "$LAB_RUNS" >/run/out/told
say "cases ended with $?"
dmesg | grep -iE 'nfs|rpc' | tail -5
