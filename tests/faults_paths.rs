//! `check PATH` and the mount table's odd corners: which target a path belongs to, and what is said of those that have no
//! path of their own.
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

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use common::agent::{Agent, PROGRAM, document_of, mount_at};
use common::fusefs::FuseFs;
use common::process::{children_of, wchan_of};
use common::sandbox::Sandbox;
use common::timed::{DEADLINE, INTERVAL, SLACK, alone, config, patient_config};
use common::wait::{PATIENCE, eventually};
use mountwarden::mounts::octal;
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::{Finding, State};
use nix::mount::{MsFlags, mount};

/// `check --json` of these paths, started in `cwd`.
fn check_in(sandbox: &Sandbox, cwd: &Path, paths: &[&OsStr]) -> (Snapshot, i32) {
    let config = patient_config(sandbox.path());
    document_of(Command::new(PROGRAM).args(["check", "--json", "--config", &config]).args(paths).current_dir(cwd))
}

fn paths_of(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.mounts.iter().flat_map(|mount| &mount.paths).map(String::as_str).collect()
}

#[test]
fn a_path_is_checked_on_the_mount_that_holds_it() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_path_is_checked_on_the_mount_that_holds_it") else { return };
    let (dir, other) = (sandbox.dir("m"), sandbox.dir("other"));
    let _fs = FuseFs::mount(&dir, &[]);
    let mut dead = FuseFs::mount(&other, &[]);
    dead.order("hang");
    let inside = dir.join("deep/er/file");
    let beside = sandbox.path().join("m2");
    let below = sandbox.path();
    let whole = dir.to_str().unwrap();
    for (path, cwd, found, code) in [
        (dir.as_os_str(), "/", vec![whole], 0),
        (inside.as_os_str(), "/", vec![whole], 0),
        (OsStr::new("m"), below.to_str().unwrap(), vec![whole], 0),
        (OsStr::new("./x/../m//file"), below.to_str().unwrap(), vec![whole], 0),
        (OsStr::new("."), whole, vec![whole], 0),
        (OsStr::new("/"), "/", vec![], 3),
        (beside.as_os_str(), "/", vec![], 3),
        (OsStr::new("../other"), whole, vec![other.to_str().unwrap()], 2),
    ] {
        let (snapshot, exit) = check_in(&sandbox, Path::new(cwd), &[path]);
        assert_eq!((paths_of(&snapshot), exit), (found, code), "{path:?} in {cwd}: {snapshot:#?}");
    }
    // One healthy, one on nothing that is watched: "could not tell" wins over "all healthy".
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[dir.as_os_str(), OsStr::new("/")]);
    assert_eq!((paths_of(&snapshot), exit), (vec![whole], 3));
}

#[test]
fn names_of_any_bytes_are_probed_and_shown_on_one_line() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("names_of_any_bytes_are_probed_and_shown_on_one_line") else { return };
    let names: [&[u8]; 5] =
        [b"with space", b"new\nline\ttab", b"not\xff\xfeutf8", b"back\\040slash", "r\u{202e}tl \u{e9}".as_bytes()];
    let dirs: Vec<_> = names.iter().map(|name| sandbox.path().join(OsString::from_vec(name.to_vec()))).collect();
    let mut mounted = Vec::new();
    for dir in &dirs {
        std::fs::create_dir(dir).unwrap();
        mounted.push(FuseFs::mount(dir, &[]));
    }
    for dir in &dirs {
        let label = octal::label(dir.as_os_str());
        assert!(!label.contains('\n'));
        let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[dir.join("file").as_os_str()]);
        assert_eq!((paths_of(&snapshot), exit), (vec![label.as_str()], 0), "{dir:?}: {snapshot:#?}");
    }
    let agent = Agent::start(&["--config", &config(sandbox.path())]);
    for dir in &dirs {
        let label = octal::label(dir.as_os_str());
        agent.eventually(Path::new(&label), PATIENCE, |mount| mount.state == State::Healthy);
    }
    let (metrics, _) = agent.scrape();
    let up = metrics.lines().filter(|line| line.starts_with("mountwarden_mount_up{") && line.ends_with(" 1"));
    assert_eq!(up.count(), dirs.len());
    mounted[2].order("hang");
    let label = octal::label(dirs[2].as_os_str());
    agent.eventually(Path::new(&label), INTERVAL + DEADLINE + SLACK, |mount| mount.state == State::Hung);
}

#[test]
fn a_mount_under_another_one_says_so_and_is_no_alarm() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_mount_under_another_one_says_so_and_is_no_alarm") else { return };
    let dir = sandbox.dir("m");
    let mut below = FuseFs::mount(&dir, &["--source", "below"]);
    let _above = FuseFs::mount(&dir, &["--source", "above"]);
    below.order("hang");
    // A path leads to the upper one alone.
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[dir.as_os_str()]);
    let sources: Vec<_> = snapshot.mounts.iter().map(|mount| (mount.source.as_str(), mount.state)).collect();
    assert_eq!((sources, exit), (vec![("above", State::Healthy)], 0));

    let agent = Agent::start(&["--config", &config(sandbox.path())]);
    let of = |source: &str| agent.snapshot().mounts.into_iter().find(|mount| mount.source == source);
    let hidden = eventually("the lower one is listed", PATIENCE, || of("below"));
    assert_eq!(hidden.findings, [Finding::Hidden], "{hidden:#?}");
    assert_eq!(hidden.state, State::Unknown, "{hidden:#?}");
    eventually("the upper one is watched", PATIENCE, || of("above").filter(|mount| mount.state == State::Healthy));
    assert!(of("above").unwrap().findings.is_empty());
}

#[test]
fn two_hundred_binds_of_one_directory_are_one_target() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("two_hundred_binds_of_one_directory_are_one_target") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    for number in 1..200 {
        let bind = sandbox.dir(&format!("bind-{number}"));
        mount(Some(&dir), &bind, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[]);
    assert_eq!((snapshot.mounts.len(), snapshot.mounts[0].path_count, exit), (1, 200, 0));
    // Any of the paths is that target; the others are not probed for it.
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[sandbox.path().join("bind-77/x").as_os_str()]);
    assert_eq!((snapshot.mounts.len(), exit), (1, 0));

    let agent = Agent::start(&["--config", &config(sandbox.path())]);
    let target = || agent.snapshot().mounts.first().cloned().unwrap();
    let healthy = eventually("healthy", PATIENCE, || Some(target()).filter(|target| target.state == State::Healthy));
    assert_eq!((healthy.path_count, agent.snapshot().mounts.len()), (200, 1));
    fs.order("hang");
    eventually("hung", INTERVAL + DEADLINE + SLACK, || (target().state == State::Hung).then_some(()));
    fs.order("healthy");
    eventually("healthy again", PATIENCE, || (target().state == State::Healthy).then_some(()));
}

#[test]
fn a_mount_inside_a_dead_one_is_unknown_and_blocks_no_worker() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_mount_inside_a_dead_one_is_unknown_and_blocks_no_worker") else { return };
    let outer = sandbox.dir("outer");
    // The kernel keeps the names in the outer one, as it does on NFS: a path through it can be followed without asking.
    let mut outer_fs = FuseFs::mount(&outer, &["--cache", "3600"]);
    let inner = entry_of(&outer);
    let _inner_fs = FuseFs::mount(&inner, &[]);
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[]);
    let state = |snapshot: &Snapshot, path: &Path| mount_at(snapshot, path).map(|mount| mount.state);
    let both = |snapshot: &Snapshot| (state(snapshot, &outer), state(snapshot, &inner));
    assert_eq!((both(&snapshot), exit), ((Some(State::Healthy), Some(State::Healthy)), 0), "{snapshot:#?}");

    let agent = Agent::start(&["--config", &config(sandbox.path())]);
    let first = mount_at(&agent.snapshot(), &inner).unwrap();
    assert_eq!(first.state, State::Healthy, "known when the first pass is done: {first:#?}");
    assert_eq!(first.transitions.get("unknown"), None, "{first:#?}");
    outer_fs.order("wedge");
    agent.eventually(&outer, INTERVAL + DEADLINE + SLACK, |mount| mount.state == State::Hung);
    let status = agent.eventually(&inner, INTERVAL + DEADLINE + SLACK, |mount| mount.state == State::Unknown);
    assert!(status.evidence.contains(outer.to_str().unwrap()), "{status:#?}");
    let until = agent.snapshot().generated + 4.0 * INTERVAL.as_secs_f64();
    eventually("four intervals are over", PATIENCE, || {
        let snapshot = agent.snapshot();
        assert_eq!(both(&snapshot), (Some(State::Hung), Some(State::Unknown)));
        let workers = children_of(agent.id());
        let blocked = workers.iter().filter(|(pid, _)| wchan_of(*pid).contains("request_wait_answer")).count();
        assert!(blocked <= 1, "{blocked} workers wait for the outer mount: {workers:?}");
        (snapshot.generated > until).then_some(())
    });
    assert_eq!(mount_at(&agent.snapshot(), &inner).unwrap().transitions.get("hung"), None);

    // Asked by name: the mount on the way is what is dead, and it is named.
    let (snapshot, exit) = check_in(&sandbox, Path::new("/"), &[inner.join("file").as_os_str()]);
    assert_eq!((both(&snapshot), exit), ((Some(State::Hung), Some(State::Unknown)), 2), "{snapshot:#?}");

    outer_fs.order("healthy");
    agent.eventually(&outer, PATIENCE, |mount| mount.state == State::Healthy);
    agent.eventually(&inner, INTERVAL + SLACK, |mount| mount.state == State::Healthy);
}

/// A directory in the root of a test filesystem.
fn entry_of(dir: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut directories: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    directories.sort();
    directories.into_iter().next().expect("the test filesystem has directories")
}
