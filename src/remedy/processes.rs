//! Which processes of a pod are left, and whether they can still do anything.
//!
//! A pod's phase proves nothing: one whose writer sits in the kernel stays Running (KUBELET.md 3b). So every process of
//! the node is asked for its control group, which names the pod by its UID, with dashes or with underscores.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::localfs;

/// A process that is killed, in `SigPnd` and `ShdPnd` of `/proc/PID/status` (proc(5)): bit of SIGKILL.
const SIGKILL_BIT: u64 = 1 << 8;

/// A thread in exit(2), in the flags of `/proc/PID/stat` (include/linux/sched.h, `PF_EXITING`).
const EXITING: u64 = 0x4;

/// What is left of a pod's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Processes of which at least one thread is not dead.
    pub processes: Vec<i32>,
    /// Those among them that are neither ending nor merely waiting in the kernel (D) with SIGKILL pending: they may still
    /// act.
    pub alive: Vec<i32>,
    /// How often their threads went to sleep, summed up: it grows when the kernel lets one of them go a step further.
    pub switches: u64,
}

/// Looks through all processes below `proc_root` for those of the pod `uid`. Processes that end meanwhile are no error.
///
/// # Errors
/// An entry that cannot be read, by its path: then nobody knows whose it is.
pub fn left(proc_root: &Path, uid: &str) -> io::Result<Left> {
    Ok(left_of(proc_root, &[uid.to_owned()])?.pop().unwrap_or_default())
}

/// The same for several pods in one pass; the answers are in their order.
///
/// # Errors
/// As [`left`].
pub fn left_of(proc_root: &Path, uids: &[String]) -> io::Result<Vec<Left>> {
    let spelled: Vec<[String; 2]> = uids.iter().map(|uid| [uid.clone(), uid.replace('-', "_")]).collect();
    let mut left = vec![Left::default(); uids.len()];
    for pid in numbers(proc_root)? {
        let directory = proc_root.join(pid.to_string());
        let Some(groups) = localfs::read_process_file(&directory.join("cgroup"))? else { continue };
        let groups = String::from_utf8_lossy(&groups);
        for (spelled, left) in spelled.iter().zip(&mut left) {
            if spelled.iter().any(|uid| groups.contains(uid.as_str())) {
                look(&directory, pid, left)?;
            }
        }
    }
    Ok(left)
}

fn look(directory: &Path, pid: i32, left: &mut Left) -> io::Result<()> {
    let (mut there, mut alive) = (false, false);
    let tasks = directory.join("task");
    for thread in numbers(&tasks).or_else(absent)? {
        let task = tasks.join(thread.to_string());
        let Some(status) = localfs::read_process_file(&task.join("status"))? else { continue };
        let status = Status::parse(&status);
        // A thread that is dead and not yet reaped does nothing more and holds nothing.
        if matches!(status.state, b'Z' | b'X') {
            continue;
        }
        there = true;
        alive |= !status.is_killed() && !is_exiting(&task)?;
        left.switches += status.switches;
    }
    if there {
        left.processes.push(pid);
    }
    if alive {
        left.alive.push(pid);
    }
    Ok(())
}

/// It is on its way out, and no instruction of its program is run any more. By then no SIGKILL is pending if another signal
/// ended it first: the kernel takes none for a process that is dying (kernel/signal.c, prepare_signal).
fn is_exiting(task: &Path) -> io::Result<bool> {
    let Some(stat) = localfs::read_process_file(&task.join("stat"))? else { return Ok(true) };
    let stat = String::from_utf8_lossy(&stat);
    // After the name, which may have any characters: state, ppid, pgrp, session, tty_nr, tpgid, flags (proc_pid_stat(5)).
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    Ok(flags.is_some_and(|flags| flags & EXITING != 0))
}

/// The lines of `/proc/PID/task/TID/status` that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    state: u8,
    pending: u64,
    switches: u64,
}

impl Status {
    /// It was killed, and waits in the kernel all the same.
    pub(crate) fn is_killed(&self) -> bool {
        self.state == b'D' && self.pending & SIGKILL_BIT != 0
    }

    pub(crate) fn parse(bytes: &[u8]) -> Status {
        let mut status = Status::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name {
                "State" => status.state = value.bytes().next().unwrap_or_default(),
                "SigPnd" | "ShdPnd" => status.pending |= u64::from_str_radix(value, 16).unwrap_or_default(),
                "voluntary_ctxt_switches" => status.switches += value.parse::<u64>().unwrap_or_default(),
                _ => {}
            }
        }
        status
    }
}

fn numbers(directory: &Path) -> io::Result<Vec<i32>> {
    localfs::kernel_dir_numbers(directory).map_err(|error| localfs::named(directory, &error))
}

fn absent(error: io::Error) -> io::Result<Vec<i32>> {
    if localfs::process_ended(&error) { Ok(Vec::new()) } else { Err(error) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a proc tree of its own, in a scratch directory")]
mod tests {
    use super::*;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    fn process(root: &Path, pid: i32, cgroup: &str, threads: &[(i32, &str)]) {
        let directory = root.join(pid.to_string());
        for (thread, status) in threads {
            let task = directory.join("task").join(thread.to_string());
            std::fs::create_dir_all(&task).unwrap();
            std::fs::write(task.join("status"), status).unwrap();
            std::fs::write(task.join("stat"), "1 (a) b) D 1 1 1 0 -1 4194304 0 0").unwrap();
        }
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("cgroup"), cgroup).unwrap();
    }

    const KILLED_IN_D: &str = "Name:\tapp\nState:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000100\n\
                               voluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t1\n";
    const RUNNING: &str = "State:\tS (sleeping)\nSigPnd:\t0\nShdPnd:\t0\nvoluntary_ctxt_switches:\t3\n";
    const ZOMBIE: &str = "State:\tZ (zombie)\nSigPnd:\t0\nShdPnd:\t100\n";

    #[test]
    fn both_spellings_of_the_uid_are_the_pods() {
        let root = tempfile::tempdir().unwrap();
        let underscored = UID.replace('-', "_");
        let systemd =
            format!("0::/kubepods.slice/kubepods-besteffort-pod{underscored}.slice/cri-containerd-ab.scope\n");
        process(root.path(), 10, &systemd, &[(10, KILLED_IN_D)]);
        process(root.path(), 11, &format!("4:memory:/kubepods/besteffort/pod{UID}/cd\n"), &[(11, RUNNING)]);
        process(root.path(), 12, "0::/system.slice/sshd.service\n", &[(12, RUNNING)]);
        let left = left(root.path(), UID).unwrap();
        let mut processes = left.processes.clone();
        processes.sort_unstable();
        assert_eq!((processes, left.alive, left.switches), (vec![10, 11], vec![11], 10));
    }

    #[test]
    fn a_dead_leader_with_a_thread_in_the_kernel_is_left_and_a_zombie_is_not() {
        let root = tempfile::tempdir().unwrap();
        let group = format!("0::/kubepods/pod{UID}/cd\n");
        process(root.path(), 20, &group, &[(20, ZOMBIE), (21, KILLED_IN_D)]);
        process(root.path(), 30, &group, &[(30, ZOMBIE)]);
        let left = left(root.path(), UID).unwrap();
        assert_eq!((left.processes, left.alive), (vec![20], vec![]));
    }

    #[test]
    fn in_the_kernel_without_sigkill_is_alive() {
        let root = tempfile::tempdir().unwrap();
        let waiting = "State:\tD (disk sleep)\nSigPnd:\t0000000000004000\nShdPnd:\t0\n";
        process(root.path(), 5, &format!("0::/kubepods/pod{UID}/cd\n"), &[(5, waiting)]);
        assert_eq!(left(root.path(), UID).unwrap().alive, vec![5]);
    }

    #[test]
    fn what_sigterm_ended_first_is_not_alive_once_it_is_in_exit() {
        let root = tempfile::tempdir().unwrap();
        let ending = "State:\tD (disk sleep)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n";
        process(root.path(), 5, &format!("0::/kubepods/pod{UID}/cd\n"), &[(5, ending)]);
        std::fs::write(root.path().join("5/task/5/stat"), "5 (a) b) D 1 1 1 0 -1 4194308 0 0").unwrap();
        let left = left(root.path(), UID).unwrap();
        assert_eq!((left.processes, left.alive), (vec![5], vec![]));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        // Reading a directory fails with EISDIR, whoever asks.
        std::fs::create_dir_all(root.path().join("7/cgroup")).unwrap();
        let error = left(root.path(), UID).unwrap_err();
        assert!(error.to_string().contains("7/cgroup"), "{error}");
    }

    #[test]
    fn a_process_that_ended_meanwhile_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("8")).unwrap();
        assert_eq!(left(root.path(), UID).unwrap(), Left::default());
    }

    #[test]
    fn this_very_process_is_found_by_its_own_control_group() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = own.lines().find_map(|line| line.splitn(3, ':').nth(2)).unwrap().to_owned();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(left(Path::new("/proc"), &path).unwrap().alive.contains(&pid));
    }
}
