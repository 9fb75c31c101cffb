//! The one list of every metric: `collector` fills it, `docs` prints it, tests compare both with it.

/// What a metric's numbers mean to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at 0 with the agent, or with the target.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The word of a `# TYPE` line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a user may build on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Name, labels and meaning change only with a new major version.
    Stable,
    /// May change with any version; the change log says so.
    Experimental,
}

impl Stability {
    /// The word of the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stability::Stable => "stable",
            Stability::Experimental => "experimental",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Base unit in words; empty for counts and flags.
    pub unit: &'static str,
    /// Label names, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it says, in one line.
    pub help: &'static str,
    /// What a user may build on.
    pub stability: Stability,
}

impl Metric {
    /// One series (or a few) per target, so that it carries [`TRIPLE`].
    #[must_use]
    pub fn per_mount(&self) -> bool {
        self.labels.starts_with(&TRIPLE)
    }
}

/// The labels of every per-mount series, unique per agent.
pub const TRIPLE: [&str; 3] = ["mountpoint", "source", "fstype"];

/// Declares each metric and puts it into a list, so that no metric can be missing there.
macro_rules! catalog {
    ($(#[$doc:meta])* $list:ident; $($id:ident: $kind:ident $stability:ident $name:literal [$($label:literal),*] $unit:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                stability: Stability::$stability,
            };
        )*

        $(#[$doc])*
        pub static $list: &[&Metric] = &[$(&$id),*];
    };
}

catalog! {
    /// Every metric of the agent, in the order of the exposition.
    ALL;

    BUILD_INFO: Gauge Stable "mountwarden_build_info" ["version", "revision"] "",
        "The running version; always 1.";
    READY: Gauge Stable "mountwarden_ready" [] "",
        "1 once the first pass over all mounts is done.";
    SNAPSHOT_TIMESTAMP: Gauge Stable "mountwarden_snapshot_timestamp_seconds" [] "seconds since the epoch",
        "When the agent made the snapshot that this page shows.";
    MOUNTS: Gauge Stable "mountwarden_mounts" ["state"] "",
        "Targets by state.";

    MOUNT_STATE: Gauge Stable "mountwarden_mount_state" ["mountpoint", "source", "fstype", "state"] "",
        "1 for the state that the mount is in, 0 for the others.";
    MOUNT_UP: Gauge Stable "mountwarden_mount_up" ["mountpoint", "source", "fstype"] "",
        "0 when the mount is hung, stale, lost, corrupt or in error, 1 otherwise; absent while unknown.";
    MOUNT_CAUSE: Gauge Stable "mountwarden_mount_cause" ["mountpoint", "source", "fstype", "cause"] "",
        "1 for the cause why the mount is not healthy; absent when healthy.";
    MOUNT_INFO: Gauge Stable "mountwarden_mount_info"
        ["mountpoint", "source", "fstype", "server", "address", "port", "export", "version", "mode", "security"] "",
        "How it is mounted, for joins; always 1. Labels are empty where the mount table does not say.";
    MOUNT_STATE_CHANGED: Gauge Stable "mountwarden_mount_state_changed_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When the mount came into its present state.";
    MOUNT_STATE_TRANSITIONS: Counter Stable "mountwarden_mount_state_transitions_total"
        ["mountpoint", "source", "fstype", "state"] "",
        "Transitions into the state: shows flaps between scrapes. States that only some mounts can reach appear with their first transition.";
    MOUNT_FINDING: Gauge Stable "mountwarden_mount_finding" ["mountpoint", "source", "fstype", "finding"] "",
        "1 for something worth knowing about the mount that is no state.";

    POD_MOUNT_STATE: Gauge Stable "mountwarden_pod_mount_state"
        ["mountpoint", "source", "fstype", "namespace", "pod", "volume", "state"] "",
        "1 for each pod on a mount that is not healthy; pod is its UID and namespace empty where the name is not known.";
    MOUNT_PODS: Gauge Stable "mountwarden_mount_pods" ["mountpoint", "source", "fstype"] "",
        "How many pods of this node use the mount, by the kubelet's paths and by what their containers have mounted.";
    MOUNT_VOLUME_INFO: Gauge Stable "mountwarden_mount_volume_info"
        ["mountpoint", "source", "fstype", "persistentvolume", "persistentvolumeclaim", "namespace", "storageclass"] "",
        "What the cluster calls the volumes of this mount; always 1.";
    SERVER_UP: Gauge Stable "mountwarden_server_up" ["server", "port", "check"] "",
        "1 when the server of NFS mounts answered the last check well, without a mount: `dns` (its name), `tcp`, `nfs` (NULL), `mountd` (NFSv3).";
    SERVER_RTT: Gauge Stable "mountwarden_server_rtt_seconds" ["server", "port", "check"] "seconds",
        "How long that check took; absent while it fails.";
    SERVER_CHECKED: Gauge Stable "mountwarden_server_checked_timestamp_seconds" ["server", "port"] "seconds since the epoch",
        "When the server was last checked: every five minutes while all is well, every few seconds while it needs explaining.";

    PROBES: Counter Stable "mountwarden_probes_total" ["mountpoint", "source", "fstype", "result"] "",
        "Probes by result.";
    PROBE_LAST_DURATION: Gauge Stable "mountwarden_probe_last_duration_seconds"
        ["mountpoint", "source", "fstype", "step"] "seconds",
        "Duration of each step of the last probe; a step that ran several times is summed up.";
    PROBE_LAST_TIMESTAMP: Gauge Stable "mountwarden_probe_last_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When the last probe ended; absent before the first.";
    PROBE_LAST_SUCCESS: Gauge Stable "mountwarden_probe_last_success_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When a probe last answered well; absent before the first.";
    PROBE_BLOCKED: Gauge Experimental "mountwarden_probe_blocked_seconds" ["mountpoint", "source", "fstype"] "seconds",
        "How long the present probe, or the last one that missed its deadline, has been blocked; 0 when it answers.";
    PROBE_BLOCKED_TOTAL: Counter Stable "mountwarden_probe_blocked_seconds_total"
        ["mountpoint", "source", "fstype"] "seconds",
        "Time that probes of the mount were blocked past their deadline.";
    FILESYSTEM_SIZE: Gauge Stable "mountwarden_filesystem_size_bytes" ["mountpoint", "source", "fstype"] "bytes",
        "Size of the filesystem, as its last statfs said (every fourth probe). Kept while the mount hangs; absent once it is stale or lost, and where the filesystem does not say.";
    FILESYSTEM_FREE: Gauge Stable "mountwarden_filesystem_free_bytes" ["mountpoint", "source", "fstype"] "bytes",
        "Free space of the filesystem, also what only root may use.";
    FILESYSTEM_AVAIL: Gauge Stable "mountwarden_filesystem_avail_bytes" ["mountpoint", "source", "fstype"] "bytes",
        "Free space of the filesystem for others than root.";
    FILESYSTEM_FILES: Gauge Stable "mountwarden_filesystem_files" ["mountpoint", "source", "fstype"] "",
        "Inodes of the filesystem; absent where it does not count them.";
    FILESYSTEM_FILES_FREE: Gauge Stable "mountwarden_filesystem_files_free" ["mountpoint", "source", "fstype"] "",
        "Free inodes of the filesystem.";
    FILESYSTEM_READ: Gauge Stable "mountwarden_filesystem_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When the filesystem last said its numbers: those of a mount that hangs are so old.";

    CANARY_RESULTS: Counter Stable "mountwarden_canary_results_total" ["mountpoint", "source", "fstype", "result"] "",
        "Write canaries by how they ended: ok, late (an earlier write was run after this one, or `diagnose --write` wrote meanwhile), failed, differs, timeout, skipped, refused. Absent where no canary is configured.";
    CANARY_DURATION: Gauge Stable "mountwarden_canary_last_duration_seconds"
        ["mountpoint", "source", "fstype", "step"] "seconds",
        "Duration of each step of the last canary; a step that ran several times is summed up. canary_commit is the time until a write is on stable storage.";
    CANARY_LAST: Gauge Stable "mountwarden_canary_last_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When the last canary ended.";
    CANARY_LAST_SUCCESS: Gauge Stable "mountwarden_canary_last_success_timestamp_seconds"
        ["mountpoint", "source", "fstype"] "seconds since the epoch",
        "When a canary was last written and read back; absent before the first.";
    CANARY_PEERS: Gauge Stable "mountwarden_canary_peers" ["mountpoint", "source", "fstype", "state"] "",
        "Other nodes whose canaries were seen on the export lately (at most 64), by state: fresh, late (newer on the server than seen here), silent (promised more records and writes none), gone (silent for over an hour).";
    CANARY_PEER_LAG: Gauge Stable "mountwarden_canary_peer_lag_seconds" ["mountpoint", "source", "fstype", "peer"] "seconds",
        "Age of another node's record by the server's clock, when this node last looked at it; at most 16 nodes, the worst.";

    NFS_OPERATIONS: Counter Stable "mountwarden_nfs_operations_total" ["mountpoint", "source", "fstype", "operation"] "",
        "Calls of the NFS client that ended, by operation (twelve names, only those that were used; one, all, on nodes with more than 200 NFS mounts). Counted by the kernel per superblock since it was mounted: mounts that share one show the same.";
    NFS_RETRANSMISSIONS: Counter Stable "mountwarden_nfs_retransmissions_total"
        ["mountpoint", "source", "fstype", "operation"] "",
        "Transmissions of the NFS client beyond the first of each call.";
    NFS_TIMEOUTS: Counter Stable "mountwarden_nfs_timeouts_total" ["mountpoint", "source", "fstype", "operation"] "",
        "Major timeouts of the NFS client (timeo x retrans passed without an answer).";
    NFS_ERRORS: Counter Stable "mountwarden_nfs_errors_total" ["mountpoint", "source", "fstype", "operation"] "",
        "Calls of the NFS client that ended with an error, also killed ones; absent before Linux 5.3.";
    NFS_RTT: Counter Stable "mountwarden_nfs_rtt_seconds_total"
        ["mountpoint", "source", "fstype", "operation"] "seconds",
        "Time between sending and reply, summed up over the calls of the NFS client.";
    NFS_EXECUTE: Counter Stable "mountwarden_nfs_execute_seconds_total"
        ["mountpoint", "source", "fstype", "operation"] "seconds",
        "Time from start to end of the calls of the NFS client, waiting to be sent included.";

    PROBE_DURATION: Histogram Stable "mountwarden_probe_duration_seconds" ["server", "step"] "seconds",
        "Duration of probe steps by server.";
    PROBE_TIMEOUT: Gauge Stable "mountwarden_probe_timeout_seconds" [] "seconds",
        "Deadline of a probe, from the configuration.";
    PROBE_INTERVAL: Gauge Stable "mountwarden_probe_interval_seconds" [] "seconds",
        "Time between two probes of a healthy mount, from the configuration.";

    WORKERS: Gauge Stable "mountwarden_workers" ["state"] "",
        "Probe workers that are idle, busy, or stuck (killed, but the kernel does not let them die).";
    WORKERS_KILLED: Counter Stable "mountwarden_workers_killed_total" [] "",
        "Workers killed because they missed their deadline.";
    WORKERS_STARTED: Counter Stable "mountwarden_workers_started_total" [] "",
        "Workers started.";
    WORKERS_LOST: Counter Stable "mountwarden_workers_lost_total" [] "",
        "Workers that ended by themselves or by somebody else's signal.";
    WORKER_PROTOCOL_ERRORS: Counter Stable "mountwarden_worker_protocol_errors_total" [] "",
        "Replies of workers that did not follow the wire format.";
    WORKER_SPAWN_ERRORS: Counter Stable "mountwarden_worker_spawn_errors_total" [] "",
        "Workers that could not be started (no descriptors, no memory).";
    WORKER_CAP_HITS: Counter Stable "mountwarden_worker_cap_hits_total" [] "",
        "Probes not run because too many workers were blocked already.";
    OVERLOADS: Counter Stable "mountwarden_overloads_total" [] "",
        "Probes thrown away because the agent itself was late.";
    LOOP_DELAY: Gauge Stable "mountwarden_loop_delay_seconds" [] "seconds",
        "Longest delay of the agent's own loop in the last interval.";
    MOUNTINFO_MOUNTS: Gauge Stable "mountwarden_mountinfo_mounts" [] "",
        "Mounts of all kinds in the mount table.";
    MOUNTINFO_READS: Counter Stable "mountwarden_mountinfo_reads_total" [] "",
        "Reads of the mount table.";
    MOUNTINFO_READ_ERRORS: Counter Stable "mountwarden_mountinfo_read_errors_total" [] "",
        "Reads of the mount table that failed as a whole.";
    MOUNTINFO_ERRORS: Counter Stable "mountwarden_mountinfo_errors_total" [] "",
        "Lines of the mount table that could not be understood and were skipped.";
    AUTOFS_TRIGGERS: Gauge Stable "mountwarden_autofs_triggers" [] "",
        "autofs mount points: listed, never touched.";
    MOUNTS_LEFT_OUT: Gauge Stable "mountwarden_mounts_left_out" [] "",
        "Targets without series because another one has the same mountpoint, source and fstype; anything but 0 is a defect.";
    CONTAINERS_LEFT_OUT: Gauge Stable "mountwarden_containers_left_out" ["what"] "",
        "What of containers is over a limit of the agent: namespaces that are not looked into (over 4096), mounts of one table that are not told (over 1024), tables with NFS mounts of their own whose counters are not read (over 32).";
    EVIDENCE_AVAILABLE: Gauge Stable "mountwarden_evidence_available" ["source"] "",
        "1 while passive evidence can be read from the source, 0 when it cannot (the log says why); absent until it was tried. Verdicts need none of it.";
    KERNEL_LOG_LINES: Counter Stable "mountwarden_kernel_log_lines_total" ["kind"] "",
        "Lines of the kernel log about NFS since the agent started, by what they say: recovery_failed and locks_lost mean that applications lost open files or locks.";
    KERNEL_LOG_LOST: Counter Stable "mountwarden_kernel_log_lost_total" [] "",
        "Times that lines of the kernel log were overwritten before the agent read them.";
    CANARY_INTERVAL: Gauge Stable "mountwarden_canary_interval_seconds" [] "seconds",
        "Time between two canaries of a mount, from the configuration.";
    CANARY_ISOLATED: Gauge Experimental "mountwarden_canary_isolated" [] "",
        "1 when canary workers sit in a cgroup outside the agent's, 0 when not (the log says why); absent until one was written.";
    CANARY_STRAYS: Gauge Experimental "mountwarden_canary_strays" [] "",
        "Canary workers of earlier agents that are still stuck in the kernel; their mounts get no canary until they are gone.";
    CANARY_RECORDS_REFUSED: Counter Experimental "mountwarden_canary_records_refused_total" [] "",
        "Files under the name of another node's canary that are no record of it (damaged, hostile).";
    CANARY_RECORDS_COLLECTED: Counter Experimental "mountwarden_canary_records_collected_total" [] "",
        "Records of nodes long gone that this agent removed after two nodes agreed.";
    STATE_ERRORS: Counter Stable "mountwarden_state_errors_total" [] "",
        "Times that the agent's state file could not be read, written or understood; it does without (the log says why).";
    AGENT_REMEDY_ENABLED: Gauge Stable "mountwarden_remedy_enabled" ["action"] "",
        "1 while the action is in force: mode enforce, kill switch off, not forbidden by the node's annotation. 0 in observe and dry-run. The agent's action is unstick.";
    AGENT_REMEDIES: Counter Stable "mountwarden_remedies_total" ["action", "result"] "",
        "Pods in Terminating with dead mounts by what became of them: released, failed, simulated (dry run), refused (once per guard), pod_stays (released, and still in the API after a minute).";
    LOG_DROPPED: Counter Stable "mountwarden_log_dropped_total" [] "",
        "Log lines dropped because nobody read them.";
    HTTP_REFUSED: Counter Stable "mountwarden_http_refused_total" [] "",
        "HTTP connections refused because too many were open.";
    CONFIG_OK: Gauge Stable "mountwarden_config_ok" [] "",
        "1 while the configuration in force is the newest one read, 0 after a re-read that failed.";
    CONFIG_RELOADS: Counter Stable "mountwarden_config_reloads_total" [] "",
        "Re-reads of the configuration.";

    VOLUMES_PENDING: Gauge Stable "mountwarden_volumes_pending" ["cause"] "",
        "Volumes that pods of this node have waited for longer than 30 s, by why they cannot be mounted (`unknown` where that is not shown).";
    VOLUME_PENDING_SINCE: Gauge Stable "mountwarden_volume_pending_since_timestamp_seconds"
        ["namespace", "pod", "volume", "source", "cause"] "seconds since the epoch",
        "Since when a pod waits for a volume that cannot be mounted (at most 200).";

    CLUSTER_WATCHING: Gauge Stable "mountwarden_cluster_watching" [] "",
        "1 while the watch of this node's pods is up; absent where there is no cluster.";
    CLUSTER_PODS: Gauge Stable "mountwarden_cluster_pods" [] "",
        "Pods of this node whose names are known.";
    CLUSTER_PODS_LEFT_OUT: Gauge Experimental "mountwarden_cluster_pods_left_out" [] "",
        "Pods of this node that are not named because there are more than are kept.";
    CLUSTER_REQUESTS: Counter Stable "mountwarden_cluster_requests_total" ["resource", "result"] "",
        "Requests to the API server; result is ok or why it failed.";
    CLUSTER_TROUBLES: Gauge Stable "mountwarden_cluster_trouble" ["part"] "",
        "1 for each part of the cluster's side that does not work at present; the log says why.";
    CLUSTER_EVENTS: Counter Stable "mountwarden_cluster_events_total" ["reason"] "",
        "Events that the API server took.";
    CLUSTER_EVENTS_DROPPED: Counter Stable "mountwarden_cluster_events_dropped_total" ["why"] "",
        "Events that were not sent: budget, refused by the API server, or superseded by a newer one before they were sent.";
    CLUSTER_EVENTS_WAITING: Gauge Stable "mountwarden_cluster_events_waiting" [] "",
        "Events that wait for the API server or for the budget.";

    PROCESS_CPU: Counter Stable "process_cpu_seconds_total" [] "seconds",
        "User and system CPU time of the agent process, without its workers.";
    PROCESS_RESIDENT: Gauge Stable "process_resident_memory_bytes" [] "bytes",
        "Resident memory of the agent process, without its workers.";
    PROCESS_VIRTUAL: Gauge Stable "process_virtual_memory_bytes" [] "bytes",
        "Virtual memory of the agent process.";
    PROCESS_OPEN_FDS: Gauge Stable "process_open_fds" [] "",
        "Open file descriptors of the agent process.";
    PROCESS_MAX_FDS: Gauge Stable "process_max_fds" [] "",
        "Limit of open file descriptors; absent when there is none.";
    PROCESS_START: Gauge Stable "process_start_time_seconds" [] "seconds since the epoch",
        "When the agent process started.";
}

catalog! {
    /// Every metric of the coordinator (`mountwarden coordinate`), in the order of the exposition.
    COORDINATOR;

    COORDINATOR_BUILD_INFO: Gauge Stable "mountwarden_build_info" ["version", "revision"] "",
        "The running version; always 1.";
    COORDINATOR_LEADER: Gauge Stable "mountwarden_coordinator_leader" [] "",
        "1 while this coordinator holds the Lease and may act.";
    REMEDY_ENABLED: Gauge Stable "mountwarden_remedy_enabled" ["action"] "",
        "1 while the action is in force: mode enforce, kill switch off, history known. 0 in observe and dry-run.";
    REMEDIES: Counter Stable "mountwarden_remedies_total" ["action", "result"] "",
        "Actions tried, by what became of them: accepted, simulated (dry run), refused, unknown (no answer).";
    COORDINATOR_DECISIONS: Counter Stable "mountwarden_coordinator_decisions_total" ["guard"] "",
        "Decisions about pods by the guard that said no, none for those that were evicted. One is counted when it changes, not each time it is asked again.";
    COORDINATOR_REQUESTS: Gauge Stable "mountwarden_coordinator_requests" [] "",
        "Rescue requests of all nodes.";
    COORDINATOR_REQUESTS_LEFT_OUT: Gauge Stable "mountwarden_coordinator_requests_left_out" [] "",
        "Rescue requests that are not read: beyond the 200 of a node, or not understood.";
    COORDINATOR_NODES: Gauge Stable "mountwarden_coordinator_nodes" [] "",
        "Nodes whose report is known.";
    COORDINATOR_IN_FLIGHT: Gauge Stable "mountwarden_coordinator_in_flight" [] "",
        "Evictions whose replacement is not Ready yet, for two minutes at most.";
    COORDINATOR_BREAKERS: Gauge Stable "mountwarden_coordinator_breaker_open" ["server"] "",
        "1 for a server for which nothing is evicted because the last three replacements failed; absent otherwise.";
    COORDINATOR_HISTORY_KNOWN: Gauge Stable "mountwarden_coordinator_history_known" [] "",
        "0 while it is not known what was done before, so that nothing is done.";
    COORDINATOR_API_ERRORS: Counter Stable "mountwarden_coordinator_api_errors_total" ["call"] "",
        "Calls to the API server that failed or got no answer, by what was asked.";
    COORDINATOR_ROUNDS: Counter Stable "mountwarden_coordinator_rounds_total" [] "",
        "Rounds of decisions as leader.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_unique_and_follows_the_conventions() {
        let mut seen = HashSet::new();
        for (of_agent, metric) in
            ALL.iter().map(|metric| (true, metric)).chain(COORDINATOR.iter().map(|one| (false, one)))
        {
            assert!(seen.insert((of_agent, metric.name)), "{} stands twice", metric.name);
            // What both have means the same of both.
            let other = ALL.iter().find(|other| other.name == metric.name).unwrap_or(metric);
            assert_eq!((other.kind, other.labels), (metric.kind, metric.labels), "{}", metric.name);
            assert!(metric.name.starts_with("mountwarden_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", metric.name);
            if metric.unit.starts_with("seconds") {
                assert!(metric.name.contains("_seconds"), "{} lacks its unit", metric.name);
            }
        }
    }

    #[test]
    fn every_help_is_one_sentence_on_one_line() {
        for metric in ALL.iter().chain(COORDINATOR) {
            assert!(!metric.help.contains(['\n', '\\', '|']) && metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn every_per_mount_metric_starts_with_the_triple() {
        for metric in ALL {
            assert_eq!(metric.labels.contains(&"mountpoint"), metric.per_mount(), "{}", metric.name);
        }
    }
}
