# Two nodes of one export: the guest itself, and another one with a network, a host name and processes of its own, or the
# server would take both for one client. Each writes a canary and reads the other's (nodes.rs).
VERS=4.1 MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=tmpfs
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
net_up
second_node_up
what_to_export
serve
echo one >/proc/sys/kernel/hostname
client_mount || exit 1
printf 'canary: {mounts: [/mnt/cl], interval: 3s}\n' >/run/nodes.yaml
RUN="/run/agent run --config /run/nodes.yaml --interval 3s --timeout 1500ms"
$RUN >/run/out/one.log 2>&1 &
export VERS MODE OPTIONS SUBPATH RUN
nsenter --net=/run/netns/two unshare --uts --mount --pid --fork --mount-proc bash -c '
  . /run/lab/guest/lib.sh
  echo two >/proc/sys/kernel/hostname
  umount /mnt/cl
  SRV=10.0.2.1 client_mount && exec $RUN' >/run/out/two.log 2>&1 &
in_two() { nsenter --net=/run/netns/two -- "$@"; }
# One canary interval, what a record may be late by, and the boot of the agents.
/run/runner guest peer $MNT two fresh 20 >>/run/nodes
in_two /run/runner guest peer $MNT one fresh 20 >>/run/nodes
# The other node is cut off: twice what it promised, and ten seconds.
ip -n srv link set s2 down
/run/runner guest peer $MNT two silent 40 >>/run/nodes
ip -n srv link set s2 up
/run/runner guest peer $MNT two fresh 90 >>/run/nodes
cp /run/nodes /run/out/nodes
