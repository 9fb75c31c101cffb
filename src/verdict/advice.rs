//! One sentence for every (state, cause): what a person on call does next, with the command to run.
//!
//! The commands are safe while the mount is dead: none of them takes its path in a way that waits for its server. So no
//! `ls`, no `df`, no plain `umount` (umount(8) stats the path first and hangs), and `umount -l` only with its price named.
//! Paths and servers come from mount tables that tenants write; they are quoted for sh.

mod docs;
mod quote;

pub use docs::markdown;
pub use quote::shell_quote;

use crate::verdict::{Cause, State};

/// What the commands of an advice are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdviceFacts<'a> {
    /// Path of the mount.
    pub mountpoint: &'a str,
    /// Server as mounted.
    pub server: Option<&'a str>,
    /// Export, share or remote directory.
    pub export: Option<&'a str>,
    /// Port that the kernel talks to.
    pub port: Option<u16>,
    /// Filesystem type.
    pub fstype: &'a str,
}

impl AdviceFacts<'_> {
    fn path(&self) -> String {
        shell_quote(self.mountpoint)
    }

    /// `None` when there is none, or when it would be taken for an option.
    fn server(&self) -> Option<String> {
        self.server.filter(|server| !server.is_empty() && !server.starts_with('-')).map(shell_quote)
    }

    fn export(&self) -> String {
        // The root export and exports that look like options are left for the reader to name.
        self.export.filter(|export| export.starts_with('/')).map_or_else(|| "EXPORT".to_owned(), shell_quote)
    }

    fn is_nfs(&self) -> bool {
        matches!(self.fstype, "nfs" | "nfs4")
    }

    fn is_fuse(&self) -> bool {
        self.fstype == "fuse" || self.fstype.starts_with("fuse.") || self.fstype == "fuseblk"
    }

    fn is_block(&self) -> bool {
        crate::mounts::kind::BLOCK_TYPES.contains(&self.fstype)
    }

    fn port(&self) -> u16 {
        let usual = match self.fstype {
            "cifs" | "smb3" => 445,
            "ceph" => 6789,
            "lustre" => 988,
            "9p" => 564,
            _ => crate::mounts::source::NFS_PORT,
        };
        self.port.unwrap_or(usual)
    }

    /// Writes on this mount, once: what only a write can show `check` calls healthy.
    fn write(&self, identity: &str) -> String {
        format!("`mountwarden diagnose --write{identity} {}`", self.path())
    }

    /// Probes this mount again, in a worker that may be lost.
    fn check(&self) -> String {
        format!("`mountwarden check {}`", self.path())
    }

    /// Whether the server's port answers.
    fn ask_port(&self) -> String {
        self.server().map_or_else(|| self.check(), |server| format!("`nc -vz -w 3 {server} {}`", self.port()))
    }

    /// Whether the service behind the port answers.
    fn ask_service(&self) -> String {
        match self.server() {
            Some(server) if self.is_nfs() => {
                let version = if self.fstype == "nfs" { 3 } else { 4 };
                format!("`rpcinfo -n {} -t {server} nfs {version}`", self.port())
            }
            _ => self.ask_port(),
        }
    }

    /// What the server exports.
    fn ask_exports(&self) -> String {
        match self.server() {
            Some(server) if self.is_nfs() => format!("`showmount -e {server}`"),
            _ => self.check(),
        }
    }

    /// How to get a fresh mount in the place of one that is no longer any use.
    fn renew(&self) -> String {
        // By the root of a process: the mount is in its own namespace alone, and no mount of the host takes its place there.
        if self.mountpoint.starts_with("/proc/") {
            return "restart who has it (`kubectl delete pod POD`, on a host `systemctl restart UNIT`)".to_owned();
        }
        let path = self.path();
        format!(
            "evict its pods (`kubectl delete pod POD`), on a plain host `umount -l {path} && mount {path}` (unwritten data is lost)"
        )
    }
}

/// What to do about a mount in this state for this cause: one sentence with a command in backticks; empty when healthy.
#[must_use]
pub fn advice(state: State, cause: Cause, facts: &AdviceFacts<'_>) -> String {
    match (state, cause) {
        (State::Healthy, _) => String::new(),
        (_, Cause::Unknown) => by_state(state, facts),
        // Nobody's mode bits: the kernel refuses every other user (FUSE), or the agent has no ticket (Kerberos).
        (State::Unknown, Cause::Permission) => format!(
            "The agent may not look into this mount (FUSE without allow_other, Kerberos without a ticket): as its owner run {}, or exclude it from the agent.",
            facts.check()
        ),
        _ => server_side(cause, facts)
            .or_else(|| client_side(cause, facts))
            .or_else(|| storage_side(cause, facts))
            .unwrap_or_else(|| by_state(state, facts)),
    }
}

/// Causes that lie between here and the server, or on it.
fn server_side(cause: Cause, facts: &AdviceFacts<'_>) -> Option<String> {
    Some(match cause {
        Cause::ServerUnreachable => format!(
            "No connection to the server: check its power, the network and firewalls in between with {}; the mount goes on by itself once the server answers, so do not unmount.",
            facts.ask_port()
        ),
        Cause::ServerRefused => format!(
            "The server's machine answers but its file service is not running: start it there, then see {}; the mount goes on by itself.",
            facts.ask_port()
        ),
        Cause::ServerUnresponsive => format!(
            "The server takes connections and leaves calls unanswered, or only writes: look there for a stuck or overloaded file service or disk, and test with {}; the mount goes on by itself.",
            facts.ask_service()
        ),
        Cause::ServerRecovering => format!(
            "The server has restarted and is in its grace period, usually 90 s: wait, then test with {}; if it lasts longer than 3 minutes read the server's log.",
            facts.ask_service()
        ),
        Cause::DnsFailed => {
            let command = facts.server().map_or_else(|| facts.check(), |server| format!("`getent ahosts {server}`"));
            format!(
                "The server's name does not resolve on this node: repair DNS or /etc/hosts until {command} prints an address."
            )
        }
        Cause::AddressChanged => {
            let command = facts.server().map_or_else(|| facts.check(), |server| format!("`getent ahosts {server}`"));
            format!(
                "The server's name now points to another address (see {command}), which the kernel never follows: bring the old address back, or {}.",
                facts.renew()
            )
        }
        Cause::ExportGone => format!(
            "The server no longer exports this to the node: compare {} with /etc/exports there and run `exportfs -ra` on the server; the mount goes on by itself.",
            facts.ask_exports()
        ),
        Cause::HandleInvalid => format!(
            "The mounted directory was deleted or replaced on the server (exports: {}): bring it back there, or {}.",
            facts.ask_exports(),
            facts.renew()
        ),
        Cause::FilesystemReplaced => format!(
            "Another filesystem now answers for this mount: stop the writers, find out on the server which data is right ({}), then {}.",
            facts.ask_exports(),
            facts.renew()
        ),
        _ => return None,
    })
}

/// Causes on this node.
fn client_side(cause: Cause, facts: &AdviceFacts<'_>) -> Option<String> {
    let path = facts.path();
    Some(match cause {
        Cause::ClientStuck => format!(
            "The server answers others but this mount does not: save `cat /proc/PID/stack` of a blocked process for a bug report, then {}.",
            facts.renew()
        ),
        Cause::ProxyDead => {
            "The local TLS proxy of this mount is gone: run `systemctl restart amazon-efs-mount-watchdog`, in Kubernetes restart the node's efs-csi-node pod; the mount goes on by itself.".to_owned()
        }
        Cause::DaemonDead => format!(
            "The FUSE daemon is gone: read its log, clear the mount with `fusermount3 -u -z {path}`, start the daemon again, and restart the pods that use it (`kubectl delete pod POD`)."
        ),
        Cause::DaemonStuck => format!(
            "The FUSE daemon runs but does not answer: see what it waits for in `cat /proc/PID/stack`, restart it, then `fusermount3 -u -z {path}` (calls in flight fail) and mount again."
        ),
        Cause::UnmountedOnHost => {
            "It was unmounted on the host while still in use: restart the pods on it, `kubectl delete pod POD`, which mounts it again; on a plain host mount it again and restart what uses it.".to_owned()
        }
        Cause::RemountedOnHost => {
            "The host mounted it anew while its users kept the old mount: restart them, in Kubernetes with `kubectl delete pod POD`, on a host with `systemctl restart UNIT`.".to_owned()
        }
        Cause::MountMissing => {
            "A mount that the pod asks for is not there: see the reason with `kubectl describe pod POD`, then restart it with `kubectl delete pod POD`.".to_owned()
        }
        Cause::AgentOverloaded => {
            "The agent was too late to tell, so this says nothing about the mount: give it more CPU (`kubectl top pod`), and watch mountwarden_loop_delay_seconds.".to_owned()
        }
        Cause::WorkerCap => {
            "Not probed, as too many other mounts hold workers: repair the hung ones that `mountwarden status` lists, or raise the limit of workers in the configuration.".to_owned()
        }
        _ => return None,
    })
}

/// Causes of rights, room and data.
fn storage_side(cause: Cause, facts: &AdviceFacts<'_>) -> Option<String> {
    let export = facts.export();
    let (check, write, as_user) = (facts.check(), facts.write(""), facts.write("=uid=UID"));
    Some(match cause {
        Cause::Permission => format!(
            "Owner and mode of the export refuse this user: compare them on the server (`stat {export}`) with the pod's runAsUser and fsGroup, then try it with {as_user}."
        ),
        Cause::RootSquashed => format!(
            "The server maps root to nobody (`exportfs -v` there): run the pod as the uid that owns the directory, or export it with no_root_squash, then try it with {write}."
        ),
        Cause::Quota | Cause::OutOfSpace | Cause::OutOfInodes if facts.is_block() => format!(
            "The volume is full: find what grows with `du -xh -d 1 {0}`, or `du --inodes -x -d 1 {0}`, delete data or enlarge it, and see {check}.",
            facts.path()
        ),
        Cause::Quota => format!(
            "Over quota: see who uses it with `repquota -a` on the server, then delete data or raise the quota, and try it with {as_user}."
        ),
        Cause::OutOfSpace => format!(
            "No space left: on the server find what grows with `du -xh -d 1 {export}`, then delete data or enlarge the filesystem, and see {check}."
        ),
        Cause::OutOfInodes => format!(
            "No inodes left: on the server find the many small files with `du --inodes -x -d 1 {export}`, delete some, and see {check}."
        ),
        Cause::MountedReadonly if facts.is_block() => format!(
            "The filesystem is read-only, as a rule because the kernel met an error on its disk: read `dmesg -T | tail -n 50`, save the data, stop what uses {}, repair it (`fsck`), and mount it again.",
            facts.path()
        ),
        Cause::MountedReadonly => format!(
            "It is mounted read-only on this node: see its options with `grep -F {} /proc/self/mountinfo`, and correct fstab, or readOnly in the pod or volume.",
            facts.path()
        ),
        Cause::ExportReadonly => format!(
            "The server exports it read-only: set rw in /etc/exports there, run `exportfs -ra` on the server, then try it with {write}."
        ),
        Cause::IoError => format!(
            "Input/output error: read `dmesg -T | tail -n 50` on the server and on this node for disk errors, then see {check}."
        ),
        Cause::DeviceLost => {
            "The device below is gone: find out when and why with `dmesg -T | tail -n 50`, bring it back, check its filesystem, then mount it again.".to_owned()
        }
        Cause::DataMismatch => format!(
            "What was written was read back differently: stop the writers, read `dmesg -T | tail -n 50` on the server for disk and memory errors, then try it with {write}."
        ),
        _ => return None,
    })
}

/// What a state alone says, where nothing proves a cause.
fn by_state(state: State, facts: &AdviceFacts<'_>) -> String {
    let check = facts.check();
    match state {
        State::Healthy => String::new(),
        State::Slow => format!(
            "It answers slowly: look at the server's load and at the network with {}, and see which step is slow in {check}.",
            facts.ask_service()
        ),
        State::Hung if facts.is_fuse() => format!(
            "It does not answer: see what its FUSE daemon waits for in `cat /proc/PID/stack`, restart it, then `fusermount3 -u -z {}` (calls in flight fail).",
            facts.path()
        ),
        State::Hung => format!(
            "It does not answer: test the server with {}, see what a blocked process waits for in `cat /proc/PID/stack`, and keep away from the path.",
            facts.ask_port()
        ),
        State::Stale => format!(
            "The server rejects this mount's root: compare {} with what is mounted, bring the directory or export back, or {}.",
            facts.ask_exports(),
            facts.renew()
        ),
        State::Lost => format!("What should be mounted there is gone: look at {check}, then {}.", facts.renew()),
        State::Readonly => format!(
            "It refuses writes: see `grep -F {} /proc/self/mountinfo` for ro, and the export's options on the server.",
            facts.path()
        ),
        State::Denied => format!(
            "Access is denied: compare owner and mode on the server with the user of the pod, then see {check}."
        ),
        State::Full => format!(
            "It is full: on the server find what grows with `du -xh -d 1 {}`, check quotas and inodes too, then see {check}.",
            facts.export()
        ),
        State::Corrupt => {
            format!(
                "Data read back differ from what was written: stop the writers, read `dmesg -T | tail -n 50` on the server, then see {check}."
            )
        }
        State::Error => {
            format!(
                "It fails with the error shown: read `dmesg -T | tail -n 50` here and on the server, then see {check}."
            )
        }
        State::Unknown => {
            format!("It could not be probed, which says nothing about it: look at {check} and at the agent's log.")
        }
    }
}

#[cfg(test)]
mod tests;
