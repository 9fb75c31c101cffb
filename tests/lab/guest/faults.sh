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

# Silence in both directions: no reset, no ICMP.
cut_path() {
  ip -n srv rule add pref 0 to 10.0.1.2 blackhole
  tc qdisc replace dev v1 root netem loss 100%
}
restore_path() {
  ip -n srv rule del pref 0 to 10.0.1.2
  tc qdisc del dev v1 root
}

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
    swap_dir) swap_export other_directory ;;
    swap_dir_filled) swap_export other_directory_filled ;;
    swap_tmpfs) swap_export other_filesystem ;;
    swap_same_size) swap_export same_size_filesystem ;;
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
    unexport | unexport_beside) exports_up ;;
    swap_*) client_remount ;;
    rmsub) mkdir $EXP/d; client_remount ;;
    rmsub_held) kill "$(cat /run/holder.pid)"; mkdir $EXP/d; client_remount ;;
    resub) client_remount ;;
    excluded) in_srv exportfs -u "10.0.1.9:$EXP"; exports_up ;;
    full | full_of_inodes) rm -rf $EXP/d/filler ;;
    clock_drop) clock_by -43200; a_round; restore_path ;;
    freeze) fsfreeze -u $EXP ;;
    export_ro) exports_up ;;
    squash | squash_all | squash_owned) chmod 777 $EXP; exports_up ;;
    *) say "no way to heal $1"; return 1 ;;
  esac
}

wait_port_free() { while in_srv ss -Hltn 'sport = :2049' | grep -q .; do sleep 0.05; done; }
