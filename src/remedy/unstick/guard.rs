//! Every reason not to take a mount away, by name.

use crate::remedy::guards::guards;

guards! {
    /// A rule that forbids a release. The words are part of the log, the Event and the metrics.
    Mode Permanent "mode" "remedies are switched off (remedy.mode is observe)",
        "Set remedy.mode to dry-run, read what it would do, then to enforce.";
    KillSwitch Wait "kill_switch" "the kill switch is set, or could not be read",
        "Remove the key `stop` from the ConfigMap mountwarden-remedy when rescues may go on.";
    Forbidden Permanent "forbidden" "mountwarden.io/remedy on the pod, its namespace or its node does not allow it, or nobody asked for it",
        "kubectl annotate namespace NAME mountwarden.io/remedy=evict,unstick";
    PodUnknown Wait "pod_unknown" "the API server did not say whether the pod is being deleted",
        "Nothing: it is asked again. If it lasts, look at the agent's connection to the API server.";
    NotTerminating Wait "not_terminating" "the pod is not being deleted, or its grace period is not over",
        "Under a live pod nothing is ever unmounted: it would go on writing to the node's disk.";
    Grace Wait "grace" "its grace period is not over for long enough",
        "Nothing: it passes.";
    Orphan Permanent "orphan" "the API server does not know the pod any more, and orphans are not released (unstick.orphans)",
        "It was force-deleted. Set unstick.orphans: true, or unmount it by hand.";
    OrphanYoung Wait "orphan_young" "the API server does not know the pod any more, but not for long enough",
        "Nothing: it passes.";
    ProcessesUnknown Wait "processes_unknown" "it cannot be told which processes of the pod are left",
        "The agent needs hostPID, and a /proc without hidepid.";
    ProcessAlive Wait "process_alive" "processes of the pod are left that can still act",
        "They must get SIGKILL first; the kubelet and the container runtime do that.";
    NothingDead Wait "nothing_dead" "no mount of the pod in the host's table is dead",
        "Look for another reason: finalizers, the container runtime, the CSI driver.";
    NotThePods Permanent "not_the_pods" "the mount does not lie in the pod's own directory",
        "Nothing: it is somebody else's.";
    NotJudged Wait "not_judged" "the mount's own verdict is not fresh",
        "Nothing: it is probed again.";
    NotDead Wait "not_dead" "the mount is not dead",
        "Nothing: the kubelet can unmount it.";
    ProcessLeft Wait "process_left" "processes of the pod are left in the kernel, though the mount answers",
        "See what they wait for: cat /proc/PID/stack";
    Hung Permanent "hung" "mounts that hang are not released (unstick.hung)",
        "A write that is cut off may still run on the server later. Bring the server back, or set unstick.hung: true.";
    Stateful Permanent "stateful" "the pod belongs to a StatefulSet: its replacement would write to the same volume",
        "Fence the node, or make sure that the server has dropped this client; then unmount by hand.";
    HungYoung Wait "hung_young" "it does not hang for long enough (unstick.hung_after)",
        "Nothing: it passes, or the server comes back.";
    SharedUnknown Permanent "shared_unknown" "it cannot be told who else uses the superblock",
        "The agent must be able to read the mount tables of all processes.";
    Shared Wait "shared" "others use the same superblock, and aborting its requests would hurt them",
        "Those pods must go first, or the server must come back.";
    ConnectionUnknown Wait "connection_unknown" "it cannot be told whether this node is still connected to the server",
        "The agent must be able to read /proc/net/tcp.";
    Connected Wait "connected" "this node's connection to the server is still up: what was written may still arrive",
        "Wait: the kernel gives a silent one up after the server's lease (NFSv4, often 90 s) or 180 s (v3). Or cut it off at the server.";
    NobodyBlocked Wait "nobody_blocked" "nobody was seen blocked on it lately, so there is nothing to abort",
        "Nothing: it is looked at again.";
}
