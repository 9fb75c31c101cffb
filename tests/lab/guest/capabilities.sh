# One node with two NFS mounts, one of them below a directory that root may not enter without a capability; the agent sits in
# a pod's surroundings (pod.rs). The server wants privileged ports. capabilities.rs does the rest.
VERS=4.1 MODE=hard OPTIONS=timeo=10,retrans=2 SUBPATH=/ LAYOUT=beside BACKING=dir
EXPORT_OPTIONS=rw,no_root_squash,secure,no_subtree_check
exec >/run/out/guest.log 2>&1
load_modules nfsv4 nfsd veth sch_netem
net_up
mount -t cgroup2 cgroup /sys/fs/cgroup
# As Debian, Ubuntu and others have it.
echo 1 >/proc/sys/kernel/dmesg_restrict
what_to_export
serve
# A pod's: only for pods a trial mount is made.
MNT=/mnt/kubelet/pods/0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11/volumes/kubernetes.io~nfs/data SUBPATH=/data client_mount || exit 1
mkdir -p /mnt/private
mount -t tmpfs private /mnt/private
mkdir /mnt/private/cl
chown 1000:1000 /mnt/private
chmod 700 /mnt/private
MNT=/mnt/private/cl SUBPATH=/ client_mount || exit 1
cat >/run/out/cell.env <<'ENV'
VERS=4.1 LAYOUT=beside EXPORT_OPTIONS=rw,no_root_squash,secure,no_subtree_check
ENV
/run/runner guest capabilities
