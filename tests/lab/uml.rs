//! Boots User-Mode Linux guests and sees to it that nothing of them is left.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Debian's package `user-mode-linux`.
const KERNEL: &str = "linux.uml";
/// What makes a boot short: these three cost 0.85 s, 0.05 s and 0.56 s of it and serve nothing here.
const FAST: [&str; 3] = ["initcall_blacklist=raid6_select_algo,init_zswap", "pty.legacy_count=0", "selinux=0"];

/// What every guest of a run shares.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// `tests/lab` of the checkout.
    lab: PathBuf,
    agent: PathBuf,
    /// This program.
    runner: PathBuf,
    /// Files of this run's life: the copies of both programs, and the guests' sockets, which want a short path.
    uml_dir: PathBuf,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    PoweredOff,
    TimedOut,
}

impl Host {
    pub(crate) fn new(agent: &Path) -> Result<Host> {
        let agent = agent.canonicalize().with_context(|| {
            format!(
                "there is no binary {}: build it with `cargo build --release`, or name one with --agent",
                agent.display()
            )
        })?;
        let uml_dir = std::env::temp_dir().join(format!("mwlab-{}", std::process::id()));
        std::fs::create_dir_all(&uml_dir)?;
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
        // Copies, so that a build during the run changes nothing under the guests' feet.
        let copies = (uml_dir.join("agent"), uml_dir.join("runner"));
        std::fs::copy(&agent, &copies.0).with_context(|| format!("copy {}", agent.display()))?;
        std::fs::copy(std::env::current_exe()?, &copies.1).context("copy this program")?;
        Ok(Host { lab, agent: copies.0, runner: copies.1, uml_dir })
    }

    /// Boots a guest that runs `script` (relative to `tests/lab`) and may write `out`; returns when it is gone.
    pub(crate) fn run(&self, name: &str, script: &str, out: &Path, console: Console, limit: Duration) -> Result<End> {
        let mut command = Command::new(KERNEL);
        command.args([
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "mem=384M",
            "con=null",
            "con0=fd:0,fd:1",
            "quiet",
            "loglevel=1",
        ]);
        command.args(FAST);
        for (key, path) in [("init", &self.lab.join("guest/init.sh")), ("uml_dir", &self.uml_dir)] {
            command.arg(format!("{key}={}", path.display()));
        }
        let out = out.canonicalize()?;
        for (key, path) in [("DIR", &self.lab), ("OUT", &out), ("AGENT", &self.agent), ("RUNNER", &self.runner)] {
            command.arg(format!("LAB_{key}={}", path.display()));
        }
        // The id ends up in a directory name of the kernel's; it has to be unique on the machine.
        command.arg(format!("umid=mwlab-{}-{name}", std::process::id())).arg(format!("LAB_SCRIPT={script}"));
        command.stdin(Stdio::null());
        match console {
            // Not the terminal itself: the guest would switch it to raw mode.
            Console::Terminal => command.stdout(Stdio::piped()).stderr(Stdio::null()),
            Console::File => {
                let log = File::create(out.join("console.log"))?;
                command.stdout(log.try_clone()?).stderr(log)
            }
        };
        let mut child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {KERNEL}: is the package user-mode-linux installed?"))?;
        let copier = child.stdout.take().map(|console| std::thread::spawn(move || copy_lines(console)));
        let end = wait(child, limit);
        if let Some(copier) = copier {
            // Ends with the last process that holds the console, and `wait` leaves none.
            let _ = copier.join();
        }
        end
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.uml_dir);
    }
}

/// Where the guest's console goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Console {
    Terminal,
    File,
}

/// The guest's console without carriage returns and without the kernel's farewell.
fn copy_lines(console: impl Read) {
    for line in BufReader::new(console).lines().map_while(std::result::Result::ok) {
        let line = line.trim_end_matches('\r');
        if !line.starts_with("reboot: ") {
            println!("{line}");
        }
    }
}

fn wait(mut child: Child, limit: Duration) -> Result<End> {
    let begin = Instant::now();
    let main = Pid::from_raw(child.id().try_into()?);
    loop {
        if child.try_wait()?.is_some() {
            sweep(main)?;
            return Ok(End::PoweredOff);
        }
        if begin.elapsed() > limit {
            let _ = kill(main, Signal::SIGKILL);
            child.wait()?;
            sweep(main)?;
            return Ok(End::TimedOut);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The main process runs its guests' programs in traced stubs, which survive it: all are in its process group.
fn sweep(group: Pid) -> Result<()> {
    for _ in 0..100 {
        if killpg(group, Signal::SIGKILL).is_err() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("processes of group {group} do not die")
}
