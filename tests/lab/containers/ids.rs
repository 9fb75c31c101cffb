//! Two containers on one directory whose entries only one of them may read: who is named in `unreadable_entries`, and that
//! nobody is once the other was started anew with the right ids.

use std::process::Child;

use anyhow::{Result, ensure};
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::Finding;

use super::{Copy, Pod, Volume, show, until};
use crate::guest::shell;
use crate::story::apiserver::ApiServer;
use crate::surface;

const VOLUME: Volume = Volume { name: "pv-ids", claim: "ids", directory: "/ids" };

/// Whose entries they are, and somebody else.
const OWNER: u32 = 2000;
const STRANGER: u32 = 1000;

const STRANGE: Pod = reader("reader-0", "0b2e7d6c-9f0c-4c29-8a40-000000000004", STRANGER);
const RIGHT: Pod = reader("reader-1", "0b2e7d6c-9f0c-4c29-8a40-000000000005", OWNER);

const fn reader(name: &'static str, uid: &'static str, user: u32) -> Pod {
    Pod { name, uid, volume: VOLUME, copy: Copy::Private, sub_path: None, user: Some(user) }
}

/// Before the agent starts.
pub(super) fn start(api: &ApiServer) -> Result<[Child; 2]> {
    let entries = format!(
        "mkdir -p $EXP/ids/{{a,b}} && touch $EXP/ids/{{c,d,e,f}} && chown {OWNER}:{OWNER} $EXP/ids/* && \
         chmod 700 $EXP/ids/{{a,b}} && chmod 600 $EXP/ids/{{c,d,e,f}}"
    );
    ensure!(shell(&entries)?.wait()?.success(), "cannot make the entries");
    VOLUME.put(api);
    STRANGE.mount_volume()?;
    RIGHT.mount_volume()?;
    Ok([STRANGE.start(api, true)?, RIGHT.start(api, true)?])
}

/// Ends with neither of them, and without their volumes.
pub(super) fn follow(api: &ApiServer, [strange, right]: &mut [Child; 2]) -> Result<()> {
    let both = |snapshot: &Snapshot| snapshot.mounts.iter().any(|mount| STRANGE.uses(mount) && RIGHT.uses(mount));
    until("both readers are named on one mount", both)?;
    until("whose ids let nobody in is named", |snapshot| {
        closed(snapshot).is_some_and(|words| words.starts_with("shop/reader-0 (app) cannot pass 6 of 6 entries"))
    })?;
    println!("== a container that may read nothing of what lies there");
    show("status", &["status"])?;
    let found = surface::snapshot().as_ref().and_then(closed).unwrap_or_default();
    ensure!(!found.contains(RIGHT.name), "one that may read is named: {found}");

    let mended = Pod { user: Some(OWNER), ..STRANGE };
    mended.restart(strange, api, true)?;
    until("nobody is named any more", |snapshot| both(snapshot) && closed(snapshot).is_none())?;
    println!("== with other ids it may, and is not named");

    for (pod, child) in [(&STRANGE, strange), (&RIGHT, right)] {
        child.kill()?;
        child.wait()?;
        api.remove("pods", super::NAMESPACE, pod.name);
        ensure!(shell(&format!("umount -l {}", pod.volume().display()))?.wait()?.success(), "cannot unmount");
    }
    until("their mounts are gone", |snapshot| !snapshot.mounts.iter().any(|mount| mount.source.ends_with("/ids")))
}

/// What the finding says.
fn closed(snapshot: &Snapshot) -> Option<String> {
    let mut mounts = snapshot.mounts.iter();
    let mount = mounts.find(|mount| mount.findings.contains(&Finding::UnreadableEntries))?;
    Some(mount.finding_words(Finding::UnreadableEntries).to_owned())
}
