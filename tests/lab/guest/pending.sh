# A pod that does not start because its volume cannot be mounted (pending.rs).
cat >/run/out/cell.env <<ENV
VERS=$LAB_VERSION MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=dir
ENV
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
names_up
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
/run/runner guest pending "$LAB_FAULT" "$LAB_CAUSE" >/run/out/told
say "it ended with $?"
