//! Faults of the agent's own surroundings, against the real binary: none ends it, none is an alarm about a mount.
//!
//! Usage errors and bad configurations at the start are in `cli.rs`, mounts that fail in `fuse_agent.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod timed;
    pub mod wait;
}

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::agent::{Agent, Launch, PROGRAM, document_of, mount_at};
use common::fusefs::FuseFs;
use common::sandbox::Sandbox;
use common::timed::{DEADLINE, INTERVAL, SLACK, alone, config};
use common::wait::{PATIENCE, eventually};
use mountwarden::verdict::State;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

/// What `setpriv` takes away to run a command as nobody.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn log_file(sandbox: &Sandbox) -> (std::path::PathBuf, File) {
    let path = sandbox.path().join("log");
    let file = File::create(&path).unwrap();
    (path, file)
}

/// Lines of a log that hold `text`.
fn lines_with(log: &Path, text: &str) -> usize {
    std::fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(text)).count()
}

/// Waits until the agent has published for so long.
fn let_pass(agent: &Agent, time: Duration) {
    let end = agent.snapshot().generated + time.as_secs_f64();
    eventually("the time is over", time * 3 + PATIENCE, || (agent.snapshot().generated > end).then_some(()));
}

#[test]
fn a_port_in_use_is_said_once_and_served_as_soon_as_it_is_free() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_port_in_use_is_said_once_and_served_as_soon_as_it_is_free") else { return };
    let dir = sandbox.dir("m");
    let _fs = FuseFs::mount(&dir, &[]);
    let (log, file) = log_file(&sandbox);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut agent = Launch::new(&["--config", &config(sandbox.path())]).listen(address).log_to(file).spawn();
    eventually("the page is served", PATIENCE, || {
        agent.ui("/api/v1/mounts").is_ok_and(|response| response.status == 200).then_some(())
    });
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    // Long enough for a second and a third try.
    let_pass(&agent, Duration::from_secs(5));
    drop(taken);
    agent.wait_until_ready();
    assert_eq!(lines_with(&log, "cannot listen on"), 1);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

#[test]
fn without_rights_the_own_mounts_are_watched_and_the_gap_is_said() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("without_rights_the_own_mounts_are_watched_and_the_gap_is_said") else { return };
    std::fs::set_permissions(sandbox.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &["--user-id", "65534"]);
    // The binary may lie where nobody may look.
    let program = sandbox.path().join("mountwarden");
    File::create(&program).unwrap();
    mount(Some(PROGRAM), &program, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let program = program.to_str().unwrap();
    // Others' processes are invisible, PID 1 too: proc(5).
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("hidepid=2")).unwrap();
    let config = config(sandbox.path());

    let check = |form: &[&str]| {
        let mut command = Command::new(AS_NOBODY[0]);
        command.args(&AS_NOBODY[1..]).args([program, "check", "--config", &config]).args(form);
        command
    };
    let (snapshot, exit) = document_of(&mut check(&["--json"]));
    assert_eq!((mount_at(&snapshot, &dir).unwrap().state, exit), (State::Healthy, 0), "{snapshot:#?}");
    assert!(snapshot.agent.host_error.unwrap().contains("/proc/1/mountinfo"));
    let output = check(&[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/proc/1/mountinfo"), "{said}");

    let (log, file) = log_file(&sandbox);
    let mut agent = Launch::under(&AS_NOBODY, program, &["--config", &config]).log_to(file).start();
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    fs.order("hang");
    agent.eventually(&dir, INTERVAL + DEADLINE + SLACK, |mount| mount.state == State::Hung);
    fs.order("healthy");
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    assert_eq!(agent.terminate().0.code(), Some(0));
    assert_eq!(lines_with(&log, "only mounts of the agent's own mount namespace"), 1);
}

#[test]
fn two_agents_on_one_machine_do_not_disturb_each_other() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("two_agents_on_one_machine_do_not_disturb_each_other") else { return };
    let (dir, dead) = (sandbox.dir("m"), sandbox.dir("dead"));
    let _live = FuseFs::mount(&dir, &[]);
    let mut stuck = FuseFs::mount(&dead, &[]);
    stuck.order("wedge");
    let config = config(sandbox.path());
    let mut agents = [Agent::start(&["--config", &config]), Agent::start(&["--config", &config])];
    for agent in &agents {
        agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
        agent.eventually(&dead, PATIENCE, |mount| mount.state == State::Hung);
    }
    let (status, took) = agents[0].terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let_pass(&agents[1], INTERVAL * 2);
    assert_eq!(mount_at(&agents[1].snapshot(), &dir).unwrap().state, State::Healthy);
    assert_eq!(agents[1].terminate().0.code(), Some(0));
}

#[test]
fn sigterm_during_the_first_pass_ends_the_agent_within_a_second() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("sigterm_during_the_first_pass_ends_the_agent_within_a_second") else { return };
    let mut dead = FuseFs::mount_many(&sandbox.dir("dead"), 10, &[]);
    dead.order("wedge");
    let mut agent = Launch::new(&["--timeout", "60s", "--interval", "120s"]).spawn();
    dead.wait_until_held(10);
    assert_eq!(agent.get("/readyz").unwrap().status, 503);
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(dead);
    eventually("no worker is left", PATIENCE, || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn sighup_takes_a_good_configuration_over_and_keeps_the_old_one_instead_of_a_bad_one() {
    let _alone = alone();
    let test = "sighup_takes_a_good_configuration_over_and_keeps_the_old_one_instead_of_a_bad_one";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let dir = sandbox.dir("m");
    let _fs = FuseFs::mount(&dir, &[]);
    let path = sandbox.path().join("config.yaml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("interval: 1h\nbackoff_max: 1h\ntimeout: 500ms\nslow: 400ms\n");
    let (log, file) = log_file(&sandbox);
    let mut agent = Launch::new(&["--config", path.to_str().unwrap()]).log_to(file).start();
    let probes = |agent: &Agent| -> u64 { mount_at(&agent.snapshot(), &dir).unwrap().probes.values().sum() };
    let first = probes(&agent);
    let reload = |text: &str, ok: f64, interval: f64| {
        write(text);
        agent.signal(Signal::SIGHUP);
        eventually("the metrics show the re-read", PATIENCE, || {
            (agent.metric("mountwarden_config_ok") == ok).then_some(())
        });
        eventually("the interval in force is shown", PATIENCE, || {
            (agent.metric("mountwarden_probe_interval_seconds") == interval).then_some(())
        });
    };
    let good = "interval: 1s\ntimeout: 500ms\nslow: 400ms\n";
    reload(good, 1.0, 1.0);
    eventually("the mount is probed at the new pace", INTERVAL * 4 + SLACK, || {
        (probes(&agent) >= first + 3).then_some(())
    });
    reload("intervall: 3s\n", 0.0, 1.0);
    let before = probes(&agent);
    eventually("the old pace is kept", INTERVAL * 3 + SLACK, || (probes(&agent) >= before + 2).then_some(()));
    assert_eq!(lines_with(&log, "the old one stays in force"), 1);
    reload(&good.replace("1s", "2s"), 1.0, 2.0);
    assert_eq!(agent.metric("mountwarden_config_reloads_total"), 3.0);
    assert_eq!(mount_at(&agent.snapshot(), &dir).unwrap().state, State::Healthy);
    // What takes a restart is not among the changes.
    assert_eq!(lines_with(&log, "takes a restart"), 0);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

/// CLOCK_REALTIME has no namespace, so no test can make it jump for one process. What can be shown is that no verdict
/// depends on it: the rooms that measure, schedule and judge know no wall clock, and the lints keep it from coming in.
#[test]
fn what_measures_schedules_and_judges_knows_no_wall_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut unread: Vec<_> = ["mounts", "probe", "server", "verdict"].map(|room| source.join(room)).to_vec();
    unread.extend(unread.clone().iter().map(|room| room.with_extension("rs")));
    let mut files = 0;
    while let Some(path) = unread.pop() {
        if path.is_dir() {
            unread.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // Tests date the files that they make.
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["SystemTime", "UnixSeconds", "unix_now", "REALTIME", "UNIX_EPOCH"] {
            assert!(!text.contains(word), "{word} in {}", path.display());
        }
        files += 1;
    }
    assert!(files > 20, "{files} files");
    let lints = std::fs::read_to_string(source.with_file_name("clippy.toml")).unwrap();
    assert!(lints.contains("std::time::SystemTime::now"));
}

/// A mount table without the kernel behind it, for `--proc-root`.
fn fake_proc(sandbox: &Sandbox, table: &[u8]) -> String {
    let root = sandbox.path().join("proc");
    for process in ["self", "1"] {
        std::fs::create_dir_all(root.join(process)).unwrap();
        std::fs::write(root.join(process).join("mountinfo"), table).unwrap();
    }
    root.to_str().unwrap().to_owned()
}

/// `count` local mounts, the first `network` of them (after the root) NFS mounts that do not exist here, and garbage.
fn table(count: usize, network: usize, garbage: usize) -> Vec<u8> {
    let mut table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_vec();
    for number in 0..count {
        let line = if number < network {
            let server = format!("127.0.{}.{}", number / 200, number % 200 + 1);
            format!("{} 1 0:{number} / /nowhere/{number} rw - nfs4 {server}:/ rw,vers=4.1,hard\n", number + 2)
        } else {
            format!(
                "{} 1 0:{number} / /nowhere/run-{number} rw shared:{number} - tmpfs tmpfs rw,size=64k\n",
                number + 2
            )
        };
        table.extend_from_slice(line.as_bytes());
    }
    for number in 0..garbage {
        table.extend_from_slice(format!("garbage \u{fffd} {number}\n").as_bytes());
    }
    table
}

#[test]
fn fifty_thousand_mounts_are_read_in_time_and_in_little_memory() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("fifty_thousand_mounts_are_read_in_time_and_in_little_memory") else { return };
    let proc_root = fake_proc(&sandbox, &table(50_000, 200, 7));
    let config = config(sandbox.path());
    let mut agent = Launch::new(&["--config", &config, "--proc-root", &proc_root]).start();
    let started = Instant::now();
    assert_eq!(agent.get("/healthz").unwrap().status, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "/healthz took {:?}", started.elapsed());
    // Both files hold them; one namespace is one table.
    assert_eq!(
        agent.metric("mountwarden_mountinfo_errors_total"),
        7.0 * agent.metric("mountwarden_mountinfo_reads_total")
    );
    assert_eq!(agent.metric("mountwarden_mountinfo_mounts"), 50_001.0);
    let snapshot = agent.snapshot();
    assert_eq!(snapshot.mounts.len(), 200);
    assert!(snapshot.mounts.iter().all(|mount| mount.state == State::Unknown), "what is not there is no alarm");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let resident: u64 = resident.unwrap().trim().parse().unwrap();
    assert!(resident < 128 << 10, "{resident} kB");
    assert_eq!(agent.terminate().0.code(), Some(0));
}

#[test]
fn few_descriptors_mean_fewer_workers_and_no_alarm() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("few_descriptors_mean_fewer_workers_and_no_alarm") else { return };
    let live = FuseFs::mount_many(&sandbox.dir("live"), 20, &["--source", "live"]);
    let mut dead = FuseFs::mount_many(&sandbox.dir("dead"), 40, &["--source", "dead"]);
    let (log, file) = log_file(&sandbox);
    let flags = ["--config", &config(sandbox.path())];
    let mut agent = Launch::under(&["prlimit", "--nofile=64:64"], PROGRAM, &flags).log_to(file).start();
    for dir in live.mounts() {
        agent.eventually(dir, PATIENCE, |mount| mount.state == State::Healthy);
    }
    dead.order("hang");
    for dir in dead.mounts() {
        agent.eventually(dir, PATIENCE, |mount| mount.state == State::Hung);
    }
    let end = agent.snapshot().generated + 5.0;
    eventually("five seconds are over", PATIENCE, || {
        let snapshot = agent.snapshot();
        for dir in live.mounts() {
            let mount = mount_at(&snapshot, dir).unwrap();
            assert_eq!(mount.state, State::Healthy, "{mount:#?}");
        }
        agent.scrape();
        (snapshot.generated > end).then_some(())
    });
    let stats = agent.snapshot().agent;
    assert_eq!((stats.worker_spawn_errors_total, stats.http_refused_total), (0, 0));
    assert_eq!(lines_with(&log, "the limit on open files is low"), 1);
    // A re-read that changes nothing says nothing of workers.
    agent.signal(Signal::SIGHUP);
    eventually("the re-read is done", PATIENCE, || {
        (lines_with(&log, "the configuration was read again") == 1).then_some(())
    });
    assert_eq!(lines_with(&log, "takes a restart"), 0);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

#[test]
fn a_full_disk_under_the_log_costs_only_the_lines() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_full_disk_under_the_log_costs_only_the_lines") else { return };
    let dir = sandbox.dir("m");
    let _fs = FuseFs::mount(&dir, &[]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut agent = Launch::new(&["--config", &config(sandbox.path())]).log_to(full).start();
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    eventually("the loss is counted", PATIENCE, || (agent.metric("mountwarden_log_dropped_total") > 0.0).then_some(()));
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn an_output_that_nobody_reads_costs_only_the_lines() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("an_output_that_nobody_reads_costs_only_the_lines") else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    // Each of these mounts is worth a line, and all at once are more than may wait.
    let proc_root = fake_proc(&sandbox, &table(4_300, 4_300, 0));
    let flags = ["--config", &config(sandbox.path()), "--proc-root", &proc_root, "--log-level", "trace"];
    let mut agent = Launch::new(&flags).log_to(writer).spawn();
    let published = || agent.get("/metrics").is_ok_and(|response| response.status == 200);
    eventually("the loss is counted", PATIENCE * 2, || {
        (published() && agent.metric("mountwarden_log_dropped_total") > 0.0).then_some(())
    });
    assert_eq!(agent.get("/healthz").unwrap().status, 200);
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(reader);
}
