# A server that comes back with another directory, and a pod that nobody has to bring back (story.rs).
cat >/run/out/cell.env <<ENV
VERS=$LAB_VERSION MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=$LAB_BACKING
ENV
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/run/runner guest story "$LAB_FAULT" "$LAB_POLICY" "$LAB_ENDS" >/run/out/told
say "the story ended with $?"
