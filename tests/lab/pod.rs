//! The surroundings of the agent's pod: a read-only root of its own, the host's processes and network, the capabilities of
//! the manifests, no way to more of them, a cgroup below the kubelet's, and of the node's directories that of its state.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::thread::CapabilitySet;
use serde_json::Value;

/// Where the root is put together.
const ROOT: &str = "/run/pod";
const GROUP: &str = "/sys/fs/cgroup/kubepods.slice/agent";
/// The configuration's directory, as a ConfigMap is mounted; on the node, and in the pod.
const CONFIG: [&str; 2] = ["/run/config", "/etc/mountwarden"];
/// The hostPath of the remedy variants.
const STATE: &str = "/run/mountwarden";
/// Programs in the pod.
pub(crate) const AGENT: &str = "/usr/local/bin/mountwarden";
pub(crate) const LAB: &str = "/usr/local/bin/lab";
/// The configuration file in the pod.
pub(crate) const CONFIG_FILE: &str = "/etc/mountwarden/config.yaml";

/// What `k8s/install-remedy-enforce.yaml` gives the agent.
pub(crate) fn remedy_capabilities() -> Result<Vec<String>> {
    for part in include_str!("../../k8s/install-remedy-enforce.yaml").split("\n---\n") {
        let object: Value = serde_saphyr::from_str(part)?;
        if object["kind"] == "DaemonSet" {
            let added = &object["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
            return Ok(serde_json::from_value(added.clone())?);
        }
    }
    anyhow::bail!("k8s/install-remedy-enforce.yaml has no DaemonSet")
}

/// Writes a file of the configuration's directory; gives its path in the pod.
pub(crate) fn configure(name: &str, text: &str) -> Result<String> {
    std::fs::create_dir_all(CONFIG[0])?;
    std::fs::write(Path::new(CONFIG[0]).join(name), text)?;
    Ok(format!("{}/{name}", CONFIG[1]))
}

/// A program in these surroundings, by way of `guest pod`; its output goes on where `log` ends.
pub(crate) fn start(capabilities: &[impl AsRef<str>], program: &[&str], log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let names: Vec<&str> = capabilities.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["guest", "pod", &names.join(",")]).args(program).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start the pod")
}

/// The running agent of a measurement; dropped, it is ended, and its log kept.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(capabilities: &[&str], flags: &[&str], log: &Path) -> Result<Agent> {
        let program = [&[AGENT, "run", "--config", CONFIG_FILE], flags].concat();
        Ok(Agent { child: start(capabilities, &program, log)?, log: log.to_owned() })
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(pid) = self.child.id().try_into() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::rename(&self.log, self.log.with_extension(format!("{}.log", self.child.id())));
    }
}

/// In a process of its own: makes the surroundings and becomes the program.
pub(crate) fn become_program(capabilities: &str, program: &[String]) -> Result<()> {
    std::fs::create_dir_all(GROUP)?;
    std::fs::write(format!("{GROUP}/cgroup.procs"), "0").context("enter the pod's cgroup")?;
    for directory in [CONFIG[0], STATE, ROOT] {
        std::fs::create_dir_all(directory)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("image"), ROOT, Some("tmpfs"), MsFlags::empty(), none)?;
    for directory in ["proc", "sys", "dev", "old"] {
        std::fs::create_dir_all(format!("{ROOT}/{directory}"))?;
    }
    bind("/run/agent", AGENT, MsFlags::empty())?;
    bind("/run/runner", LAB, MsFlags::empty())?;
    // The image has none; but the binary here may be no static one.
    for libraries in ["lib", "lib64"] {
        bind(&format!("/usr/{libraries}"), &format!("/usr/{libraries}"), MsFlags::MS_RDONLY)?;
        std::os::unix::fs::symlink(format!("usr/{libraries}"), format!("{ROOT}/{libraries}"))?;
    }
    // In a cluster the account's token comes with the API server's own.
    bind("/etc/ssl/certs", "/etc/ssl/certs", MsFlags::MS_RDONLY)?;
    bind(CONFIG[0], CONFIG[1], MsFlags::MS_RDONLY)?;
    bind(STATE, STATE, MsFlags::empty())?;
    bind("/dev/null", "/dev/null", MsFlags::empty())?;
    std::fs::write(format!("{ROOT}/etc/hosts"), "127.0.0.1 localhost\n")?;
    // hostPID: the host's processes. /sys is read-only in a container, with a view of the cgroup from its own.
    mount(Some("proc"), &*format!("{ROOT}/proc"), Some("proc"), MsFlags::empty(), none)?;
    mount(Some("sys"), &*format!("{ROOT}/sys"), Some("sysfs"), MsFlags::MS_RDONLY, none)?;
    mount(Some("cgroup"), &*format!("{ROOT}/sys/fs/cgroup"), Some("cgroup2"), MsFlags::MS_RDONLY, none)?;
    rustix::process::pivot_root(ROOT, &*format!("{ROOT}/old"))?;
    std::env::set_current_dir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)?;
    drop_all_but(capabilities)?;
    let (program, arguments) = program.split_first().context("no program is named")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("become {program}"))
}

/// Something of the node in the root that is being made.
fn bind(from: &str, to: &str, flags: MsFlags) -> Result<()> {
    let (to, none) = (format!("{ROOT}{to}"), None::<&str>);
    if Path::new(from).is_dir() {
        std::fs::create_dir_all(&to)?;
    } else {
        std::fs::create_dir_all(Path::new(&to).parent().context("a path in the root")?)?;
        std::fs::write(&to, "")?;
    }
    mount(Some(from), &*to, none, MsFlags::MS_BIND, none).with_context(|| format!("bind {from}"))?;
    if !flags.is_empty() {
        mount(none, &*to, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)?;
    }
    Ok(())
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
