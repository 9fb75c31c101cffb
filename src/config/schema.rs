//! The one description of all settings.

use std::time::Duration;

use super::field::Field;

/// A setting.
pub struct Key {
    /// Its name in the file, with its section (`workers.max`).
    pub name: &'static str,
    /// Its flag without dashes; the environment twin x.
    pub flag: Option<Flag>,
    /// Kind, limits and place in [`super::Config`].
    pub field: Field,
    /// What it does, in one sentence.
    pub help: &'static str,
}

/// The flag of a setting and its environment twin.
#[derive(Clone, Copy)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// The environment variable that says the same.
    pub env: &'static str,
    /// Word for the value in `--help`.
    pub value: &'static str,
    /// Left out of `--help`, of the file and of the documentation.
    pub hidden: bool,
}

const fn flag(name: &'static str, env: &'static str, value: &'static str) -> Option<Flag> {
    Some(Flag { name, env, value, hidden: false })
}

impl Key {
    /// Part of the file and the documentation.
    #[must_use]
    pub fn public(&self) -> bool {
        !self.flag.is_some_and(|flag| flag.hidden)
    }

    /// The section of the file it lies in (`workers`), and its name there.
    #[must_use]
    pub fn split(&self) -> (Option<&'static str>, &'static str) {
        match self.name.split_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, self.name),
        }
    }
}

/// All settings, in the order in which the documentation and the example list them.
pub static KEYS: [Key; 42] = [
    Key {
        name: "interval",
        flag: flag("interval", "MOUNTWARDEN_INTERVAL", "DURATION"),
        field: Field::Duration { min: Duration::from_secs(1), at: |c| &mut c.interval },
        help: "Time between two probes of a healthy mount.",
    },
    Key {
        name: "timeout",
        flag: flag("timeout", "MOUNTWARDEN_TIMEOUT", "DURATION"),
        field: Field::Duration { min: Duration::from_millis(100), at: |c| &mut c.timeout },
        help: "Deadline of one probe: a mount that has not answered by then is hung.",
    },
    Key {
        name: "slow",
        flag: None,
        field: Field::Duration { min: Duration::from_millis(1), at: |c| &mut c.slow },
        help: "A probe that takes longer than this counts as slow; shorter than timeout.",
    },
    Key {
        name: "backoff_max",
        flag: None,
        field: Field::Duration { min: Duration::from_secs(1), at: |c| &mut c.backoff_max },
        help: "Longest time between two probes of a dead mount; at least interval.",
    },
    Key {
        name: "sentinels",
        flag: None,
        field: Field::Count { min: 0, max: 64, at: |c| &mut c.sentinels },
        help: "Entries remembered per mount to notice that the filesystem behind it was replaced; 0 turns that off.",
    },
    Key {
        name: "workers.warm",
        flag: None,
        field: Field::Count { min: 1, max: 1024, at: |c| &mut c.workers_warm },
        help: "Probe worker processes kept ready.",
    },
    Key {
        name: "workers.max",
        flag: None,
        field: Field::Count { min: 1, max: 4096, at: |c| &mut c.workers_max },
        help: "Probe workers that may be busy or stuck at a time; at least workers.warm.",
    },
    Key {
        name: "workers.per_owner",
        flag: None,
        field: Field::Count { min: 1, max: 4096, at: |c| &mut c.workers_per_owner },
        help: "The same for the mounts of one owner (a pod, else a source); at most workers.max.",
    },
    Key {
        name: "probes_per_server",
        flag: None,
        field: Field::Count { min: 1, max: 4096, at: |c| &mut c.probes_per_server },
        help: "Probes in flight per server that are not slow yet.",
    },
    Key {
        name: "listen",
        flag: flag("listen", "MOUNTWARDEN_LISTEN", "ADDRESS"),
        field: Field::Address { optional: false, at: |c| &mut c.listen },
        help: "Address of /metrics, /healthz and /readyz; without a host all addresses of the machine.",
    },
    Key {
        name: "listen_ui",
        flag: flag("listen-ui", "MOUNTWARDEN_LISTEN_UI", "ADDRESS"),
        field: Field::Address { optional: true, at: |c| &mut c.listen_ui },
        help: "Address of the status page and /api/v1/mounts, which name pods and exports; empty or off: not served.",
    },
    Key {
        name: "node_name",
        flag: flag("node-name", "MOUNTWARDEN_NODE_NAME", "NAME"),
        field: Field::Text(|c| &mut c.node_name),
        help: "Name of this node in what it reports; empty: the host name. The variable NODE_NAME serves too.",
    },
    Key {
        name: "proc_root",
        flag: flag("proc-root", "MOUNTWARDEN_PROC_ROOT", "PATH"),
        field: Field::Path(|c| &mut c.proc_root),
        help: "Where the host's proc is mounted.",
    },
    Key {
        name: "mounts.include_fstype",
        flag: flag("include-fstype", "MOUNTWARDEN_INCLUDE_FSTYPE", "GLOB"),
        field: Field::Globs(|c| &mut c.include_fstype),
        help: "Filesystem types to watch beyond the known network types.",
    },
    Key {
        name: "mounts.exclude_fstype",
        flag: flag("exclude-fstype", "MOUNTWARDEN_EXCLUDE_FSTYPE", "GLOB"),
        field: Field::Globs(|c| &mut c.exclude_fstype),
        help: "Filesystem types to leave out.",
    },
    Key {
        name: "mounts.include",
        flag: flag("include-mount", "MOUNTWARDEN_INCLUDE_MOUNT", "GLOB"),
        field: Field::Globs(|c| &mut c.include_mount),
        help: "Mountpoints to watch; empty: all.",
    },
    Key {
        name: "mounts.exclude",
        flag: flag("exclude-mount", "MOUNTWARDEN_EXCLUDE_MOUNT", "GLOB"),
        field: Field::Globs(|c| &mut c.exclude_mount),
        help: "Mountpoints to leave out.",
    },
    Key {
        name: "mounts.local",
        flag: None,
        field: Field::Globs(|c| &mut c.local_mounts),
        help: "Mountpoints of local filesystems (ext4, xfs, btrfs) to watch too; read-write volumes of pods always are.",
    },
    Key {
        name: "mounts.containers",
        flag: None,
        field: Field::OnOff { auto: false, at: |c| &mut c.containers },
        help: "Whether to look at what containers and services have mounted: who uses each mount, and which of them kept an old one. Takes the host's PID namespace and CAP_SYS_PTRACE.",
    },
    Key {
        name: "canary.mounts",
        flag: None,
        field: Field::Globs(|c| &mut c.canary_mounts),
        help: "Mountpoints of mounts that a canary is written on; empty: none. It writes one small file in .mountwarden at their root.",
    },
    Key {
        name: "canary.interval",
        flag: None,
        field: Field::Duration { min: Duration::from_secs(1), at: |c| &mut c.canary_interval },
        help: "Time between two canaries of a mount; each follows a good probe, so it is rounded up to the next one.",
    },
    Key {
        name: "canary.allow_empty_root",
        flag: None,
        field: Field::Switch(|c| &mut c.canary_empty_root),
        help: "Write a canary also where the root of the mount holds nothing else; some programs refuse a directory that is not empty.",
    },
    Key {
        name: "canary.identity",
        flag: None,
        field: Field::Ids(|c| &mut c.canary_identity),
        help: "Whom the canary acts as (uid=1000 gid=1000 groups=2000+3000 umask=027); empty: as the agent.",
    },
    Key {
        name: "canary.reader",
        flag: None,
        field: Field::Ids(|c| &mut c.canary_reader),
        help: "A second identity that must be able to read what the first one wrote; empty: not tried.",
    },
    Key {
        name: "findings.silence",
        flag: None,
        field: Field::Findings(|c| &mut c.silence_findings),
        help: "Findings that are meant as they are and not shown (docs/findings.md).",
    },
    Key {
        name: "remedy.mode",
        flag: flag("remedy-mode", "MOUNTWARDEN_REMEDY_MODE", "MODE"),
        field: Field::RemedyMode(|c| &mut c.remedy.mode),
        help: "Rescue of pods: observe does nothing, dry-run says what it would do, enforce does it (docs/remedy.md).",
    },
    Key {
        name: "remedy.require_opt_in",
        flag: None,
        field: Field::Switch(|c| &mut c.remedy.require_opt_in),
        help: "Only pods that say evict or unstick in mountwarden.io/remedy, or whose namespace does, are rescued.",
    },
    Key {
        name: "remedy.evict_on_replaced",
        flag: None,
        field: Field::OnReplaced(|c| &mut c.remedy.evict_on_replaced),
        help: "Evict although a new pod finds another directory: same_names if it has half of the known names, always, never.",
    },
    Key {
        name: "remedy.in_flight",
        flag: None,
        field: Field::Count { min: 1, max: 1000, at: |c| &mut c.remedy.in_flight },
        help: "Evictions in flight in the whole cluster; at most half of them in one namespace.",
    },
    Key {
        name: "remedy.cool_down",
        flag: None,
        field: Field::Duration { min: Duration::from_secs(120), at: |c| &mut c.remedy.cool_down },
        help: "A pod that replaced an evicted one is not evicted for the same server before this has passed.",
    },
    Key {
        name: "remedy.grace",
        flag: None,
        field: Field::Duration { min: Duration::from_secs(1), at: |c| &mut c.remedy.grace },
        help: "Time between the two trial mounts that must agree before a pod is rescued.",
    },
    Key {
        name: "unstick.hung",
        flag: None,
        field: Field::Switch(|c| &mut c.unstick.hung),
        help: "Release pods in Terminating from mounts that hang too; what was not written yet is lost (docs/remedy.md).",
    },
    Key {
        name: "unstick.hung_after",
        flag: None,
        field: Field::Duration { min: Duration::from_secs(60), at: |c| &mut c.unstick.hung_after },
        help: "A mount must have hung for this long before it is released.",
    },
    Key {
        name: "unstick.orphans",
        flag: None,
        field: Field::Switch(|c| &mut c.unstick.orphans),
        help: "Release the dead mounts of pods that the cluster no longer knows (after a force delete); they are reported in any case.",
    },
    Key {
        name: "kubernetes.enabled",
        flag: flag("kubernetes", "MOUNTWARDEN_KUBERNETES", "MODE"),
        field: Field::OnOff { auto: true, at: |c| &mut c.kubernetes },
        help: "Whether to name pods and to report in the cluster; auto: where it runs as a pod or has a kubeconfig.",
    },
    Key {
        name: "kubernetes.kubeconfig",
        flag: flag("kubeconfig", "MOUNTWARDEN_KUBECONFIG", "FILE"),
        field: Field::Text(|c| &mut c.kubeconfig),
        help: "A kubeconfig that leads to the cluster; empty: the pod's service account.",
    },
    Key {
        name: "kubernetes.events",
        flag: flag("events", "MOUNTWARDEN_EVENTS", "on|off"),
        field: Field::OnOff { auto: false, at: |c| &mut c.kubernetes_events },
        help: "Whether to write Events on the pods and claims that are hit.",
    },
    Key {
        name: "kubernetes.condition",
        flag: flag("condition", "MOUNTWARDEN_CONDITION", "on|off"),
        field: Field::OnOff { auto: false, at: |c| &mut c.kubernetes_condition },
        help: "Whether to keep the condition NetworkMountsHealthy on this Node.",
    },
    Key {
        name: "state.file",
        flag: flag("state-file", "MOUNTWARDEN_STATE_FILE", "FILE"),
        field: Field::Text(|c| &mut c.state_file),
        help: "Where the agent keeps, across its restarts, since when mounts are dead and what they looked like; on a local filesystem. Empty: nowhere.",
    },
    Key {
        name: "log.format",
        flag: flag("log-format", "MOUNTWARDEN_LOG_FORMAT", "text|json"),
        field: Field::Format(|c| &mut c.log_format),
        help: "Format of the log lines: text for people, json for programs.",
    },
    Key {
        name: "log.level",
        flag: flag("log-level", "MOUNTWARDEN_LOG_LEVEL", "LEVEL"),
        field: Field::LogFilter(|c| &mut c.log_level),
        help: "What is logged: error, warn, info, debug, trace or off, also per module (info,mountwarden::probe=debug).",
    },
    Key {
        name: "without",
        flag: Some(Flag { name: "without-detector", env: "MOUNTWARDEN_WITHOUT_DETECTOR", value: "NAME", hidden: true }),
        field: Field::Names(|c| &mut c.without),
        help: "Detectors to switch off, for the tests that prove that each is needed.",
    },
];

/// The setting that the file calls `name`.
pub(super) fn public_key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name && key.public())
}

/// Whether `name` is a section of the file.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.public() && key.split().0 == Some(name))
}

/// The known key or section that looks most like `name`, if any looks like it at all.
///
/// A key in the wrong section counts as near: its last word is compared too.
pub(super) fn nearest(name: &str) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let likeness = |candidate: &str| {
        strsim::jaro_winkler(candidate, name).max(strsim::jaro_winkler(&last(candidate), &last(name)))
    };
    let sections = KEYS.iter().filter(|key| key.public()).filter_map(|key| key.split().0);
    let names = KEYS.iter().filter(|key| key.public()).map(|key| key.name);
    // Of two that end alike the one that is alike as a whole is meant.
    let whole = |candidate: &str| strsim::jaro_winkler(candidate, name);
    let best = sections
        .chain(names)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)).then_with(|| whole(a).total_cmp(&whole(b))))?;
    (likeness(best) >= LIKE).then(|| best.to_owned())
}

/// Below this likeness two words have nothing to do with each other.
pub(super) const LIKE: f64 = 0.8;
