//! The kubelet's own mounts that hang: `mount` and its helpers, by `stat`, `wchan`, `stack` and parent.
//!
//! KUBELET.md 6.4: `mount.nfs` sits in D, child of `mount`, child of the kubelet (or of a CSI driver), and so does the
//! kernel's thread `ADDRESS-manager` of the NFSv4 client. `cmdline` would say what is mounted, and can block
//! (DESIGN 3.1): it is never read, so a mount is tied to its server by that thread alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use procfs::FromRead;
use procfs::process::Stat;

use crate::localfs;
use crate::snapshot::KubeletMount;

/// Processes that are looked at.
const PROCESSES: usize = 32_768;

/// Mounts that are listed.
const LISTED: usize = 16;

/// A name in `stat` has at most so many bytes (TASK_COMM_LEN - 1); those of the kernel's threads are longer since 5.17.
const SHORT: usize = 15;

/// A mount that has taken so many seconds is not only slow.
const LONG: f64 = 15.0;

/// Parents that are followed.
const DEPTH: usize = 4;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mounting {
    /// Mounts that hang, longest first.
    pub hung: Vec<KubeletMount>,
    /// Threads of NFSv4 clients that wait for their server.
    pub managers: Vec<String>,
}

impl Mounting {
    /// The longest one, in words.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let KubeletMount { pid, name, by, function, .. } = self.hung.first()?;
        let place = function.as_ref().map(|function| format!(" ({function})")).unwrap_or_default();
        Some(format!("{name} (pid {pid}, started by {by}) waits in the kernel{place}."))
    }

    /// The NFSv4 client of this server waits, in words.
    #[must_use]
    pub fn manager(&self, address: IpAddr) -> Option<String> {
        let wanted = format!("{address}-manager");
        let is = |name: &&String| **name == wanted || (name.len() == SHORT && wanted.starts_with(name.as_str()));
        let name = self.managers.iter().find(is)?;
        Some(format!("The kernel's NFS client of {address} waits for it (thread {name})."))
    }
}

struct Process {
    name: String,
    parent: i32,
    state: char,
    started: u64,
}

/// Looks through `/proc`. Processes that end meanwhile are no error.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn look(proc_root: &Path) -> std::io::Result<Mounting> {
    let mut processes = HashMap::new();
    for pid in localfs::kernel_dir_numbers(proc_root)?.into_iter().take(PROCESSES) {
        let Some(stat) = stat(&proc_root.join(pid.to_string())) else { continue };
        let process = Process { name: stat.comm, parent: stat.ppid, state: stat.state, started: stat.starttime };
        processes.insert(pid, process);
    }
    let uptime = localfs::read_kernel_file(&proc_root.join("uptime")).unwrap_or_default();
    let uptime = String::from_utf8_lossy(&uptime).split(' ').next().and_then(|text| text.parse::<f64>().ok());
    let mut found = Mounting::default();
    for (pid, process) in processes.iter().filter(|(_, process)| process.state == 'D') {
        if process.parent == KTHREADD && process.name.contains("-manage") {
            found.managers.push(process.name.clone());
        } else if is_mount(&process.name) {
            let Some(by) = starter(process, &processes) else { continue };
            found.hung.push(KubeletMount {
                pid: *pid,
                name: process.name.clone(),
                by,
                function: function(&proc_root.join(pid.to_string())),
                seconds: uptime.map_or(0.0, |uptime| (uptime - seconds(process.started)).max(0.0)),
            });
        }
    }
    found.hung.retain(|mount| mount.seconds >= LONG);
    found.hung.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.pid.cmp(&b.pid)));
    found.hung.truncate(LISTED);
    found.managers.sort();
    found.managers.truncate(LISTED);
    Ok(found)
}

/// The parent of the kernel's threads.
const KTHREADD: i32 = 2;

/// mount(8) and its helpers (`mount.nfs4`, `mount.efs`).
fn is_mount(name: &str) -> bool {
    name == "mount" || name.starts_with("mount.")
}

/// Who started it, past `mount` itself: the kubelet, or a driver of CSI. Not what an init system mounts by itself.
fn starter(process: &Process, processes: &HashMap<i32, Process>) -> Option<String> {
    let mut at = process;
    for _ in 0..DEPTH {
        let parent = at.parent;
        at = processes.get(&parent)?;
        if !is_mount(&at.name) {
            return (parent != 1).then(|| at.name.clone());
        }
    }
    None
}

/// The telling function: the first of the stack that is no mere wait, else where it waits.
fn function(directory: &Path) -> Option<String> {
    let read = |name: &str| localfs::read_kernel_file(&directory.join(name)).unwrap_or_default();
    let (stack, wchan) = (read("stack"), read("wchan"));
    let names: Vec<String> = crate::diagnose::processes::functions(&stack).collect();
    let telling = names.iter().find(|name| name.starts_with("nfs")).cloned();
    telling.or_else(|| crate::diagnose::processes::functions(&wchan).next()).or_else(|| names.into_iter().next())
}

fn stat(directory: &Path) -> Option<Stat> {
    let bytes = localfs::read_kernel_file(&directory.join("stat")).ok()?;
    Stat::from_read(bytes.as_slice()).ok()
}

#[expect(clippy::cast_precision_loss, reason = "clock ticks of an uptime")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a proc tree of its own, in a scratch directory")]
mod tests {
    use super::*;

    fn process(root: &Path, pid: i32, parent: i32, name: &str, state: char, stack: &str) {
        let directory = root.join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let stat = format!(
            "{pid} ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        std::fs::write(directory.join("stat"), stat).unwrap();
        std::fs::write(directory.join("stack"), stack).unwrap();
    }

    /// KUBELET.md 6.4, as it was measured.
    const STACK: &str =
        "[<0>] rpc_wait_bit_killable+0x11/0x70\n[<0>] nfs4_proc_get_rootfh+0x2b/0x50\n[<0>] path_mount+0x1/0x2\n";

    #[test]
    fn a_mount_of_the_kubelet_that_hangs_is_found_with_who_started_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        process(root, 1, 0, "systemd", 'S', "");
        process(root, 2, 0, "kthreadd", 'S', "");
        process(root, 10, 1, "kubelet", 'S', "");
        process(root, 20, 10, "mount", 'S', "");
        process(root, 21, 20, "mount.nfs4", 'D', STACK);
        process(root, 30, 1, "mount", 'D', STACK);
        process(root, 40, 10, "mount.nfs4", 'S', STACK);
        process(root, 41, 10, "stat", 'D', STACK);
        process(root, 50, 2, "10.0.1.1-manage", 'D', "");
        process(root, 51, 2, "10.0.1.9-manager", 'S', "");
        std::fs::write(root.join("uptime"), "100.00 50.00\n").unwrap();
        let found = look(root).unwrap();
        let [one] = &found.hung[..] else { panic!("{found:?}") };
        assert_eq!((one.pid, one.name.as_str(), one.by.as_str()), (21, "mount.nfs4", "kubelet"));
        assert_eq!(one.function.as_deref(), Some("nfs4_proc_get_rootfh"));
        assert!(one.seconds > 80.0, "{one:?}");
        assert_eq!(
            found.words().as_deref(),
            Some("mount.nfs4 (pid 21, started by kubelet) waits in the kernel (nfs4_proc_get_rootfh).")
        );
        assert!(found.manager("10.0.1.1".parse().unwrap()).is_some());
        assert!(found.manager("10.0.1.12".parse().unwrap()).is_none(), "another address");
        assert!(found.manager("10.0.1.9".parse().unwrap()).is_none(), "it does not wait");
    }
}
