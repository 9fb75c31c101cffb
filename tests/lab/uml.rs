//! Boots User-Mode Linux guests and sees to it that nothing of them is left.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::interrupt;

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
    /// What lets User-Mode Linux run on processors with more registers than it knows (`xstate.c`).
    xstate: PathBuf,
    /// Files of this run's life: the copies of both programs, and the guests' sockets, which want a short path.
    uml_dir: PathBuf,
}

/// A guest to be booted.
pub(crate) struct Guest<'a> {
    /// Unique within the run.
    pub(crate) name: &'a str,
    /// What it runs, relative to `tests/lab`.
    pub(crate) script: &'a str,
    /// The directory that it may write.
    pub(crate) out: &'a Path,
    pub(crate) console: Console,
    /// More arguments for its kernel.
    pub(crate) arguments: Vec<String>,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    PoweredOff,
    TimedOut,
    Interrupted,
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
        let (source, xstate) = (lab.join("xstate.c"), uml_dir.join("xstate.so"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&xstate).arg(&source);
        let compiled = compiler.status().context("run cc: is the package gcc installed?")?;
        ensure!(compiled.success(), "cannot compile {}", source.display());
        // Copies, so that a build during the run changes nothing under the guests' feet.
        let copies = (uml_dir.join("agent"), uml_dir.join("runner"));
        std::fs::copy(&agent, &copies.0).with_context(|| format!("copy {}", agent.display()))?;
        std::fs::copy(std::env::current_exe()?, &copies.1).context("copy this program")?;
        Ok(Host { lab, agent: copies.0, runner: copies.1, xstate, uml_dir })
    }

    /// Where sockets of this run may lie.
    pub(crate) fn sockets(&self) -> &Path {
        &self.uml_dir
    }

    /// Boots a guest.
    pub(crate) fn boot(&self, guest: &Guest<'_>) -> Result<Running> {
        let out = guest.out.canonicalize()?;
        let mut command = Command::new(KERNEL);
        command.env("LD_PRELOAD", &self.xstate);
        command.args([
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "mem=512M",
            "con=null",
            "con0=fd:0,fd:1",
            "quiet",
            "loglevel=1",
        ]);
        command.args(FAST).args(&guest.arguments);
        for (key, path) in [("init", &self.lab.join("guest/init.sh")), ("uml_dir", &self.uml_dir)] {
            command.arg(format!("{key}={}", path.display()));
        }
        for (key, path) in [("DIR", &self.lab), ("OUT", &out), ("AGENT", &self.agent), ("RUNNER", &self.runner)] {
            command.arg(format!("LAB_{key}={}", path.display()));
        }
        // The id ends up in a directory name of the kernel's; it has to be unique on the machine.
        command.arg(format!("umid=mwlab-{}-{}", std::process::id(), guest.name));
        command.arg(format!("LAB_SCRIPT={}", guest.script)).stdin(Stdio::null());
        match guest.console {
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
        let main = Pid::from_raw(child.id().try_into()?);
        let copier = child.stdout.take().map(|console| std::thread::spawn(move || copy_lines(console)));
        Ok(Running { child, main, copier })
    }
}

impl Host {
    /// Boots a guest that tells what it saw in its file `told`, and waits for its end. `name` is unique within the run.
    pub(crate) fn hear(&self, name: &str, script: &str, arguments: Vec<String>, limit: Duration) -> Result<Heard> {
        let out = std::env::temp_dir().join(format!("mwlab-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&out)?;
        let guest = Guest { name, script, out: &out, console: Console::File, arguments };
        let end = self.boot(&guest).and_then(|guest| guest.wait(limit, || Ok(())));
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
        let logs = ["guest.log", "agent.log", "coordinator.log"].map(read).join("\n");
        let told = read("told");
        std::fs::remove_dir_all(&out)?;
        Ok(Heard { told, logs, end: end? })
    }
}

/// What a guest told before its end.
pub(crate) struct Heard {
    told: String,
    logs: String,
    end: End,
}

impl Heard {
    /// A whole story, to its last line.
    pub(crate) fn story(self) -> Result<String> {
        ensure!(self.end == End::PoweredOff && self.told.ends_with("the end\n"), "{}", self.why());
        Ok(self.told)
    }

    /// One result to a line, of a guest that came to its end.
    pub(crate) fn results<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        ensure!(self.end == End::PoweredOff && !self.told.is_empty(), "{}", self.why());
        self.partial()
    }

    /// The results that are whole, however the guest ended.
    pub(crate) fn partial<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let whole = self.told.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// What is wrong with the end, and all that is known of it.
    pub(crate) fn why(&self) -> String {
        let end = match self.end {
            End::PoweredOff => "the guest ended early",
            End::TimedOut => "the guest did not end",
            End::Interrupted => "interrupted",
        };
        format!("{end}: {}\n{}", self.told, self.logs)
    }

    pub(crate) fn powered_off(&self) -> bool {
        self.end == End::PoweredOff
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

/// A guest under way; dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    /// Its main process, and the process group of all of its processes.
    main: Pid,
    copier: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits until the guest powers off, at most for `limit`, and calls `meanwhile` every 50 ms.
    pub(crate) fn wait(mut self, limit: Duration, mut meanwhile: impl FnMut() -> Result<()>) -> Result<End> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if self.child.try_wait()?.is_some() {
                return Ok(End::PoweredOff);
            }
            if interrupt::seen() {
                return Ok(End::Interrupted);
            }
            meanwhile()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(End::TimedOut)
    }

    /// Stops the machine where it stands, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(self.main, signal).context("freeze a guest")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill(self.main, Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if let Err(error) = sweep(self.main) {
            eprintln!("lab: {error:#}");
        }
        if let Some(copier) = self.copier.take() {
            // Ends with the last process that holds the console, and none is left.
            let _ = copier.join();
        }
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
