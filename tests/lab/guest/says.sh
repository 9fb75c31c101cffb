# Faults one after the other on a watched mount, and after each what the agent's log, the metrics, `check` and `diagnose`
# say (says.rs). A case is a line `NAME|FAULT|STATE|CAUSE|TARGET|ARGUMENTS`.
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
kernel_ports
names_up
net_up
what_to_export
serve
client_mount || say "not mounted"
cat >/run/says.yaml <<YAML
canary: {mounts: [$MNT], interval: 3s, identity: "$CANARY"}
YAML
/run/agent run --config /run/says.yaml --interval 3s --timeout 1500ms --log-format text >/run/out/agent.log 2>&1 &
explained() { /run/runner guest explained "$MNT" "$1" "$2" 100 >>/run/out/guest.log || say "$name: never said $1 $2"; }
name=start
explained healthy -
while IFS='|' read -r name what state cause target arguments; do
  fault "$what" || say "the fault $what failed"
  explained "$state" "$cause"
  grep -F "mountpoint=\"$MNT\"" /run/out/agent.log | grep -F state= | tail -1 >"/run/out/$name.log"
  /run/runner guest metrics "$MNT" >"/run/out/$name.metrics"
  /run/agent check "$MNT" >"/run/out/$name.check" 2>&1
  # Somebody who waits for the mount, until it is healed.
  if [ "$state" = hung ]; then cat $MNT/d/f >/dev/null 2>&1 & fi
  # shellcheck disable=SC2086
  /run/agent diagnose "$target" $arguments --timeout 2s >"/run/out/$name.diagnose" 2>&1
  heal "$what"
  timeout 90 /run/runner guest statx $MNT || say "not healed: $what"
  explained healthy -
  say "$name is done"
done </run/out/cases
touch /run/out/finished
