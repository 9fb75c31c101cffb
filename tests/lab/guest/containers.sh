# Containers, a service and the host on one export, whose server comes back with another directory (containers.rs).
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
# As systemd leaves it: without shared mounts a container's copy could follow nobody.
mount --make-rshared /
/run/runner guest containers >/run/out/told
say "ended with $?"
