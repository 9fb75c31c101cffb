# Faults one after the other, and after each `mountwarden diagnose` is asked about an export or a mounted path
# (diagnoses.rs). A case is a line `NAME|FAULT|TARGET|ARGUMENTS`; the faults beyond those of faults.sh are here.
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
# Only privileged ports may ask: that is what exports are like unless somebody says otherwise.
if [ -z "${INSECURE:-}" ]; then EXPORT_OPTIONS=${EXPORT_OPTIONS/insecure,/}; fi
hosts() { echo "127.0.0.1 localhost" >/run/hosts; if [ $# -gt 0 ]; then echo "$1 nfs-server" >>/run/hosts; fi; }
hosts 10.0.1.1
mount --bind /run/hosts /etc/hosts
echo 'nameserver 127.0.0.1' >/run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
if [ -n "${BY_NAME:-}" ]; then SRV=nfs-server; fi
if [ -n "${PROXY:-}" ]; then
  mkdir -p /run/efs /run/bin
  cp /run/runner /run/bin/efs-proxy
  client_mount() {
    mkdir -p $MNT
    /run/bin/efs-proxy guest forward 20173 10.0.1.1:2049 >/run/proxy.log 2>&1 &
    echo $! >/run/proxy.pid
    until grep -q listening /run/proxy.log; do sleep 0.02; done
    echo "{\"pid\": $(cat /run/proxy.pid), \"mountpoint\": \"$MNT\", \"region\": \"eu-west-1\"}" \
      >/run/efs/fs-0123456789abcdef0.mnt.cl.20173
    mount -t nfs4 -o "vers=$VERS,port=20173,noresvport,$MODE,$OPTIONS" 127.0.0.1:/ $MNT
  }
fi
more_faults() {
  case $1 in
    name_gone) hosts ;;
    port_dropped) ip -n srv rule add pref 0 to 10.0.1.2 ipproto tcp sport 2049 blackhole ;;
    moved)
      ip -n srv addr add 10.0.1.7/24 dev s1
      ip -n srv addr del 10.0.1.1/24 dev s1
      ip -n srv addr show dev s1 | grep -q 10.0.1.7 || ip -n srv addr add 10.0.1.7/24 dev s1
      ip neigh replace 10.0.1.7 lladdr 02:00:00:00:01:01 nud permanent dev v1
      hosts 10.0.1.7
      ;;
    readonly_export) in_srv exportfs -o "${EXPORT_OPTIONS/rw,/ro,},fsid=0" "*:$EXP" ;;
    proxy_killed) kill -9 "$(cat /run/proxy.pid)" ;;
    *) fault "$1" ;;
  esac
}
more_heal() {
  case $1 in
    name_gone) hosts 10.0.1.1 ;;
    port_dropped) ip -n srv rule del pref 0 to 10.0.1.2 ipproto tcp sport 2049 ;;
    # They are the last of their guests.
    moved | proxy_killed) ;;
    readonly_export) exports_up ;;
    *) heal "$1" ;;
  esac
}
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
    more_heal "$last"
    # A mount that was dead answers again before the next fault.
    if [ "$last" != none ]; then timeout 60 /run/runner guest statx $MNT || say "not healed: $last"; fi
    more_faults "$what" || say "the fault $what failed"
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
