# One cell of the matrix: brings up server and client as cell.env says, then hands over to the lab's program, which
# starts the agent, makes the fault, watches and measures (guest.rs).
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
backing "$BACKING" || say "no backing store"
if [ "$LAYOUT" = beside ]; then
  mkdir $EXP/data
  mount -t tmpfs -o size=16M data $EXP/data
  fill $EXP/data
else
  fill $EXP
fi
serve
client_mount && say "mounted" && /run/runner guest cell /run/out/cell.json
say "cell ended with $?"
dmesg | grep -iE 'nfs|rpc' | tail -5
