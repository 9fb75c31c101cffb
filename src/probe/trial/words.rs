//! What the outcome of a trial mount means, in one sentence for people. Pure.

use std::time::Duration;

use super::TrialReport;
use crate::probe::Step;
use crate::verdict::judge::words::errno_name;

/// Why the trial failed and what to look at; `None` when the server mounted it and answered for its root.
#[must_use]
pub fn explain(report: &TrialReport) -> Option<String> {
    if report.answered() {
        return None;
    }
    let (step, errno) = report.failure()?;
    let meaning = match (step, &report.refused_option) {
        (Step::TrialOpen, Some(option)) => {
            format!("this kernel does not take the option {option}: correct it, or leave it out")
        }
        (Step::TrialOpen, None) => of_this_kernel(errno).to_owned(),
        _ => of_the_server(errno).to_owned(),
    };
    let name = errno_name(errno);
    let said = said(report).map(|words| format!(" (the kernel says: {words})")).unwrap_or_default();
    Some(format!("{meaning}; {name}{said}"))
}

/// What it means that the trial was silent in a step until its deadline.
#[must_use]
pub fn silence(step: Option<Step>, deadline: Duration) -> String {
    let within = humantime::format_duration(deadline);
    match step {
        Some(Step::TrialMount) => format!(
            "no answer to the mount request within {within}: nothing listens on the server's port, a firewall drops it, or the file service hangs (a hard mount tries again for ever, so a refused connection looks the same here)"
        ),
        Some(Step::TrialRoot) => {
            format!("the server mounted it, but did not answer for its root directory within {within}")
        }
        Some(Step::TrialNames) => format!("the root directory answers, but could not be listed within {within}"),
        Some(Step::TrialClose) => {
            format!("it was mounted, but the server did not answer when it was let go within {within}")
        }
        _ => format!("this node's kernel did not begin the mount within {within}: it may be loading the NFS module"),
    }
}

/// The kernel's own words without their letter (`e`, `w`, `i`); errors only.
fn said(report: &TrialReport) -> Option<String> {
    let errors: Vec<&str> = report.messages.iter().filter_map(|message| message.strip_prefix("e ")).collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// Nothing was sent yet.
fn of_this_kernel(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "this process may not mount: run it as root with CAP_SYS_ADMIN, or skip the trial mount",
        libc::ENODEV => {
            "this kernel does not know the filesystem type: load its module (`modprobe nfsv4`, `modprobe nfs`)"
        }
        libc::ENOSYS => "this kernel has no fsopen(2): trial mounts need Linux 5.6",
        libc::EMFILE | libc::ENFILE | libc::ENOMEM => "this node is out of memory or descriptors",
        _ => "this kernel does not begin the mount",
    }
}

/// What servers, and the network in between, make the kernel say. The meanings are those of mount.nfs (nfs-utils,
/// `mount_error`) and of what was measured.
fn of_the_server(errno: i32) -> &'static str {
    match errno {
        libc::EACCES => {
            "the server refuses this client: the export does not list this node's address, or the directory is not exported"
        }
        libc::EPERM => {
            "not permitted: this process lacks CAP_SYS_ADMIN, or the server wants a privileged source port or another security flavour"
        }
        libc::ENOENT => "the server has no such directory: look at the path, and at what it exports (`showmount -e`)",
        libc::ENOTDIR => "what the server exports there is no directory",
        libc::ESTALE => "the server no longer knows the directory that it exports: run `exportfs -ra` there",
        libc::ECONNREFUSED => {
            "the connection is refused: the file service (on v3 also rpcbind and mountd) is not running, or on another port"
        }
        libc::ETIMEDOUT => "no answer in time: look at the network, firewalls, and on v3 at ports 111 and 20048",
        libc::EHOSTUNREACH | libc::ENETUNREACH => {
            "no way to the server's address: look at routes, and whether it is up"
        }
        libc::EHOSTDOWN => "the server's machine does not answer",
        libc::ECONNRESET | libc::EPIPE => "the server closes the connection: wrong port, or a firewall in between",
        // What the client makes of a port number 0 from rpcbind (measured on v3).
        libc::EOPNOTSUPP => {
            "the server's rpcbind knows no such service: NFS v3 or mountd does not run there, or is not registered (`rpcinfo -p`)"
        }
        libc::EPROTONOSUPPORT => "the server does not serve this NFS version: try another one (vers=)",
        libc::EPROTO | libc::EREMOTEIO | libc::EIO => {
            "the server's answer makes no sense or is an error: look at its log, and whether this really is NFS"
        }
        libc::EINVAL => "the kernel does not accept the options together",
        libc::ENODEV => "a kernel module of this NFS version is missing: `modprobe nfsv3` or `modprobe nfsv4`",
        libc::ENOMEM => "this node or the server is out of memory",
        libc::EBUSY => "this client already has the export mounted in a way that excludes these options",
        libc::ENOKEY | libc::EKEYEXPIRED | libc::EKEYREJECTED => {
            "Kerberos: this node has no valid ticket for the server (`klist -k`, rpc.gssd)"
        }
        _ => "the mount failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{RootAttributes, StepResult};

    fn failed(step: Step, errno: i32) -> TrialReport {
        TrialReport { steps: vec![StepResult { step, errno: Some(errno), micros: 5 }], ..TrialReport::default() }
    }

    #[test]
    fn a_refusal_names_the_reason_the_errno_and_the_kernels_words() {
        let report = TrialReport {
            messages: vec!["w NFS: never mind".to_owned(), "e NFS: server refused".to_owned()],
            ..failed(Step::TrialMount, libc::EACCES)
        };
        assert_eq!(
            explain(&report).unwrap(),
            "the server refuses this client: the export does not list this node's address, or the directory is not \
             exported; EACCES (the kernel says: NFS: server refused)"
        );
    }

    #[test]
    fn an_option_that_the_kernel_refuses_is_named() {
        let report = TrialReport { refused_option: Some("vers=9".to_owned()), ..failed(Step::TrialOpen, libc::EINVAL) };
        assert_eq!(
            explain(&report).unwrap(),
            "this kernel does not take the option vers=9: correct it, or leave it out; EINVAL"
        );
    }

    #[test]
    fn the_same_errno_means_another_thing_before_and_after_the_server_was_asked() {
        let here = explain(&failed(Step::TrialOpen, libc::EPERM)).unwrap();
        let there = explain(&failed(Step::TrialMount, libc::EPERM)).unwrap();
        assert!(here.contains("CAP_SYS_ADMIN") && !here.contains("server"), "{here}");
        assert!(there.contains("privileged source port"), "{there}");
    }

    #[test]
    fn a_root_that_answers_needs_no_explanation_even_if_it_cannot_be_listed() {
        let root = Some(RootAttributes { ino: 2, nlink: 2, mode: 0o40_700 });
        assert_eq!(explain(&TrialReport { root, ..failed(Step::TrialNames, libc::EACCES) }), None);
    }

    #[test]
    fn each_step_is_silent_in_its_own_words() {
        let steps = [Step::TrialOpen, Step::TrialMount, Step::TrialRoot, Step::TrialNames, Step::TrialClose];
        let words: std::collections::BTreeSet<String> =
            steps.iter().map(|step| silence(Some(*step), Duration::from_secs(5))).collect();
        assert_eq!(words.len(), steps.len());
        assert!(words.iter().all(|words| words.contains("within 5s")), "{words:?}");
    }
}
