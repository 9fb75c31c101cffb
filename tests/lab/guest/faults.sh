# Sourced in the guest after lib.sh: the catalogue of faults. `fault NAME` makes one, `heal NAME` takes it away again.
# What each does on the wire, and what the kernel makes of it, is in the design's table of expected states; matrix.yaml
# says which of them a cell expects.

# swap_export COMMAND...: stops the server, lets COMMAND put something else under $EXP, starts it again.
swap_export() {
  server_stop
  in_srv exportfs -ua
  umount $EXP
  "$@"
  chmod 777 $EXP
  exports_up
  server_start
}
other_directory() {
  mkdir -p $STORE/pad{9..16} $STORE/b
  mount --bind $STORE/b $EXP
}
other_directory_filled() { other_directory; fill $EXP; }
other_filesystem() { mount -t tmpfs -o size=48M exp $EXP; }
same_size_filesystem() { mount -t tmpfs -o size=32M exp $EXP; }
# The agent of another node has written its canary there before this one looks.
used_filesystem() { same_size_filesystem && mkdir -m 777 $EXP/.mountwarden; }

# Silence in both directions: no reset, no ICMP.
cut_path() {
  ip -n srv rule add pref 0 to 10.0.1.2 blackhole
  tc qdisc replace dev v1 root netem loss 100%
}
restore_path() {
  ip -n srv rule del pref 0 to 10.0.1.2
  tc qdisc del dev v1 root
}

# Silence for the kernel's own connections alone: what the server answers to their ports is lost, what it answers to others'
# is not.
stick_client() { ip -n srv rule add pref 0 to 10.0.1.2 ipproto tcp dport $KERNEL_PORTS blackhole; }
let_client_go() { ip -n srv rule del pref 0 to 10.0.1.2 ipproto tcp dport $KERNEL_PORTS; }

# move_server FROM TO: the server has another address, and its name leads there.
move_server() {
  ip -n srv addr add "$2/24" dev s1
  ip -n srv addr del "$1/24" dev s1
  # With the first address of a network the kernel may take away the others.
  ip -n srv addr show dev s1 | grep -q "$2/" || ip -n srv addr add "$2/24" dev s1
  ip neigh replace "$2" lladdr 02:00:00:00:01:01 nud permanent dev v1
  hosts "$2"
}

# A client that does not come back after the server's restart: the server waits for it for the whole grace period. It has a
# network and a host name of its own, or the server would take it for the other one.
client_stays_away() {
  ip netns add away
  ip link add v2 netns away type veth peer name s2 netns srv
  ip -n away addr add 10.0.2.2/24 dev v2
  ip -n away link set v2 up
  ip -n srv addr add 10.0.2.1/24 dev s2
  ip -n srv link set s2 up
  export VERS MODE OPTIONS SUBPATH
  nsenter --net=/run/netns/away unshare --uts --mount bash -c '
    . /run/lab/guest/lib.sh
    echo away >/proc/sys/kernel/hostname
    umount /mnt/cl
    SRV=10.0.2.1 client_mount && exec 3>>$MNT/d/held && touch /run/away.mounted && exec sleep infinity' \
    </dev/null >/run/away.log 2>&1 &
  until [ -e /run/away.mounted ]; do sleep 0.05; done
  ip -n srv link set s2 down
}
in_grace() { [ "$(cat /proc/fs/nfsd/v4_end_grace)" = N ]; }

# The directory goes while a process has it as its working directory.
remove_under_a_process() {
  (cd $EXP/d && exec sleep infinity) &
  echo $! >/run/holder.pid
  until [ "$(readlink /proc/$!/cwd)" = $EXP/d ]; do sleep 0.02; done
  rm -rf $EXP/d
}

# Both go on until the server's own filesystem says that nothing is left.
use_up_space() { head -c 64M /dev/zero >$EXP/d/filler 2>/dev/null; [ "$(stat -fc %a $EXP)" = 0 ]; }
use_up_inodes() {
  local number
  mount -o remount,nr_inodes=200 $EXP
  mkdir $EXP/d/filler
  for ((number = 0; number < 200; number++)); do : >$EXP/d/filler/$number; done 2>/dev/null
  [ "$(stat -fc %d $EXP)" = 0 ]
}

# clock_by SECONDS: sets the wall clock ahead or back.
clock_by() { busybox date -s "@$(($(busybox date +%s) + $1))"; }
# Lets the agent look on.
a_round() { sleep 4; }

# ask_host WORD: what only the host can do to the server's guest; returns when it is done (machine.rs).
ask_host() {
  echo "$1" >/run/out/asking
  mv /run/out/asking /run/out/request
  while [ -e /run/out/request ]; do sleep 0.02; done
}

# export_as OPTIONS: the same export, otherwise.
export_as() { in_srv exportfs -o "$1,insecure,no_subtree_check,fsid=0" "*:$EXP"; }

fault() {
  case $1 in
    none) ;;
    # The rounds are the fault: none of them may raise an alarm.
    churn) /run/runner guest churn "$MNT" 10000 ;;
    restart) server_stop; server_start ;;
    # The only entries that the agent may have remembered are gone for an ordinary reason, and the server restarts.
    restart_emptied) rm -rf ${EXP:?}/*; server_stop; server_start ;;
    drop) cut_path ;;
    link) ip -n srv link set s1 down ;;
    refused) server_stop ;;
    # A listener that nobody serves: the kernel accepts, no call is ever answered.
    process_stopped)
      server_stop
      # Spelled out, because $! of a function is a shell around it.
      nsenter --net=/run/netns/srv -- /run/runner guest tarpit 2049 >/run/tarpit.log 2>&1 &
      echo $! >/run/tarpit.pid
      until grep -q listening /run/tarpit.log; do sleep 0.02; done
      ;;
    # nfsd runs but cannot ask anybody who may use which export.
    mountd_stopped) kill -STOP "$(pidof rpc.mountd)"; in_srv exportfs -f ;;
    machine_frozen) ask_host freeze ;;
    port_dropped) ip -n srv rule add pref 0 to 10.0.1.2 ipproto tcp sport 2049 blackhole ;;
    name_gone) hosts ;;
    client_stuck) stick_client ;;
    address_changed) move_server 10.0.1.1 10.0.1.7 ;;
    proxy_drop_nameless) cut_path; hosts ;;
    # Its state file stays: only its own watchdog would take it away.
    proxy_dead) kill -9 "$(cat /run/proxy.pid)" ;;
    grace) client_stays_away; server_stop; server_start; in_grace ;;
    # What the user has is all that he may have from now on.
    quota) /run/runner guest quota /dev/loop0 1000 full ;;
    swap_dir) swap_export other_directory ;;
    swap_dir_filled) swap_export other_directory_filled ;;
    swap_tmpfs) swap_export other_filesystem ;;
    swap_same_size) swap_export same_size_filesystem ;;
    swap_same_size_used) swap_export used_filesystem ;;
    unexport) unexport_dir $EXP ;;
    unexport_beside) unexport_dir $EXP/data ;;
    rmsub) rm -rf $EXP/d ;;
    resub) rm -rf $EXP/d; mkdir $EXP/d; echo new >$EXP/d/f; chmod 777 $EXP/d ;;
    rmsub_held) remove_under_a_process ;;
    excluded) unexport_dir $EXP; in_srv exportfs -o "$EXPORT_OPTIONS,fsid=0" "10.0.1.9:$EXP" ;;
    full) use_up_space ;;
    full_of_inodes) use_up_inodes ;;
    freeze) fsfreeze -f $EXP ;;
    export_ro) export_as "ro,no_root_squash" ;;
    # Only privileged ports may ask, as everywhere that nobody says otherwise.
    readonly_export) in_srv exportfs -o "${EXPORT_OPTIONS/rw,/ro,},fsid=0" "*:$EXP" ;;
    # Nobody but root may write there, and root is nobody on the server now.
    squash) chmod 755 $EXP; export_as "rw,root_squash" ;;
    squash_all) chmod 755 $EXP; export_as "rw,all_squash" ;;
    # The directory belongs to the user that the canary writes as.
    squash_owned) chown -R 1000:1000 $EXP; chmod 755 $EXP; export_as "rw,root_squash" ;;
    clock) clock_by 21600; a_round; clock_by -43200 ;;
    clock_drop) cut_path; clock_by 21600 ;;
    *) say "no fault named $1"; return 1 ;;
  esac
}

heal() {
  case $1 in
    none | churn | restart | restart_emptied | clock) ;;
    drop) restore_path ;;
    link)
      ip -n srv link set s1 up
      ip -n srv neigh replace 10.0.1.2 lladdr 02:00:00:00:01:02 nud permanent dev s1
      ;;
    refused) server_start ;;
    process_stopped) kill "$(cat /run/tarpit.pid)"; wait_port_free; server_start ;;
    mountd_stopped) kill -CONT "$(pidof rpc.mountd)" ;;
    machine_frozen) ask_host thaw ;;
    port_dropped) ip -n srv rule del pref 0 to 10.0.1.2 ipproto tcp sport 2049 ;;
    name_gone) hosts 10.0.1.1 ;;
    client_stuck) let_client_go ;;
    address_changed) move_server 10.0.1.7 10.0.1.1 ;;
    proxy_drop_nameless) restore_path; hosts 10.0.1.1 ;;
    proxy_dead) proxy_start ;;
    grace) end_grace ;;
    quota) /run/runner guest quota /dev/loop0 1000 free ;;
    unexport | unexport_beside) exports_up ;;
    # The restarted server would keep a canary of v4.0 waiting for its grace period.
    swap_same_size_used) end_grace; client_remount ;;
    swap_*) client_remount ;;
    rmsub) mkdir $EXP/d; client_remount ;;
    rmsub_held) kill "$(cat /run/holder.pid)"; mkdir $EXP/d; client_remount ;;
    resub) client_remount ;;
    excluded) in_srv exportfs -u "10.0.1.9:$EXP"; exports_up ;;
    full | full_of_inodes) rm -rf $EXP/d/filler ;;
    clock_drop) clock_by -43200; a_round; restore_path ;;
    freeze) fsfreeze -u $EXP ;;
    export_ro | readonly_export) exports_up ;;
    squash | squash_all | squash_owned) chmod 777 $EXP; exports_up ;;
    *) say "no way to heal $1"; return 1 ;;
  esac
}

end_grace() { echo Y >/proc/fs/nfsd/v4_end_grace; }
wait_port_free() { while in_srv ss -Hltn 'sport = :2049' | grep -q .; do sleep 0.05; done; }
