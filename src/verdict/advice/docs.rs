//! `docs/states.md`, made from the states, the causes and their advice.

use std::fmt::Write as _;

use super::{AdviceFacts, advice};
use crate::verdict::{Cause, Severity, State};

const HEAD: &str = "# States, causes, advice

This page is generated; a test compares it with the program. Every target is in exactly one state, and every state but
`healthy` has a cause. The commands stand for a mount of `srv:/export` on `/mnt/data`. They are safe while the mount is
dead; `ls`, `df` and a plain `umount` are not: they wait for the server.
";

/// What the examples of the page are about.
const EXAMPLE: AdviceFacts<'static> = AdviceFacts {
    mountpoint: "/mnt/data",
    server: Some("srv"),
    export: Some("/export"),
    port: Some(2049),
    fstype: "nfs4",
};

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write_page(&mut page);
    page
}

fn write_page(page: &mut String) -> std::fmt::Result {
    page.push_str(
        "\n## States\n\n| state | class | `mount_up` | means | advice without a known cause |\n|---|---|---|---|---|\n",
    );
    for state in State::ALL {
        let (class, up) = class(state);
        let words = advice(state, Cause::Unknown, &EXAMPLE);
        writeln!(page, "| `{state}` | {class} | {up} | {} | {} |", state_meaning(state), cell(&words))?;
    }
    page.push_str("\n## Causes\n\n| cause | means | seen with | advice |\n|---|---|---|---|\n");
    for cause in Cause::ALL.iter().copied().filter(|cause| *cause != Cause::Unknown) {
        let (meaning, states) = cause_meaning(cause);
        let seen: Vec<String> = states.iter().map(|state| format!("`{state}`")).collect();
        let words: Vec<String> = distinct(states.iter().map(|state| advice(*state, cause, &EXAMPLE)));
        writeln!(page, "| `{cause}` | {meaning} | {} | {} |", seen.join(", "), cell(&words.join("<br>")))?;
    }
    Ok(())
}

fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
}

/// A pipe would end the cell, in code too.
fn cell(words: &str) -> String {
    words.replace('|', "\\|")
}

fn class(state: State) -> (&'static str, &'static str) {
    match state.severity() {
        Severity::Healthy => ("healthy", "1"),
        Severity::Degraded => ("degraded", "1"),
        Severity::Dead => ("dead", "0"),
        Severity::Unknown => ("unknown", "absent"),
    }
}

fn state_meaning(state: State) -> &'static str {
    match state {
        State::Healthy => "every enabled step answered in time",
        State::Slow => "answers, but over the slow threshold in most recent probes",
        State::Hung => "does not answer: a step passed its deadline, or a soft mount gave up",
        State::Stale => "the server answers, but the mount's root is no longer valid or no longer exported",
        State::Lost => "what a user expects under the path is no longer there",
        State::Readonly => "wants to write, cannot: the filesystem is read-only",
        State::Denied => "wants to write, may not",
        State::Full => "no blocks, no inodes or no quota left",
        State::Corrupt => "what was written is read back differently",
        State::Error => "fails with another error, which is named",
        State::Unknown => "not probed yet, or could not be probed",
    }
}

/// What a cause says, and the states it usually comes with.
fn cause_meaning(cause: Cause) -> (&'static str, &'static [State]) {
    use State::{Corrupt, Denied, Error, Full, Hung, Lost, Readonly, Stale, Unknown};
    match cause {
        Cause::ServerUnreachable => ("no TCP connection to the server: silence or no route", &[Hung]),
        Cause::ServerRefused => ("the server's machine answers that nothing listens", &[Hung]),
        Cause::ServerUnresponsive => ("TCP answers, calls do not", &[Hung]),
        Cause::ServerRecovering => ("the server is in its grace period after a restart", &[Hung]),
        Cause::DnsFailed => ("the server's name does not resolve", &[Hung]),
        Cause::AddressChanged => ("the name points elsewhere now, the mount still talks to the old address", &[Hung]),
        Cause::ExportGone => ("the server no longer exports it to this client", &[Stale]),
        Cause::HandleInvalid => ("the root's file handle is no longer valid on the server", &[Stale]),
        Cause::FilesystemReplaced => ("another filesystem answers behind the same handle", &[Lost, Stale]),
        Cause::ClientStuck => ("this mount hangs while the server answers for the very same handle", &[Hung]),
        Cause::ProxyDead => ("the local TLS proxy of an EFS mount is gone", &[Hung]),
        Cause::DaemonDead => ("the FUSE daemon is gone", &[Lost]),
        Cause::DaemonStuck => ("the FUSE daemon runs but does not answer", &[Hung]),
        Cause::UnmountedOnHost => ("the host unmounted what a container still expects", &[Lost]),
        Cause::RemountedOnHost => ("the host mounted anew, a container still has the old mount", &[Lost]),
        Cause::MountMissing => ("a container lacks a mount that its specification has", &[Lost]),
        Cause::Permission => ("owner and mode refuse the identity, or the agent may not look", &[Denied, Unknown]),
        Cause::RootSquashed => ("the server maps root to nobody", &[Denied]),
        Cause::Quota => ("over quota", &[Full]),
        Cause::OutOfSpace => ("no free blocks", &[Full]),
        Cause::OutOfInodes => ("no free inodes", &[Full]),
        Cause::MountedReadonly => ("this node mounted it read-only", &[Readonly]),
        Cause::ExportReadonly => ("the server exports it read-only", &[Readonly]),
        Cause::IoError => ("input/output error while the server is fine", &[Error]),
        Cause::DeviceLost => ("the block device is gone", &[Error]),
        Cause::DataMismatch => ("what was written is read back differently", &[Corrupt]),
        Cause::AgentOverloaded => ("the agent itself was too late to tell", &[Unknown]),
        Cause::WorkerCap => ("no worker was free: too many are blocked", &[Unknown]),
        Cause::Unknown => ("nothing proves a cause", &[Unknown]),
    }
}
