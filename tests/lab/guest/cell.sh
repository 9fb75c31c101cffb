# One cell of the matrix: brings up server and client as cell.env says, then hands over to the lab's program, which
# starts the agent, makes the fault, watches and measures (guest.rs).
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
kernel_ports
if [ "${CLIENT:-direct}" != direct ]; then names_up; fi
if [ "$SERVER" = machine ]; then
  net_plug 10.0.1.2
else
  net_up
  what_to_export
  serve
fi
client_mount && say "mounted" && /run/runner guest cell /run/out/cell.json
say "cell ended with $?"
dmesg | grep -iE 'nfs|rpc' | tail -5
