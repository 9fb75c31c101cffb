# The server of a cell as a machine of its own, at the other end of the hub (machine.rs).
. /run/out/cell.env
exec >/run/out/guest.log 2>&1
# Nothing else lives here, so the machine's own network namespace is the server's.
in_srv() { "$@"; }
load_modules nfsd
net_plug $SRV
what_to_export
serve && touch /run/out/serving
sleep infinity
