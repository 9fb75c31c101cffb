//! The surroundings of the agent's pod: the image as a read-only root of its own, the host's processes and network, the
//! capabilities of the manifests without one, no way to more of them, a cgroup below the kubelet's.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::thread::CapabilitySet;

/// Where the image's root is put together.
const ROOT: &str = "/run/pod";
const LOG: &str = "/run/out/agent.log";
const CONFIG: &str = "backoff_max: 6s\n\
    canary: {mounts: [\"/mnt/kubelet/pods/*/volumes/kubernetes.io~nfs/*\"], interval: 3s, identity: \"uid=1000 gid=1000\"}\n\
    remedy: {mode: dry-run, grace: 5s}\n";

/// The running agent; dropped, it is ended.
pub(crate) struct Pod {
    child: Child,
}

impl Pod {
    /// Starts it by way of `guest pod`.
    pub(crate) fn start(capabilities: &[&str]) -> Result<Pod> {
        let log = File::create(LOG)?;
        let mut command = Command::new("/run/runner");
        command
            .args(["guest", "pod"])
            .arg(capabilities.join(","))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Pod { child: command.spawn().context("start the pod")? })
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(LOG).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Ok(pid) = self.child.id().try_into() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::copy(LOG, format!("/run/out/agent-{}.log", self.child.id()));
    }
}

/// In a process of its own: makes the surroundings and becomes the agent.
pub(crate) fn become_agent(capabilities: &str) -> Result<()> {
    std::fs::write("/sys/fs/cgroup/kubepods.slice/agent/cgroup.procs", "0").context("enter the pod's cgroup")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    let (none, bind) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    std::fs::create_dir_all(ROOT)?;
    mount(Some("image"), ROOT, Some("tmpfs"), MsFlags::empty(), none)?;
    for directory in ["proc", "sys", "dev", "etc/mountwarden", "usr/local/bin", "old"] {
        std::fs::create_dir_all(format!("{ROOT}/{directory}"))?;
    }
    std::fs::copy("/run/agent", format!("{ROOT}/usr/local/bin/mountwarden"))?;
    std::fs::write(format!("{ROOT}/etc/mountwarden/config.yaml"), CONFIG)?;
    std::fs::write(format!("{ROOT}/etc/hosts"), "127.0.0.1 localhost\n")?;
    // hostPID: the host's processes. /sys is read-only in a container, with a view of the cgroup from its own.
    mount(Some("proc"), &*format!("{ROOT}/proc"), Some("proc"), MsFlags::empty(), none)?;
    mount(Some("sys"), &*format!("{ROOT}/sys"), Some("sysfs"), MsFlags::MS_RDONLY, none)?;
    mount(Some("cgroup"), &*format!("{ROOT}/sys/fs/cgroup"), Some("cgroup2"), MsFlags::MS_RDONLY, none)?;
    std::fs::write(format!("{ROOT}/dev/null"), "")?;
    mount(Some("/dev/null"), &*format!("{ROOT}/dev/null"), none, bind, none)?;
    rustix::process::pivot_root(ROOT, &*format!("{ROOT}/old"))?;
    std::env::set_current_dir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)?;
    drop_all_but(capabilities)?;
    let error = Command::new("/usr/local/bin/mountwarden")
        .args(["run", "--config", "/etc/mountwarden/config.yaml", "--interval", "3s", "--timeout", "1500ms"])
        .args(["--listen", "127.0.0.1:12049", "--listen-ui", "127.0.0.1:12050"])
        .env("NODE_NAME", "lab-node")
        .exec();
    Err(error).context("start the agent (is the binary static? the image has no library)")
}

/// Leaves these. A program that root starts gets what is left.
fn drop_all_but(capabilities: &str) -> Result<()> {
    for (name, capability) in CapabilitySet::all().iter_names() {
        if !capabilities.split(',').any(|kept| kept == name)
            && rustix::thread::capability_is_in_bounding_set(capability)?
        {
            rustix::thread::remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(rustix::thread::set_no_new_privs(true)?)
}
