//! `guest keep`: what stands for a container or a service: a process with a mount namespace and a control group.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid};

use super::{Copy, KUBELET};

/// A process of its own, in this control group, that does nothing until it is killed.
pub(super) fn keep(group: &str, arguments: &[&str]) -> Result<Child> {
    std::fs::create_dir_all(group)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["guest", "keep", "--group", group]).args(arguments);
    let mut child = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut word = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().context("no output")?, &mut word).context("it does not start")?;
    Ok(child)
}

/// `guest keep`: a process with a mount namespace of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Keep {
    /// Its control group.
    #[arg(long)]
    group: PathBuf,
    /// A container: this volume at `at`, and nothing else of the kubelet's.
    #[arg(long, requires = "at")]
    volume: Option<PathBuf>,
    #[arg(long)]
    at: Option<PathBuf>,
    #[arg(long, default_value = "private")]
    copy: Copy,
    /// Whom it runs as, user and group; without it root.
    #[arg(long)]
    user: Option<u32>,
    /// A container without its volume.
    #[arg(long)]
    bare: bool,
    /// A service: a private copy of everything.
    #[arg(long)]
    hold: bool,
}

impl Keep {
    pub(crate) fn run(&self) -> Result<()> {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        std::fs::write(self.group.join("cgroup.procs"), std::process::id().to_string()).context("enter the group")?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
        let all = |flags| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flags, None::<&str>);
        if self.hold {
            all(MsFlags::MS_PRIVATE)?;
        } else {
            all(MsFlags::MS_SLAVE)?;
            if let Some((volume, at)) = self.volume.as_ref().zip(self.at.as_ref()) {
                mount(Some(volume), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind the volume")?;
            } else {
                ensure!(self.bare, "neither a container nor a service");
            }
            if self.copy == Copy::Private {
                all(MsFlags::MS_PRIVATE)?;
            } else {
                // Of the host's tree a container has nothing that could follow it.
                for tree in ["/", "/mnt"] {
                    mount(None::<&str>, tree, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
                }
            }
            // As a runtime's pivot_root leaves it: the kubelet's own directories are not seen.
            let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
            for hidden in table.mounts.iter().rev().filter(|mount| mount.mountpoint.starts_with(KUBELET)) {
                umount2(&hidden.mountpoint, MntFlags::MNT_DETACH).context("hide the kubelet's paths")?;
            }
        }
        if let Some(user) = self.user {
            nix::unistd::setgroups(&[]).context("leave root's groups")?;
            let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
            nix::unistd::setresgid(group, group, group).context("a group of its own")?;
            nix::unistd::setresuid(user, user, user).context("a user of its own")?;
        }
        print!("ready");
        std::io::Write::flush(&mut std::io::stdout())?;
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}
