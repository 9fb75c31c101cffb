# Two nodes that mount three directories of one server each, under one name (prometheus.rs). The host says what happens next:
# it puts a file `order` into the directory that both see, and waits until it is gone.
VERS=4.1 MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=dir
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
net_up
second_node_up
what_to_export
serve

# The same name on both nodes, at the address that the node reaches.
cat >/run/node.sh <<'NODE'
. /run/lab/guest/lib.sh
VERS=4.1 MODE=hard OPTIONS=timeo=10,retrans=2
each() { for name in d projects logs; do "$@" $name; done; }
mount_one() { mkdir -p /mnt/$1; mount -t nfs4 -o vers=$VERS,$MODE,$OPTIONS nas:/$1 /mnt/$1; }
umount_one() { umount -l /mnt/$1; }
start() {
  echo "$1" >/proc/sys/kernel/hostname
  printf '127.0.0.1 localhost\n%s nas\n' "$2" >/run/hosts.$1
  mount --bind /run/hosts.$1 /etc/hosts
  # What this node's mounts were copied from may have had the other's already.
  each umount_one 2>/dev/null
  each mount_one
  printf 'canary: {mounts: ["/mnt/d"], interval: 3s}\nbackoff_max: 12s\n' >/run/agent.$1.yaml
  /run/runner guest relay /run/out/$1.prom &
  exec /run/agent run --config /run/agent.$1.yaml --interval 3s --timeout 1500ms --listen 127.0.0.1:12049 \
    --listen-ui 127.0.0.1:12050
}
NODE
# Processes of its own for each: a node that saw the other's would take them for containers with old copies of its mounts.
node() { exec unshare --uts --mount --pid --fork --mount-proc bash -c ". /run/node.sh; start $1 $2" >/run/out/$1.log 2>&1; }
node one 10.0.1.1 &
one=$!
nsenter --net=/run/netns/two bash -c "$(declare -f node); node two 10.0.2.1" &
two=$!

# agent PID: the first process of the node's pid namespace, a child of unshare.
agent() { local inner; read -r inner _ </proc/$1/task/$1/children; echo $inner; }
remount() {
  nsenter --target $(agent $1) --net --mount --uts --pid -- bash -c ". /run/node.sh; each umount_one; each mount_one"
}
configure() { sed -i "$2" /run/agent.$1.yaml; kill -HUP $(agent $3); }
other_filesystem_filled() { other_filesystem; fill $EXP; }
obey() {
  case $1 in
    drop) ip -n srv rule add pref 0 to 10.0.0.0/16 blackhole ;;
    heal) ip -n srv rule del pref 0 to 10.0.0.0/16 blackhole ;;
    # Another filesystem: of another directory of the same one, NFSv4 would go on serving what lies below the root.
    swap) swap_export other_filesystem_filled ;;
    remount) remount $one; remount $two ;;
    cut_two) ip -n srv rule add pref 0 to 10.0.2.0/24 blackhole ;;
    join_two) ip -n srv rule del pref 0 to 10.0.2.0/24 blackhole ;;
    spoil) configure one 's/^backoff_max/backof_max/' $one ;;
    mend) configure one 's/^backof_max/backoff_max/' $one ;;
    *) say "no order named $1" ;;
  esac
}
while sleep 0.1; do
  [ -e /run/out/order ] || continue
  order=$(cat /run/out/order)
  say "order: $order"
  [ "$order" = end ] && break
  obey "$order"
  rm /run/out/order
done
