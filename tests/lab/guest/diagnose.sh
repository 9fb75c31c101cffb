# Faults one after the other, and after each `mountwarden diagnose` is asked about an export or a mounted path
# (diagnoses.rs). A case is a line `NAME|FAULT|TARGET|ARGUMENTS`.
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
# Only privileged ports may ask: that is what exports are like unless somebody says otherwise.
if [ -z "${INSECURE:-}" ]; then EXPORT_OPTIONS=${EXPORT_OPTIONS/insecure,/}; fi
names_up
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
client_mount || say "not mounted"
/run/runner guest statx $MNT || say "the mount does not answer"
last=none
while IFS='|' read -r name what target arguments; do
  if [ "$what" != "$last" ]; then
    heal "$last"
    # A mount that was dead answers again before the next fault.
    if [ "$last" != none ]; then timeout 60 /run/runner guest statx $MNT || say "not healed: $last"; fi
    fault "$what" || say "the fault $what failed"
    last=$what
  fi
  # Somebody who waits for the mount, until it is healed.
  if [ "$target" = "$MNT" ] && [ "$what" != none ]; then cat $MNT/d/f >/dev/null 2>&1 & fi
  # shellcheck disable=SC2086
  /run/agent diagnose "$target" $arguments --timeout 2s >"/run/out/$name.txt" 2>&1
  echo "exit $?" >>"/run/out/$name.txt"
  # shellcheck disable=SC2086
  /run/agent diagnose "$target" $arguments --timeout 2s --json >"/run/out/$name.json" 2>>/run/out/guest.log
  say "$name is done"
done </run/out/cases
touch /run/out/finished
