# Trial mounts of what this client has mounted, while its server is well and in three kinds of trouble (trials.rs).
VERS=$LAB_VERSION MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=alone BACKING=dir
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
if [ "$VERS" = 3 ]; then load_modules nfsv3; fi
net_up
what_to_export
serve
client_mount || exit 1
root=$(stat -c %i $MNT)
trial() { say "trial: $1"; /run/runner guest trial "$1" $MNT "$root" >>/run/out/told; }
trial healthy
trial usual
for trouble in unexport refused drop; do
  fault $trouble
  trial $trouble
  heal $trouble
  trial back
done
fault swap_dir
trial swapped
