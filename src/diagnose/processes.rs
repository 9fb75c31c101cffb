//! Processes that wait in the kernel's NFS, CIFS or FUSE code: their state and stack, and nothing that could wait with them.
//!
//! `cmdline`, `environ` and `maps` of such a process can block, and its descriptors and mount table are none of ours
//! (DESIGN 3.1), so which mount a process waits for is not known: only what kind of filesystem.

use std::path::Path;

use procfs::FromRead;
use procfs::process::Stat;

use crate::localfs;
use crate::mounts::Kind;

/// Processes, and threads of each, that are looked at.
const PROCESSES: usize = 32_768;
const THREADS: usize = 1_024;

/// Blocked ones that are shown.
pub const SHOWN: usize = 10;

/// A thread in an uninterruptible wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The process.
    pub pid: i32,
    /// Its name; tenants choose it.
    pub name: String,
    /// Threads of it that wait so.
    pub threads: usize,
    /// The kernel function that tells what it waits for, where it may be read.
    pub function: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Those that wait in the code of this kind of filesystem.
    pub here: Vec<Waiting>,
    /// Processes that wait for something that could not be told: no right to read it, or something else altogether.
    pub elsewhere: usize,
}

/// Looks through `/proc`, leaving out `own` and its children (the probe workers).
///
/// # Errors
/// `/proc` cannot be listed.
pub fn blocked(proc_root: &Path, kind: Kind, own: i32) -> std::io::Result<Blocked> {
    let mut found = Blocked::default();
    for pid in localfs::kernel_dir_numbers(proc_root)?.into_iter().take(PROCESSES) {
        let directory = proc_root.join(pid.to_string());
        let Some(stat) = stat(&directory) else { continue };
        if pid == own || stat.ppid == own {
            continue;
        }
        let tasks = localfs::kernel_dir_numbers(&directory.join("task")).unwrap_or_default();
        let stuck: Vec<_> = tasks
            .iter()
            .take(THREADS)
            .map(|task| directory.join("task").join(task.to_string()))
            .filter(|task| waits(task))
            .collect();
        if stuck.is_empty() {
            continue;
        }
        let functions: Vec<String> = stuck.iter().filter_map(|task| telling(task, kind)).collect();
        match functions.into_iter().next() {
            Some(function) => {
                found.here.push(Waiting { pid, name: stat.comm, threads: stuck.len(), function: Some(function) })
            }
            None => found.elsewhere += 1,
        }
    }
    Ok(found)
}

fn stat(directory: &Path) -> Option<Stat> {
    let bytes = localfs::read_kernel_file(&directory.join("stat")).ok()?;
    Stat::from_read(bytes.as_slice()).ok()
}

fn waits(task: &Path) -> bool {
    stat(task).is_some_and(|stat| stat.state == 'D')
}

/// The first function of its stack, else the one that it waits in, that belongs to this kind of filesystem.
fn telling(task: &Path, kind: Kind) -> Option<String> {
    let stack = localfs::read_kernel_file(&task.join("stack")).unwrap_or_default();
    let wchan = localfs::read_kernel_file(&task.join("wchan")).unwrap_or_default();
    functions(&stack).chain(functions(&wchan)).find(|function| belongs(function, kind))
}

/// Functions of a `stack` or `wchan`: `[<0>] rpc_wait_bit_killable+0x1e/0xa0` or the bare name, one per line.
pub(crate) fn functions(text: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(text).into_owned();
    let names = text.lines().map(|line| {
        let name = line.split_once("] ").map_or(line, |(_, name)| name);
        name.split(['+', ' ']).next().unwrap_or_default().to_owned()
    });
    names.filter(|name| !name.is_empty() && name != "0").collect::<Vec<_>>().into_iter()
}

fn belongs(function: &str, kind: Kind) -> bool {
    let marks: &[&str] = match kind {
        Kind::Nfs | Kind::Nfs4 | Kind::Efs => &["nfs", "rpc_", "__rpc_", "xprt_", "_nfs"],
        Kind::Cifs => &["cifs_", "smb2_", "SMB2_", "compound_send_recv", "wait_for_response"],
        Kind::Ceph => &["ceph_"],
        _ => &["fuse_", "request_wait_answer", "__fuse_"],
    };
    marks.iter().any(|mark| function.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_from_stacks_and_from_wchan() {
        let stack = b"[<0>] rpc_wait_bit_killable+0x1e/0xa0 [sunrpc]\n[<0>] nfs4_run_open_task+0x1/0x2\n";
        assert_eq!(functions(stack).collect::<Vec<_>>(), ["rpc_wait_bit_killable", "nfs4_run_open_task"]);
        assert_eq!(functions(b"fuse_simple_request").collect::<Vec<_>>(), ["fuse_simple_request"]);
        assert_eq!(functions(b"0").count(), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a scratch directory")]
    fn only_what_waits_in_this_filesystem_is_named() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: i32, parent: i32, state: char, stack: &str| {
            let task = root.path().join(format!("{pid}/task/{pid}"));
            std::fs::create_dir_all(&task).unwrap();
            let stat = format!(
                "{pid} (cp a) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            );
            std::fs::write(root.path().join(format!("{pid}/stat")), &stat).unwrap();
            std::fs::write(task.join("stat"), stat).unwrap();
            std::fs::write(task.join("stack"), stack).unwrap();
        };
        process(10, 1, 'D', "[<0>] rpc_wait_bit_killable+0x1e/0xa0\n");
        process(11, 1, 'D', "[<0>] fuse_simple_request+0x1/0x2\n");
        process(12, 1, 'S', "[<0>] rpc_wait_bit_killable+0x1e/0xa0\n");
        process(13, 99, 'D', "[<0>] rpc_wait_bit_killable+0x1e/0xa0\n");
        let found = blocked(root.path(), Kind::Nfs4, 99).unwrap();
        assert_eq!(found.elsewhere, 1);
        let [one] = found.here.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.pid, one.name.as_str(), one.threads), (10, "cp a", 1));
        assert_eq!(one.function.as_deref(), Some("rpc_wait_bit_killable"));
    }
}
