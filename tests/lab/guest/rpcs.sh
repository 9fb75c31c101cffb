# A healthy NFS v4.1 mount that nobody uses but the agent: how many requests does that send? (rpcs.rs)
VERS=4.1 MODE=hard OPTIONS=timeo=600,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=tmpfs
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
net_up
what_to_export
serve
client_mount && /run/runner guest rpcs $MNT >/run/rpcs && cp /run/rpcs /run/out/rpcs
