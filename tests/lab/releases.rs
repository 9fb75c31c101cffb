//! `releases`: pods whose processes, and the kubelet's, are stuck on a mount with a silent server, let go by the sequence
//! of `remedy::release`; and that nobody else is hurt by it.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use mountwarden::mounts::{View, mountinfo};
use mountwarden::probe::canary::cgroup::{CgroupSpec, Isolation};
use mountwarden::probe::image::Image;
use mountwarden::probe::trial::options::VERSIONS;
use mountwarden::remedy::release::{self, Event, Manner, Outcome, Pace, ReleaseMount, ReleaseSpec};
use serde::{Deserialize, Serialize};

use crate::guest::shell;
use crate::interrupt;
use crate::uml::{Heard, Host};

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const VOLUME: &str = "/mnt/kubelet/pods/0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11/volumes/kubernetes.io~nfs/data";
const NEIGHBOUR: &str = "/mnt/neighbour";
const GROUP: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0b2e7d6c_9f0c_4c29_8a40_6d7a1f7e5a11.slice/cri-containerd-6a0f0e9a1b2c3d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccd.scope";
/// A guest's time: to boot, and for each run of all cases, four guests side by side.
const BOOT: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(180);
/// What the issue promises, and one call more for each dirty file.
const PROMISED: Duration = Duration::from_secs(5);
/// A process that is let go ends so soon, on an emulated CPU.
const ENDING: Duration = Duration::from_secs(10);

/// One way to be stuck.
struct Case {
    name: &'static str,
    /// How the pod's process is stuck, and with how many dirty files; `None`: it has ended, only the kubelet is stuck.
    writer: Option<(Stuck, u32)>,
    /// Somebody is stuck on another superblock of the same server.
    neighbour: bool,
    /// The worker is killed after so many events, again and again, until a release has fewer.
    killed: bool,
}

const fn case(name: &'static str, writer: Option<(Stuck, u32)>) -> Case {
    Case { name, writer, neighbour: false, killed: false }
}

const CASES: [Case; 9] = [
    case("kubelet", None),
    case("fsync-1", Some((Stuck::Fsync, 1))),
    case("fsync-5", Some((Stuck::Fsync, 5))),
    case("fsync-20", Some((Stuck::Fsync, 20))),
    case("write-1", Some((Stuck::Write, 1))),
    case("write-5", Some((Stuck::Write, 5))),
    case("write-20", Some((Stuck::Write, 20))),
    Case { neighbour: true, ..case("neighbour", Some((Stuck::Fsync, 1))) },
    Case { killed: true, ..case("killed", Some((Stuck::Fsync, 2))) },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stuck {
    /// In fsync(2) of a dirty file.
    Fsync,
    /// In write(2) to a file that was opened with O_SYNC.
    Write,
}

/// One release, as the guest saw it.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    case: String,
    failures: Vec<String>,
    /// From the decision until nothing of the pod and of the kubelet was stuck and the mount was gone.
    millis: u128,
    /// Calls of umount2, in all tries.
    calls: usize,
    /// Times that the worker was killed.
    kills: usize,
    /// From the end to when the last process of the release is gone, which has closed the descriptors.
    ending_millis: u128,
}

/// On the host: each version in a guest of its own, side by side, since they wait most of the time.
pub(crate) fn run(agent: &Path, versions: &[String], only: Option<&regex::Regex>, runs: usize) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let wanted = |version: &&&str| versions.is_empty() || versions.iter().any(|one| one == **version);
    let limit = BOOT + RUN * u32::try_from(runs)?;
    let heard: Vec<(&str, Result<Heard>)> = std::thread::scope(|scope| {
        let boot = |version: &'static str| {
            let host = &host;
            let cases = only.map_or("", |only| only.as_str());
            let arguments =
                vec![format!("LAB_VERSION={version}"), format!("LAB_ONLY={cases}"), format!("LAB_RUNS={runs}")];
            let hear = move || host.hear(&format!("releases-{version}"), "guest/releases.sh", arguments, limit);
            (version, scope.spawn(hear))
        };
        let guests: Vec<_> = VERSIONS.iter().filter(wanted).map(|version| boot(version)).collect();
        let join = |(version, guest): (_, std::thread::ScopedJoinHandle<'_, _>)| {
            (version, guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        guests.into_iter().map(join).collect()
    });
    let mut failures = 0;
    for (version, heard) in heard {
        println!("NFS {version}");
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                failures += 1;
                println!("  FAILED: {error:#}");
                continue;
            }
        };
        // What was seen before a guest went wrong counts all the same.
        let seen: Vec<Seen> = heard.partial()?;
        let cases = CASES.iter().filter(|case| only.is_none_or(|only| only.is_match(case.name)));
        if !heard.powered_off() || seen.len() < cases.clone().count() * runs {
            failures += 1;
            println!("  FAILED: {}", heard.why());
        }
        failures += cases.map(|case| sum_up(case, &seen, runs)).sum::<usize>();
    }
    Ok(failures == 0)
}

/// Prints what became of one case, and tells how many of its runs failed or are missing.
fn sum_up(case: &Case, seen: &[Seen], runs: usize) -> usize {
    let all: Vec<&Seen> = seen.iter().filter(|seen| seen.case == case.name).collect();
    let good = all.iter().filter(|seen| seen.failures.is_empty()).count();
    let slowest = all.iter().map(|seen| seen.millis).max().unwrap_or_default();
    let calls: Vec<usize> = all.iter().map(|seen| seen.calls).collect();
    let ending = all.iter().map(|seen| seen.ending_millis).max().unwrap_or_default();
    println!(
        "  {:<10} {good} of {runs} released; slowest {slowest} ms, {} to {} calls, then closed within {ending} ms",
        case.name,
        calls.iter().min().unwrap_or(&0),
        calls.iter().max().unwrap_or(&0)
    );
    for failure in all.iter().flat_map(|seen| &seen.failures) {
        println!("      FAILED: {failure}");
    }
    runs - good
}

/// In the guest: all cases.
pub(crate) fn cases(only: &str, runs: usize) -> Result<()> {
    let only = regex::Regex::new(only)?;
    std::fs::create_dir_all(GROUP)?;
    for _ in 0..runs {
        for case in CASES.iter().filter(|case| only.is_match(case.name)) {
            let mut seen = Seen {
                case: case.name.to_owned(),
                failures: Vec::new(),
                millis: 0,
                calls: 0,
                kills: 0,
                ending_millis: 0,
            };
            if let Err(error) = one(case, &mut seen) {
                seen.failures.push(format!("{error:#}"));
            }
            println!("{}", serde_json::to_string(&seen)?);
        }
    }
    Ok(())
}

fn one(case: &Case, seen: &mut Seen) -> Result<()> {
    done("mount the volume", &format!("MNT={VOLUME}; client_mount"))?;
    let mut pod = case.writer.map(|(stuck, files)| User::start(VOLUME, stuck, files, Some(GROUP))).transpose()?;
    let mut neighbour = None;
    if case.neighbour {
        done("mount a neighbour", &format!("MNT={NEIGHBOUR} OPTIONS=$OPTIONS,nosharecache; client_mount"))?;
        neighbour = Some(User::start(NEIGHBOUR, Stuck::Fsync, 1, None)?);
    }
    done("cut the path", "fault drop")?;
    for user in pod.iter_mut().chain(&mut neighbour) {
        user.get_stuck()?;
    }
    let mut kubelet = [
        stuck(Command::new(std::env::current_exe()?).args(["guest", "statx", VOLUME]))?,
        stuck(Command::new("stat").args(["-f", VOLUME]))?,
    ];
    if let Some(pod) = &mut pod {
        pod.child.kill()?;
    }
    let released = let_go(case, seen).and_then(|()| {
        let begin = Instant::now();
        for child in kubelet.iter_mut().chain(pod.as_mut().map(|pod| &mut pod.child)) {
            let pid = child.id();
            until(ENDING, "a process stays stuck", || Ok(child.try_wait()?.is_some())).with_context(|| stack(pid))?;
        }
        seen.millis += begin.elapsed().as_millis();
        ensure!(find(VOLUME)?.is_none(), "the volume is still mounted");
        let begin = Instant::now();
        until(ENDING, "a process of the release does not end", || Ok(helpers()?.is_empty()))
            .with_context(|| helpers().unwrap_or_default().into_iter().map(stack).collect::<Vec<_>>().join("; "))?;
        seen.ending_millis = begin.elapsed().as_millis();
        Ok(())
    });
    if let Some(neighbour) = &mut neighbour {
        ensure!(neighbour.child.try_wait()?.is_none(), "the neighbour's call was aborted too");
        ensure!(state(neighbour.child.id()) == Some('D'), "the neighbour is not in its call any more");
    }
    done("mend the path", "heal drop")?;
    if let Some(neighbour) = &mut neighbour {
        until(Duration::from_secs(60), "the neighbour does not recover", || Ok(neighbour.child.try_wait()?.is_some()))?;
        ensure!(neighbour.child.wait()?.success(), "the neighbour's write failed");
        done("unmount the neighbour", &format!("umount {NEIGHBOUR}"))?;
    }
    released?;
    let files = case.writer.map_or(0, |(_, files)| files);
    let promised = PROMISED + Duration::from_secs(u64::from(files));
    // Tries that were killed have the same time each.
    let promised = promised * u32::try_from(seen.kills + 1)?;
    ensure!(seen.millis <= promised.as_millis(), "it took {} ms, allowed are {promised:?}", seen.millis);
    Ok(())
}

/// A release in the host's mount namespace, from whichever one this process is in.
fn spec(path: &str, manner: Manner) -> Result<ReleaseSpec> {
    let mount = find(path)?.with_context(|| format!("{path} is not mounted"))?;
    Ok(ReleaseSpec {
        pod_uid: UID.to_owned(),
        proc_root: b"/proc".to_vec(),
        namespace: b"/proc/1/ns/mnt".to_vec(),
        mounts: vec![mount],
        manner,
        cgroup: None,
        pace: Pace::default(),
    })
}

/// `guest release PATH`, to be run in a pod's surroundings: what became of it.
pub(crate) fn from_here(path: &str) -> Result<()> {
    let mut spec = spec(path, Manner::Detach)?;
    let dev = spec.mounts[0].dev;
    spec.cgroup = Some(CgroupSpec { proc_root: b"/proc".to_vec(), run: "lab".to_owned(), dev });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome =
        runtime.block_on(async { anyhow::Ok(release::release(&Image::of_this_binary()?, &spec, |_| true).await) })?;
    let said = |wanted: fn(&Event) -> Option<String>| outcome.events().iter().find_map(|(_, event)| wanted(event));
    let place = said(|event| match event {
        Event::Entered(Isolation::Own) => Some("by a worker in a cgroup of its own".to_owned()),
        Event::Entered(Isolation::Failed(errno)) => {
            Some(format!("by a worker that stays in the agent's cgroup (errno {errno})"))
        }
        Event::Entered(Isolation::Version1) => {
            Some("by a worker that stays in the agent's cgroup (version 1)".to_owned())
        }
        _ => None,
    });
    let stopped = said(|event| match event {
        Event::Stopped(stop) => Some(stop.to_string()),
        _ => None,
    });
    match stopped {
        None if outcome.released() => println!("done, {}", place.context("no word about the cgroup")?),
        Some(why) => println!("refused: {why}"),
        None => bail!("{outcome:?}"),
    }
    Ok(())
}

fn let_go(case: &Case, seen: &mut Seen) -> Result<()> {
    let spec = spec(VOLUME, Manner::Abort)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let image = Image::of_this_binary()?;
        // With `killed` the worker does not live to say its first, second, ... word more.
        for allowed in 0.. {
            let mut heard = 0;
            let begin = Instant::now();
            let outcome = release::release(&image, &spec, |_| {
                heard += 1;
                !case.killed || heard <= allowed
            });
            let outcome = outcome.await;
            seen.millis += begin.elapsed().as_millis();
            seen.calls += outcome.events().iter().filter(|(_, event)| matches!(event, Event::Called { .. })).count();
            let released = outcome.released();
            match outcome {
                Outcome::Ended { .. } if released => return Ok(()),
                Outcome::Lost { .. } if case.killed => seen.kills += 1,
                Outcome::NotStarted(error) => return Err(error).context("start a worker"),
                other => {
                    let last = other.events().last();
                    bail!("not released after {} calls, last {last:?}", seen.calls)
                }
            }
        }
        Ok(())
    })
}

/// What is left of all releases.
fn helpers() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let dead = matches!(state(pid), None | Some('Z' | 'X'));
        found.extend((name.starts_with("mountwarden-") && !dead).then_some(pid));
    }
    Ok(found)
}

/// In the host's table.
fn find(path: &str) -> Result<Option<ReleaseMount>> {
    let table = mountinfo::parse(&std::fs::read("/proc/1/mountinfo")?, View::Host);
    let mount = table.mounts.iter().find(|mount| mount.mountpoint == Path::new(path));
    Ok(mount.map(|mount| ReleaseMount {
        path: path.as_bytes().to_vec(),
        mount_id: mount.id,
        unique_mount_id: None,
        dev: mount.dev,
    }))
}

/// A process that will get stuck in its own writes.
struct User {
    child: Child,
}

impl User {
    fn start(directory: &str, stuck: Stuck, files: u32, group: Option<&str>) -> Result<User> {
        let mut command = Command::new(std::env::current_exe()?);
        let stuck = stuck.to_possible_value().context("a way to be stuck")?;
        command.args(["guest", "writer", directory, stuck.get_name(), &files.to_string()]).args(group);
        let child = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut user = User { child };
        user.hear(b'r')?;
        Ok(user)
    }

    fn hear(&mut self, word: u8) -> Result<()> {
        let mut byte = [0];
        self.child.stdout.as_mut().context("a pipe")?.read_exact(&mut byte).context("a writer that ended early")?;
        ensure!(byte[0] == word, "a writer said {:?}", char::from(byte[0]));
        Ok(())
    }

    fn get_stuck(&mut self) -> Result<()> {
        self.child.stdin.as_mut().context("a pipe")?.write_all(b"g")?;
        self.hear(b'd')?;
        let pid = self.child.id();
        until(ENDING, "a writer does not get stuck", || Ok(state(pid) == Some('D')))
    }
}

/// The kubelet's own threads, which are stuck in calls that can be killed.
fn stuck(command: &mut Command) -> Result<Child> {
    let child = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pid = child.id();
    until(ENDING, "a look at the volume does not get stuck", || Ok(state(pid) == Some('D')))?;
    Ok(child)
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// What a process is and where in the kernel it is.
fn stack(pid: u32) -> String {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = [read("cmdline"), b" in ".to_vec(), read("stack")].concat();
    String::from_utf8_lossy(&text).replace(['\0', '\n'], " ")
}

fn until(limit: Duration, otherwise: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < limit, "{otherwise}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn done(what: &str, command: &str) -> Result<()> {
    ensure!(shell(command)?.wait()?.success(), "cannot {what}");
    Ok(())
}

/// `guest writer`: opens files, waits for a byte, dirties all of them and gets stuck with the first.
#[derive(Debug, clap::Args)]
pub(crate) struct Writer {
    directory: PathBuf,
    stuck: Stuck,
    files: u32,
    /// The control group to enter first.
    group: Option<PathBuf>,
}

impl Writer {
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(group) = &self.group {
            std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).context("enter the group")?;
        }
        let open = |number: u32| {
            let mut options = std::fs::OpenOptions::new();
            options.create(true).truncate(false).write(true);
            if self.stuck == Stuck::Write && number == 0 {
                options.custom_flags(libc::O_SYNC);
            }
            options.open(self.directory.join(format!("w{number}")))
        };
        let files: Vec<std::fs::File> = (0..self.files).map(open).collect::<std::io::Result<_>>()?;
        let mut out = std::io::stdout();
        out.write_all(b"r")?;
        out.flush()?;
        std::io::stdin().read_exact(&mut [0])?;
        let first = match self.stuck {
            Stuck::Fsync => 0,
            Stuck::Write => 1,
        };
        for file in files.iter().skip(first) {
            file.write_all_at(&[b'x'; 4096], 0)?;
        }
        out.write_all(b"d")?;
        out.flush()?;
        if let Some(file) = files.first() {
            match self.stuck {
                Stuck::Fsync => file.sync_all()?,
                Stuck::Write => file.write_all_at(&[b'x'; 4096], 0)?,
            }
        }
        Ok(())
    }
}
