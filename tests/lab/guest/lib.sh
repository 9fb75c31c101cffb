# Sourced in the guest: network, server, exports, client mount. Makes no fault; faults.sh does.
#
#   client: the guest's own network namespace, 10.0.1.2 --veth-- 10.0.1.1, namespace "srv": the server
#
# nfsd's sockets, export caches, client records and grace period belong to a network namespace, so the kernel's server
# in "srv" behaves like one on another machine.
SRV=10.0.1.1
EXP=/mnt/exp            # what the server exports; the root of the NFSv4 tree (fsid=0)
STORE=/mnt/store        # where directories and images that back the export lie
MNT=/mnt/cl             # where the client mounts it
EXPORT_OPTIONS=rw,no_root_squash,insecure,no_subtree_check
EFS=fs-0123456789abcdef0 # what is mounted through a local proxy, and the proxy's port
PROXY_PORT=20173
KERNEL_PORTS=600-640    # from where the kernel's client comes; nobody else takes these

uptime_now() { local now rest; read -r now rest </proc/uptime; echo "$now"; }
say() { echo "[$(uptime_now)] $*"; }
in_srv() { nsenter --net=/run/netns/srv -- "$@"; }

load_modules() {
  if [ ! -d /run/modules/lib/modules ]; then
    mkdir -p /run/modules/lib/modules
    mount --bind /usr/lib/uml/modules /run/modules/lib/modules
  fi
  modprobe -d /run/modules -a "$@"
}

net_up() {
  ip netns add srv
  # Permanent neighbours: a cut path must be silent, not EHOSTUNREACH from a failed ARP.
  ip -batch - <<'IP'
link set lo up
link add v1 address 02:00:00:00:01:02 type veth peer name s1 address 02:00:00:00:01:01 netns srv
addr add 10.0.1.2/24 dev v1
link set v1 up
neigh replace 10.0.1.1 lladdr 02:00:00:00:01:01 nud permanent dev v1
IP
  ip -n srv -batch - <<'IP'
link set lo up
addr add 10.0.1.1/24 dev s1
link set s1 up
neigh replace 10.0.1.2 lladdr 02:00:00:00:01:02 nud permanent dev s1
IP
}

# Another client of the server, with a network of its own: namespace `two`, 10.0.2.2; the server is 10.0.2.1 there.
second_node_up() {
  ip netns add two
  ip -batch - <<'IP'
link add v2 netns two type veth peer name s2 netns srv
IP
  ip -n two addr add 10.0.2.2/24 dev v2
  ip -n two link set v2 up
  ip -n two link set lo up
  ip -n srv addr add 10.0.2.1/24 dev s2
  ip -n srv link set s2 up
}

# kernel_ports: from NFSv4.1 on the kernel comes back from another port than before.
kernel_ports() {
  echo "${KERNEL_PORTS%-*}" >/proc/sys/sunrpc/min_resvport
  echo "${KERNEL_PORTS#*-}" >/proc/sys/sunrpc/max_resvport
}

# net_plug ADDRESS: the cable to another guest instead.
net_plug() {
  ip -batch - <<IP
link set lo up
addr add $1/24 dev eth0
link set eth0 up
IP
}

# hosts [ADDRESS]: where the server's names lead; nowhere without one.
hosts() {
  echo "127.0.0.1 localhost" >/run/hosts
  if [ $# -gt 0 ]; then echo "$1 nfs-server $EFS.efs.eu-west-1.amazonaws.com" >>/run/hosts; fi
}

# names_up: names are known by /etc/hosts alone. No resolver answers for others.
names_up() {
  hosts $SRV
  mount --bind /run/hosts /etc/hosts
  echo 'nameserver 127.0.0.1' >/run/resolv.conf
  mount --bind /run/resolv.conf /etc/resolv.conf
}

# ---- what is exported ---------------------------------------------------------------------------------------------

# backing KIND: puts a filesystem under $EXP.
#   tmpfs  a filesystem of its own   dir  one directory of a larger one   ext4  an image on a loop device
#   quota  the same, and users' quotas are kept
backing() {
  mkdir -p $EXP $STORE
  case $1 in
    tmpfs) mount -t tmpfs -o size=32M exp $EXP ;;
    dir)
      mount -t tmpfs -o size=32M store $STORE
      # The first directories take the low inode numbers: a v4 client takes a replaced root for the old one if the
      # directory it is mounted on happens to have the old root's number (mounted_on_fileid).
      mkdir $STORE/pad{1..8} $STORE/a
      mount --bind $STORE/a $EXP
      ;;
    ext4 | quota)
      local features=^has_journal options=loop
      load_modules loop
      if [ "$1" = quota ]; then
        load_modules quota_v2
        features+=,quota
        options+=,usrquota
      fi
      mount -t tmpfs -o size=40M store $STORE
      truncate -s 32M $STORE/img
      mke2fs -q -t ext4 -F -O "$features" $STORE/img
      [ -b /dev/loop0 ] || mknod -m 600 /dev/loop0 b 7 0
      mount -o "$options" $STORE/img $EXP
      ;;
    *) say "no backing store named $1"; return 1 ;;
  esac
}

# fill DIR: files and directories as a user would have them; the agent learns sentinels from them.
fill() {
  local dir
  mkdir -p "$1"/{d,projects,logs}/deep
  for dir in "$1" "$1"/d "$1"/projects "$1"/logs; do echo "hello from $dir" >"$dir/f"; done
  head -c 200000 /dev/zero >"$1/big"
  chmod 777 "$1" "$1"/d
}

export_dir() { in_srv exportfs -o "$EXPORT_OPTIONS,fsid=$2" "*:$1"; }
unexport_dir() { in_srv exportfs -u "*:$1"; }

# what_to_export: the backing store of this cell with something in it.
what_to_export() {
  backing "$BACKING"
  if [ "$LAYOUT" = beside ]; then
    mkdir $EXP/data
    mount -t tmpfs -o size=16M data $EXP/data
    fill $EXP/data
  else
    fill $EXP
  fi
}

# exports_up: the exports of this cell. "beside": the client mounts an export below another one, which stays.
exports_up() {
  export_dir $EXP 0
  if [ "${LAYOUT:-alone}" = beside ]; then export_dir $EXP/data 1; fi
}

# ---- the kernel's NFS server --------------------------------------------------------------------------------------

server_prepare() {
  mkdir -p /var/lib/nfs/{v4recovery,sm,nfsdcld} /run/rpc_pipefs
  touch /var/lib/nfs/{etab,rmtab,state}
  # Without IPv6 transports to try, rpc.mountd and rpcbind start half a second earlier.
  grep -v 6 /etc/netconfig >/run/netconfig && mount --bind /run/netconfig /etc/netconfig
  # Both filesystems belong to the network namespace that mounts them.
  in_srv mount -t nfsd nfsd /proc/fs/nfsd
  in_srv mount -t rpc_pipefs pipes /run/rpc_pipefs
  # Outside the first network namespace NFSv4 clients are recorded through nfsdcld only; without it every OPEN
  # waits for the whole grace period.
  in_srv nfsdcld -p /run/rpc_pipefs -s /var/lib/nfs/nfsdcld
  if [ "$VERS" = 3 ]; then
    mkdir -p /run/rpcbind
    in_srv rpcbind -w 2>/dev/null
    in_srv rpc.mountd -p 20048 -t 1 2>/dev/null
  else
    in_srv rpc.mountd -N 3 -t 1 2>/dev/null
  fi
}

server_start() {
  local nfsd=/proc/fs/nfsd versions="-3 +4 +4.0 +4.1 +4.2"
  if [ "$VERS" = 3 ]; then versions="+3 -4"; fi
  if [ -n "${LEASE:-}" ]; then
    echo "$LEASE" >$nfsd/nfsv4leasetime
    echo "$LEASE" >$nfsd/nfsv4gracetime
  fi
  echo "$versions" >$nfsd/versions
  # The sockets are made in the namespace of the process that writes here.
  in_srv bash -c "echo 'tcp 2049' >$nfsd/portlist && echo 4 >$nfsd/threads"
}

# The listener closes: the client's connection ends and new ones are refused.
server_stop() { in_srv bash -c 'echo 0 >/proc/fs/nfsd/threads'; }

serve() {
  server_prepare
  exports_up
  server_start
}

# ---- the client ---------------------------------------------------------------------------------------------------

# client_mount: mounts $SUBPATH of the export with $VERS, $MODE and $OPTIONS at $MNT, in the way of $CLIENT: `direct` by
# the server's address, `by_name`, or `proxy`, as efs-utils mounts through a program of its own on this host.
client_mount() {
  local server=$SRV
  mkdir -p $MNT
  case ${CLIENT:-direct} in
    by_name) server=nfs-server ;;
    proxy)
      proxy_start
      mount -t nfs4 -o "vers=$VERS,port=$PROXY_PORT,noresvport,$MODE,$OPTIONS" "127.0.0.1:$SUBPATH" $MNT
      return
      ;;
  esac
  case $VERS in
    3) mount -t nfs -o "vers=3,nolock,proto=tcp,mountproto=tcp,mountport=20048,port=2049,$MODE,$OPTIONS" \
         "$server:$EXP${SUBPATH%/}" $MNT ;;
    *) mount -t nfs4 -o "vers=$VERS,$MODE,$OPTIONS" "$server:$SUBPATH" $MNT ;;
  esac
}

# proxy_start: what efs-utils leaves of a mount over TLS: the program, and the state file that names it.
proxy_start() {
  mkdir -p /run/efs /run/bin
  ln -sf /run/runner /run/bin/efs-proxy
  /run/bin/efs-proxy guest forward $PROXY_PORT $SRV:2049 >/run/proxy.log 2>&1 &
  echo $! >/run/proxy.pid
  until grep -q listening /run/proxy.log; do sleep 0.02; done
  echo "{\"pid\": $(cat /run/proxy.pid), \"mountpoint\": \"$MNT\", \"region\": \"eu-west-1\"}" \
    >/run/efs/$EFS."$(tr / . <<<"${MNT#/}")".$PROXY_PORT
}

# What an administrator does about a mount that will not come back.
client_remount() {
  umount $MNT || umount -l $MNT
  client_mount
}
