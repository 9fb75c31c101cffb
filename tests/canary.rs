//! Whole canaries on a real filesystem, in a mount namespace of the test, by the real agent. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod canary;
    pub mod sandbox;
    pub mod wait;
}

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use common::agent::Agent;
use common::canary::{DATA, Volume, canary, config, ended, is, start};
use common::sandbox::Sandbox;
use common::wait::{PATIENCE, eventually};
use mountwarden::canary::DIRECTORY;
use mountwarden::snapshot::MountStatus;
use mountwarden::verdict::{Cause, Finding, State};

#[test]
fn a_canary_is_one_small_file_that_is_written_again_and_again() {
    let Some(sandbox) = Sandbox::enter("a_canary_is_one_small_file_that_is_written_again_and_again") else { return };
    let volume = Volume::with_data(&sandbox);
    let agent = start(&sandbox, "");
    let first = agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    assert_eq!((first.state, canary(&first).steps.len() > 5), (State::Healthy, true));
    let sequence = canary(&first).sequence;
    agent.eventually(&volume.directory, PATIENCE, |mount| canary(mount).sequence >= sequence + 2);
    volume.assert_clean();
    assert_eq!(volume.files().len(), 1);
    let (metrics, _) = agent.scrape();
    for series in ["canary_results_total{", "canary_last_duration_seconds{", "canary_peers{", "canary_isolated"] {
        assert!(metrics.contains(&format!("mountwarden_{series}")), "{series}");
    }
}

#[test]
fn nothing_is_written_where_nobody_asked_for_it_or_nothing_else_is() {
    let Some(sandbox) = Sandbox::enter("nothing_is_written_where_nobody_asked_for_it") else { return };
    let volume = Volume::mount(&sandbox, "size=1m");
    let agent = start(&sandbox, "");
    let skipped = agent.eventually(&volume.directory, PATIENCE, ended("skipped"));
    assert!(canary(&skipped).detail.contains("empty"), "{:?}", skipped.canary);
    assert_eq!((skipped.state, std::fs::read_dir(&volume.directory).unwrap().count()), (State::Healthy, 0));
    std::fs::write(volume.directory.join("data"), DATA).unwrap();
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    std::fs::remove_file(volume.directory.join("data")).unwrap();
    agent.eventually(&volume.directory, PATIENCE, ended("skipped"));
    assert_eq!(std::fs::read_dir(&volume.directory).unwrap().count(), 0, "it takes its own file away");
    drop(agent);
    std::fs::write(volume.directory.join("data"), DATA).unwrap();
    let elsewhere = sandbox.path().join("config.yaml");
    std::fs::write(
        &elsewhere,
        std::fs::read_to_string(&elsewhere)
            .unwrap()
            .replace("canary: {mounts: [", "canary: {mounts: [\"/elsewhere\"], reader: \"\", identity: \"\"}\n#"),
    )
    .unwrap();
    let agent = Agent::start(&["--config", elsewhere.to_str().unwrap()]);
    let probed =
        agent.eventually(&volume.directory, PATIENCE, |mount| mount.probes.get("ok").is_some_and(|ok| *ok >= 3));
    assert_eq!((probed.canary, volume.ours().exists()), (None, false));
}

#[test]
fn an_empty_root_is_written_to_where_that_is_allowed() {
    let Some(sandbox) = Sandbox::enter("an_empty_root_is_written_to_where_that_is_allowed") else { return };
    let volume = Volume::mount(&sandbox, "size=1m");
    let agent = start(&sandbox, ", allow_empty_root: true");
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    assert_eq!(volume.files().len(), 1);
}

/// What a hostile tenant may leave under our names, and which one of them it is that is checked afterwards.
type Trap = fn(&Path, &Path);

#[test]
fn what_is_not_ours_is_not_touched() {
    let Some(sandbox) = Sandbox::enter("what_is_not_ours_is_not_touched") else { return };
    let volume = Volume::with_data(&sandbox);
    let victim = sandbox.path().join("victim");
    std::fs::write(&victim, DATA).unwrap();
    let agent = start(&sandbox, ", identity: \"uid=1000\"");
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    let file = volume.files().remove(0);
    let traps: [(&str, Trap); 7] = [
        ("a symlink", |file, victim| symlink(victim, file).unwrap()),
        ("a FIFO", |file, _| nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("1 TiB", |file, _| std::fs::File::create(file).unwrap().set_len(1 << 40).unwrap()),
        ("a hard link", |file, _| {
            std::fs::hard_link(file.parent().unwrap().parent().unwrap().join("data"), file).unwrap()
        }),
        ("another user's", |file, _| {
            std::fs::write(file, "mine").unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("other contents", |file, _| {
            std::fs::write(file, DATA).unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("a directory", |file, _| std::fs::create_dir(file).unwrap()),
    ];
    for (name, trap) in traps {
        // In one step, or the agent makes the file anew in between.
        let aside = sandbox.path().join("aside");
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(volume.ours(), volume.directory.join("aside")).unwrap();
        let _ = std::fs::remove_dir_all(volume.directory.join("aside"));
        eventually("the agent's directory can be taken", PATIENCE, || std::fs::create_dir(volume.ours()).ok());
        trap(&file, &victim);
        let seen = agent.eventually(&volume.directory, PATIENCE, ended("refused"));
        assert!(seen.findings.contains(&Finding::CanaryRefused), "{name}: {seen:?}");
        assert_eq!(seen.state, State::Healthy, "{name}");
        std::fs::remove_dir_all(volume.ours()).unwrap();
        let good = agent.eventually(&volume.directory, PATIENCE, ended("ok"));
        assert!(!good.findings.contains(&Finding::CanaryRefused), "{name}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), DATA, "{name}");
        volume.assert_clean();
    }
}

#[test]
fn a_directory_of_ours_that_is_a_symlink_is_not_followed() {
    let Some(sandbox) = Sandbox::enter("a_directory_of_ours_that_is_a_symlink_is_not_followed") else { return };
    let volume = Volume::with_data(&sandbox);
    let outside = sandbox.dir("outside");
    symlink(&outside, volume.ours()).unwrap();
    let agent = start(&sandbox, "");
    let seen = agent.eventually(&volume.directory, PATIENCE, ended("refused"));
    assert!(canary(&seen).detail.contains(DIRECTORY), "{:?}", seen.canary);
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn a_user_who_may_not_enter_is_denied_and_the_right_one_is_not() {
    let Some(sandbox) = Sandbox::enter("a_user_who_may_not_enter_is_denied_and_the_right_one_is_not") else { return };
    let volume = Volume::with_data(&sandbox);
    chown(&volume.directory, Some(2000), Some(2000)).unwrap();
    std::fs::set_permissions(&volume.directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    let agent = start(&sandbox, ", identity: \"uid=1000\"");
    agent.eventually(&volume.directory, PATIENCE, is(State::Denied, Some(Cause::Permission)));
    drop(agent);
    let agent = start(&sandbox, ", identity: \"uid=2000\"");
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    assert_eq!(std::fs::metadata(volume.ours()).unwrap().uid(), 2000);
}

/// A canary as root that was killed leaves it so. The volume itself refuses nobody.
#[test]
fn a_directory_that_another_user_left_is_no_fault_of_the_mount() {
    let Some(sandbox) = Sandbox::enter("a_directory_that_another_user_left_is_no_fault_of_the_mount") else { return };
    let volume = Volume::with_data(&sandbox);
    std::fs::set_permissions(&volume.directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::create_dir(volume.ours()).unwrap();
    let agent = start(&sandbox, ", identity: \"uid=1000\"");
    let seen = agent.eventually(&volume.directory, PATIENCE, ended("refused"));
    assert!(seen.state == State::Healthy && seen.findings.contains(&Finding::CanaryRefused), "{seen:?}");
    std::fs::remove_dir(volume.ours()).unwrap();
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    std::fs::remove_dir_all(volume.ours()).unwrap();
    std::fs::create_dir(volume.ours()).unwrap();
    std::fs::set_permissions(&volume.directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    agent.eventually(&volume.directory, PATIENCE, is(State::Denied, Some(Cause::Permission)));
}

#[test]
fn what_one_writes_another_has_to_read() {
    let Some(sandbox) = Sandbox::enter("what_one_writes_another_has_to_read") else { return };
    let volume = Volume::with_data(&sandbox);
    std::fs::set_permissions(volume.directory.join("data"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let agent = start(&sandbox, ", identity: \"uid=1000 umask=077\", reader: \"uid=2000\"");
    let seen = agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    assert!(seen.findings.contains(&Finding::UnreadableByB) && seen.state == State::Healthy, "{seen:?}");
    assert!(seen.findings.contains(&Finding::UnreadableEntries), "data is root's alone: {seen:?}");
    drop(agent);
    std::fs::remove_dir_all(volume.ours()).unwrap();
    std::fs::set_permissions(volume.directory.join("data"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let agent = start(&sandbox, ", identity: \"uid=1000 groups=3000 umask=027\", reader: \"uid=2000 groups=1000\"");
    let seen = agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    assert!(seen.findings.is_empty(), "the group may read: {seen:?}");
}

#[test]
fn a_disk_that_fills_up_is_full_although_the_record_has_its_block() {
    let Some(sandbox) = Sandbox::enter("a_disk_that_fills_up_is_full_although_the_record_has_its_block") else {
        return;
    };
    let volume = Volume::with_data(&sandbox);
    // Without the totals: what the canary itself shows.
    let config = config(&sandbox, "");
    let agent = Agent::start(&["--config", &config, "--without-detector", "space"]);
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    let filler = volume.directory.join("filler");
    let refused = std::fs::write(&filler, vec![1; 2 << 20]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
    let full = agent.eventually(&volume.directory, PATIENCE, is(State::Full, Some(Cause::OutOfSpace)));
    assert!(full.evidence.contains("ENOSPC"), "{}", full.evidence);
    std::fs::remove_file(&filler).unwrap();
    agent.eventually(&volume.directory, PATIENCE, is(State::Healthy, None));
    volume.assert_clean();
}

#[test]
fn a_directory_that_is_removed_under_the_canary_comes_back_without_an_alarm() {
    let Some(sandbox) = Sandbox::enter("a_directory_that_is_removed_under_the_canary") else { return };
    let volume = Volume::with_data(&sandbox);
    let agent = start(&sandbox, "");
    let before = canary(&agent.eventually(&volume.directory, PATIENCE, ended("ok"))).sequence;
    for _ in 0..3 {
        std::fs::remove_dir_all(volume.ours()).unwrap();
        eventually("it is written anew", PATIENCE, || (volume.files().len() == 1).then_some(()));
    }
    let after = agent.eventually(&volume.directory, PATIENCE, |mount| canary(mount).sequence > before + 2);
    assert_eq!((after.state, after.transitions.len()), (State::Healthy, 1), "{:?}", after.transitions);
}

#[test]
fn two_nodes_see_each_other_and_one_that_ends_falls_silent() {
    let Some(sandbox) = Sandbox::enter("two_nodes_see_each_other_and_one_that_ends_falls_silent") else { return };
    let volume = Volume::with_data(&sandbox);
    let config = config(&sandbox, "");
    let node = |name| Agent::start(&["--config", &config, "--node-name", name]);
    let (one, other) = (node("one"), node("other"));
    let fresh = |name: &'static str| {
        move |mount: &MountStatus| canary(mount).peers.iter().any(|peer| peer.node == name && peer.state == "fresh")
    };
    one.eventually(&volume.directory, PATIENCE, fresh("other"));
    other.eventually(&volume.directory, PATIENCE, fresh("one"));
    drop(other);
    // Twice what it promised, and ten seconds.
    let limit = Duration::from_secs(2 * 2 + 10) + PATIENCE;
    let silent = one.eventually(&volume.directory, limit, |mount| mount.findings.contains(&Finding::PeerSilent));
    assert_eq!(silent.state, State::Healthy, "a finding is no state");
    let lag = one
        .scrape()
        .0
        .lines()
        .filter(|line| line.contains("canary_peer_lag") && line.contains("peer=\"other\""))
        .count();
    assert_eq!(lag, 1);
    let other = node("other");
    one.eventually(&volume.directory, PATIENCE, |mount| !mount.findings.contains(&Finding::PeerSilent));
    drop(other);
}

/// What `diagnose --write` prints, and its exit code.
fn diagnose(volume: &Volume, config: &str, write: &str) -> (serde_json::Value, i32) {
    let mut command = std::process::Command::new(common::agent::PROGRAM);
    command.args(["diagnose", "--json", "--config", config, write]).arg(&volume.directory);
    let output = command.output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")), output.status.code().unwrap())
}

/// The outcome and the answer of its step `write`.
fn written(document: &serde_json::Value) -> (&str, &str) {
    let steps = document["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["step"] == "write").unwrap();
    (step["outcome"].as_str().unwrap(), step["answer"].as_str().unwrap())
}

#[test]
fn a_write_that_a_person_asks_for_leaves_what_it_found() {
    let Some(sandbox) = Sandbox::enter("a_write_that_a_person_asks_for_leaves_what_it_found") else { return };
    let volume = Volume::with_data(&sandbox);
    let config = config(&sandbox, "");
    let (well, code) = diagnose(&volume, &config, "--write");
    assert_eq!((written(&well).0, code), ("ok", 0), "{well}");
    assert!(well["summary"].as_str().unwrap().contains("was read back"), "{well}");
    assert!(!volume.ours().exists(), "what was not there before is gone again");
    let (refused, code) = diagnose(&volume, &config, "--write=uid=1000");
    assert_eq!((written(&refused).0, code), ("ok", 0), "anybody may write there: {refused}");
    std::fs::set_permissions(&volume.directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (refused, code) = diagnose(&volume, &config, "--write=uid=1000");
    assert_eq!((written(&refused).0, code, &refused["state"]), ("failed", 1, &"denied".into()), "{refused}");
    assert!(written(&refused).1.contains("EACCES"), "{refused}");

    // The record of an agent that writes there, too, stays.
    let agent = Agent::start(&["--config", &config]);
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    drop(agent);
    let before = volume.files();
    let (well, code) = diagnose(&volume, &config, "--write");
    assert_eq!((written(&well).0, code, volume.files()), ("ok", 0, before), "{well}");
    volume.assert_clean();

    std::fs::remove_dir_all(volume.ours()).unwrap();
    std::fs::remove_file(volume.directory.join("data")).unwrap();
    let (empty, _) = diagnose(&volume, &config, "--write");
    assert_eq!(written(&empty).0, "skipped", "whoever keeps it empty wants it empty: {empty}");
    assert!(!volume.ours().exists());
}
