//! What each finding means, what comes of it, what to do, and who says so.

use super::Finding;

/// The words of one finding; none of them ends with a full stop.
pub(super) struct Words {
    /// What is the case.
    pub(super) means: &'static str,
    /// What comes of it.
    pub(super) consequence: &'static str,
    /// What to do about it.
    pub(super) advice: &'static str,
    /// Where it is documented.
    pub(super) sources: &'static [Source],
}

/// Title and address; measured facts have no address.
pub(super) type Source = (&'static str, &'static str);

const NFS5: Source = ("nfs(5)", "https://man7.org/linux/man-pages/man5/nfs.5.html");
const EFS: Source = (
    "AWS: recommended NFS mount options",
    "https://docs.aws.amazon.com/efs/latest/ug/mounting-fs-nfs-mount-settings.html",
);
const RFC8881: Source = ("RFC 8881, section 2.10", "https://www.rfc-editor.org/rfc/rfc8881#section-2.10");
const MOUNTINFO: Source = ("proc_pid_mountinfo(5)", "https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html");
const ACCESS_MODES: Source =
    ("Kubernetes: access modes", "https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes");
const PROPAGATION: Source =
    ("Kubernetes: mount propagation", "https://kubernetes.io/docs/concepts/storage/volumes/#mount-propagation");
const CANARY: Source = ("canaries", "canary.md");
const KUBELET: Source = ("measured on a kubelet", "kubernetes.md");
const MEASURED: Source = ("measured in the lab", "");

/// `not_shared` of a pod that waits: it stands with the pod, as there is no mount yet. On a mount it is of containers.
pub(super) const WAITS: Words = Words {
    means: "a pod waits for a volume that only one node can have at a time (ReadWriteOnce, a disk), and a pod of another node has it",
    consequence: "the pod never starts while the other one runs",
    advice: "put what pods share on a volume with ReadWriteMany (NFS, EFS), or run all of them on one node (podAffinity), or give each a claim of its own (StatefulSet)",
    sources: &[ACCESS_MODES],
};

/// The words of each case of a finding.
pub(super) fn cases(finding: Finding) -> Vec<Words> {
    let waits = (finding == Finding::NotShared).then_some(WAITS);
    waits.into_iter().chain([of(finding)]).collect()
}

/// The words of a finding on a mount.
pub(super) fn of(finding: Finding) -> Words {
    match finding {
        Finding::MaybeReplaced | Finding::Hidden | Finding::AddressDrift | Finding::ReadonlySuperblock => seen(finding),
        Finding::OnNodeDisk | Finding::OldCopy | Finding::NotShared => contained(finding),
        Finding::CanaryRefused
        | Finding::UnreadableByB
        | Finding::UnreadableEntries
        | Finding::PeerSilent
        | Finding::PeerLate => written(finding),
        Finding::EfsSoft | Finding::EfsReservedPort => efs(finding),
        Finding::SoftWritable | Finding::ShortTimeout | Finding::FewRetries => patience(finding),
        _ => sharing(finding),
    }
}

/// What was seen beside the options.
fn seen(finding: Finding) -> Words {
    match finding {
        Finding::MaybeReplaced => Words {
            means: "the server reconnected and every known entry is gone, but nothing proves another filesystem",
            consequence: "users may read and write other data than they think: two filesystems of one size cannot be told apart from here",
            advice: "look on the server whether another filesystem is exported there now",
            sources: &[MEASURED],
        },
        Finding::Hidden => Words {
            means: "another mount lies on top: the path leads elsewhere",
            consequence: "it cannot be reached or probed by its path, and comes to light again when the other one is unmounted; mounting twice is the usual reason",
            advice: "see both with `findmnt -R`, unmount what is too much, and look for a second fstab line or unit",
            sources: &[MOUNTINFO],
        },
        Finding::ReadonlySuperblock => Words {
            means: "the mount is read-write, the superblock below it read-only",
            consequence: "each write fails with EROFS although the mount's own options promise otherwise",
            advice: "correct readOnly of the volume or the options of the first mount of this export, then mount it anew",
            sources: &[MOUNTINFO],
        },
        _ => Words {
            means: "the server's name no longer leads to the address that the mount talks to",
            consequence: "the kernel never asks for the name again: when the old address goes away the mount hangs, while new mounts work",
            advice: "plan a remount (evict the pods that use it) before the old address is switched off",
            sources: &[NFS5, MEASURED],
        },
    }
}

/// What containers have mounted.
fn contained(finding: Finding) -> Words {
    match finding {
        Finding::OnNodeDisk => Words {
            means: "a container writes to the node's disk where a network volume should be",
            consequence: "what it writes is seen by nobody else, fills the node's disk, and is hidden or deleted once the volume is mounted again or the pod goes",
            advice: "stop the pod now (`kubectl delete pod POD` when its owner makes a new one), save what lies in the volume's directory on the node while nothing is mounted there, and find out who unmounted it",
            sources: &[KUBELET],
        },
        Finding::NotShared => Words {
            means: "two containers of this node mount one claim or hostPath, and one has it on the network, the other on the node's disk",
            consequence: "what the one writes the other never sees, though both go on",
            advice: "save what the container on the node's disk wrote, and start it anew now that the network filesystem is mounted on the host (`kubectl delete pod POD` when its owner makes a new one); mountPropagation HostToContainer spares it that next time",
            sources: &[PROPAGATION],
        },
        _ => Words {
            means: "the host mounted it anew or unmounted it, and a container kept the old mount, which still works",
            consequence: "nothing that is mounted or unmounted on the host reaches that container; when the old mount dies it stays dead until the container is started anew",
            advice: "restart the pod at the next occasion: its new container gets what the host has",
            sources: &[KUBELET],
        },
    }
}

/// What canaries show.
fn written(finding: Finding) -> Words {
    match finding {
        Finding::CanaryRefused => Words {
            means: "a canary is configured here, and what has the name of its directory or file is not ours: a symlink, a larger file, somebody else's",
            consequence: "nothing is written, so nothing is known of writes on this mount",
            advice: "see the canary's own words in `mountwarden status --json`, look at `.mountwarden/` at the root of the mount, and remove what does not belong there",
            sources: &[CANARY],
        },
        Finding::UnreadableByB => Words {
            means: "what the first configured identity writes the second one cannot read",
            consequence: "pods that share the volume with these ids cannot read each other's files",
            advice: "compare umask, fsGroup and supplementalGroups of the pods, or give both one group and the directory the setgid bit",
            sources: &[CANARY],
        },
        Finding::UnreadableEntries => Words {
            means: "mode and owner of entries at the root do not let in the configured ids; or most of them not those of a container that has this NFS mount (of a sample; access control lists, and a server that maps ids, are not looked at)",
            consequence: "a pod with these ids starts and then fails on those files: a mode 0700 directory of another pod's user, an export that only root may read",
            advice: "compare `stat` of the entries on the server with runAsUser, runAsGroup and fsGroup of the pod",
            sources: &[CANARY],
        },
        Finding::PeerSilent => Words {
            means: "another node's canary on this export promised more records and writes none (by the server's clock)",
            consequence: "that node is cut off from the export or its agent is gone; what it should have written is missing for the others",
            advice: "look at that node in `mountwarden_canary_peer_lag_seconds` and run `mountwarden status` there",
            sources: &[CANARY],
        },
        _ => Words {
            means: "the server has a newer record of another node than programs on this node see",
            consequence: "programs here read old data of that node: a cache that is not revalidated (`nocto`, long `acregmax`), or a server that gives out two views",
            advice: "mount without `nocto` and with shorter attribute caching where nodes exchange data, and compare both nodes' options",
            sources: &[CANARY, NFS5],
        },
    }
}

fn efs(finding: Finding) -> Words {
    match finding {
        Finding::EfsSoft => Words {
            means: "an EFS mount that gives up (`soft` or `softerr`)",
            consequence: "a pause of the service becomes an I/O error in the application, and data it thinks written may be lost",
            advice: "mount it with `hard`, as the EFS mount helper and the CSI driver do",
            sources: &[EFS, NFS5],
        },
        _ => Words {
            means: "an EFS mount without `noresvport`",
            consequence: "after a network failure the client may reconnect from its old port and be refused for minutes",
            advice: "add `noresvport`, or mount with the EFS mount helper, which does",
            sources: &[EFS],
        },
    }
}

fn patience(finding: Finding) -> Words {
    match finding {
        Finding::SoftWritable => Words {
            means: "a mount that gives up (`soft` or `softerr`) may be written to",
            consequence: "after timeo x (retrans + 1) writes fail, often where nobody looks (close, fsync, writeback): silent data corruption",
            advice: "mount it with `hard`, or read-only if reading is all it is for",
            sources: &[NFS5, MEASURED],
        },
        Finding::ShortTimeout => Words {
            means: "`timeo` is below 150 (15 s); Linux takes 600 for TCP",
            consequence: "a server that is only busy is asked again and the connection dropped and made anew, which adds to its load; a soft mount fails that much earlier",
            advice: "leave `timeo` out, or give at least 150",
            sources: &[NFS5, EFS],
        },
        _ => Words {
            means: "`retrans` is below 2 on a mount where it decides how soon a request fails",
            consequence: "one lost reply is enough for an I/O error in the application",
            advice: "leave `retrans` out, or give at least 2",
            sources: &[NFS5, EFS],
        },
    }
}

fn sharing(finding: Finding) -> Words {
    match finding {
        Finding::NfsV40 => Words {
            means: "NFSv4.0 is in use",
            consequence: "without sessions a request that is sent again may run twice, files are opened one at a time per process, and there are no file handles by which a replaced root could be recognised",
            advice: "mount with `vers=4.1` or later, if the server has it",
            sources: &[RFC8881, EFS, MEASURED],
        },
        Finding::LocalLocks => Words {
            means: "locks are kept on this client (`nolock`, `local_lock`), and more than one user writes",
            consequence: "two programs that lock one file on two nodes, or through two mounts, both get the lock",
            advice: "leave `nolock` and `local_lock` out (rpc.statd has to run), or mount with NFSv4",
            sources: &[NFS5],
        },
        Finding::SeparateCaches => Words {
            means: "one export is mounted several times with `nosharecache`",
            consequence: "each mount has a cache of its own: what is written through one is seen late through the other, and both may write back",
            advice: "leave `nosharecache` out, or mount the export once and bind it",
            sources: &[NFS5],
        },
        Finding::MixedOptions => Words {
            means: "one export is mounted several times with different options",
            consequence: "each set of options has a superblock and a cache of its own, and programs on one node see different times of the same file; what is true of one mount is not of the other",
            advice: "compare them with `findmnt -t nfs,nfs4 -o TARGET,SOURCE,OPTIONS` and give all of them the same options",
            sources: &[NFS5],
        },
        _ => Words {
            means: "`rsize` or `wsize` is below 32768 (on EFS: below 1048576)",
            consequence: "many small requests instead of one: slow reads and writes, and more load on the server",
            advice: "leave `rsize` and `wsize` out: client and server agree on the largest",
            sources: &[NFS5, EFS],
        },
    }
}
