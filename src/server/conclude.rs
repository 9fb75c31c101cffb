//! What an examination proves: [`RULES`], a table to be read from top to bottom.
//!
//! A rule says of which symptom it speaks, what has to be seen, and what that proves. The first one that applies decides.
//! Where none does there is no cause: nothing is guessed. Measured on Linux's nfsd, mountd and rpcbind for every fault of
//! the lab; what other servers may do differently stands beside the rule.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Connect;
use super::dns::Resolution;
use super::examine::{Check, Examination};
use super::link::Failure;
use super::nfs::{Attributes, Status};
use super::nfs4::{Grace, Walk};
use super::proxy::ProxyProcess;
use super::rpc::Denial;
use crate::verdict::Cause;

/// `AUTH_BADCRED`: nfsd's word to a client that no export names.
const AUTH_BADCRED: u32 = 1;

/// What is the matter with the mount, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    /// There is no mount (yet): can there be one?
    NotMounted,
    /// It does not answer.
    Hung,
    /// The server refuses its root: ESTALE, or EACCES although the mount answered before.
    Refused,
    /// It answers, and all that was known of its contents is gone since the transport reconnected.
    Emptied,
}

/// What else is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What is the matter.
    pub symptom: Symptom,
    /// What hangs is the forced statx of the root, and not a canary or another entry.
    pub root_hangs: bool,
    /// Requests carry plain user ids (`sec=sys`).
    pub plain_security: bool,
    /// What the server said while all was well.
    pub baseline: Option<Baseline>,
    /// Earlier examinations of the same hang in which the server answered for this mount's own handle.
    pub answered_while_hung: u32,
}

impl Seen {
    /// Nothing but the symptom is known.
    #[must_use]
    pub fn new(symptom: Symptom) -> Seen {
        Seen { symptom, root_hangs: false, plain_security: true, baseline: None, answered_while_hung: 0 }
    }
}

/// What an examination found while all was well: to be remembered, and compared with later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The mount's root.
    pub root: Attributes,
    /// How many components below the server's root the root's filesystem begins (NFSv4): there its export is.
    pub depth: Option<usize>,
}

impl Baseline {
    /// What to remember of an examination of a healthy mount; `None` if the server did not answer for its root, or for
    /// another one than the client's.
    #[must_use]
    pub fn of(examination: &Examination) -> Option<Baseline> {
        let root = *ok_root(examination).filter(|_| root_intact(examination))?;
        let met = walk(examination).filter(|walk| walk.end().is_some_and(|end| end.fsid == root.fsid));
        // From the end back: the same number may stand further up once more.
        let depth = met.map(|walk| {
            let inside = walk.met.iter().rev().take_while(|met| met.fsid == root.fsid).count();
            walk.met.len() - inside
        });
        Some(Baseline { root, depth })
    }
}

/// What an examination comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// What is proven.
    pub cause: Option<Cause>,
    /// The sentence of the rule that proved it.
    pub why: Option<String>,
    /// What is likely and needs one more proof: a trial mount for `address_changed`, a second answer for `client_stuck`.
    pub candidates: Vec<Cause>,
}

/// A row of the table.
struct Rule {
    symptoms: &'static [Symptom],
    /// What has to be seen.
    seen: fn(&Examination, &Seen) -> bool,
    cause: Cause,
    /// Follows "because".
    why: &'static str,
}

const ANY: &[Symptom] = &[Symptom::NotMounted, Symptom::Hung, Symptom::Refused, Symptom::Emptied];
const DEAD: &[Symptom] = &[Symptom::NotMounted, Symptom::Hung];
const HUNG: &[Symptom] = &[Symptom::Hung];
const REFUSED: &[Symptom] = &[Symptom::Refused];
const EMPTIED: &[Symptom] = &[Symptom::Emptied];
const ABSENT: &[Symptom] = &[Symptom::NotMounted];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    // A local proxy stands between: what listens on the mount's port is not the server.
    Rule { symptoms: DEAD, seen: |e, _| proxied(e) && refused(e), cause: Cause::ProxyDead,
        why: "nothing listens on the port of the local proxy" },
    Rule { symptoms: DEAD, seen: |e, _| proxy_ended(e) && !speaks(e), cause: Cause::ProxyDead,
        why: "the process of the local proxy is gone" },
    Rule { symptoms: DEAD, seen: |e, _| mute(e) && behind(e, &[Connect::Timeout, Connect::Unreachable]), cause: Cause::ServerUnreachable,
        why: "the local proxy lives and the mount target behind it does not answer on TCP" },
    Rule { symptoms: DEAD, seen: |e, _| mute(e) && behind(e, &[Connect::Refused]), cause: Cause::ServerRefused,
        why: "the local proxy lives and the mount target behind it refuses connections" },

    // From here on the port is the server's own. A mount that exists needs no name: the kernel keeps to the address.
    Rule { symptoms: ABSENT, seen: |e, _| nameless(e), cause: Cause::DnsFailed,
        why: "the server's name leads to no address" },
    Rule { symptoms: DEAD, seen: |e, _| !proxied(e) && connect(e, &[Connect::Timeout, Connect::Unreachable]), cause: Cause::ServerUnreachable,
        why: "the server does not answer on TCP" },
    Rule { symptoms: DEAD, seen: |e, _| !proxied(e) && refused(e), cause: Cause::ServerRefused,
        why: "connections to the port of NFS are refused: nothing listens there, or a firewall rejects them" },
    Rule { symptoms: DEAD, seen: |e, _| !proxied(e) && mute(e), cause: Cause::ServerUnresponsive,
        why: "the server accepts connections and answers no call" },
    // A new mount does not wait for it.
    Rule { symptoms: HUNG, seen: |e, _| in_grace(e), cause: Cause::ServerRecovering,
        why: "the server says that it is in its grace period after a restart" },
    // mountd is stopped: nfsd answers NULL by itself and has to ask mountd before it touches a file.
    Rule { symptoms: HUNG, seen: |e, _| root_failed(e, Failure::is_silence), cause: Cause::ServerUnresponsive,
        why: "the server answers NULL, and no question about this mount's own root" },
    Rule { symptoms: DEAD, seen: |e, _| e.root.is_none() && failed(e.path.as_ref(), Failure::is_silence), cause: Cause::ServerUnresponsive,
        why: "the server answers NULL, and no question about the exported path" },
    Rule { symptoms: ABSENT, seen: |e, _| failed(e.mountd.as_ref().or(e.may_mount.as_ref()), Failure::is_silence), cause: Cause::ServerUnresponsive,
        why: "mountd, which an NFSv3 mount needs, accepts connections and does not answer" },
    Rule { symptoms: ABSENT, seen: |e, _| failed(e.mountd.as_ref(), is_refused), cause: Cause::ServerRefused,
        why: "mountd, which an NFSv3 mount needs, does not listen" },
    // A NULL is not enough for this one, nor is one answer: the client may be about to recover.
    Rule { symptoms: HUNG, seen: |e, s| s.root_hangs && s.answered_while_hung > 0 && root_intact(e), cause: Cause::ClientStuck,
        why: "the server answered twice for the very handle on which this mount hangs" },

    // The server refuses the root. First what it says of the handle itself.
    Rule { symptoms: REFUSED, seen: |e, _| root_is_another(e), cause: Cause::HandleInvalid,
        why: "the root's handle leads to another directory now: its inode number differs from the client's" },
    Rule { symptoms: REFUSED, seen: |e, _| ok_root(e).is_some_and(|root| root.links == Some(0)), cause: Cause::HandleInvalid,
        why: "the mounted directory was deleted on the server" },
    Rule { symptoms: &[Symptom::NotMounted, Symptom::Refused], seen: |e, s| s.plain_security && unknown_client(e), cause: Cause::ExportGone,
        why: "the server refuses our credentials altogether: no export names this client any more" },
    // Then, with NFSv3, what mountd says of the path. It refuses ordinary ports too, so that must not have been it.
    Rule { symptoms: &[Symptom::NotMounted, Symptom::Refused], seen: |e, _| !root_good(e) && mount_refused(e), cause: Cause::ExportGone,
        why: "mountd does not let this client mount the path" },
    Rule { symptoms: &[Symptom::NotMounted, Symptom::Refused], seen: |e, _| !root_good(e) && !mountable(e) && unlisted(e), cause: Cause::ExportGone,
        why: "the server's list of exports does not have the path" },
    Rule { symptoms: REFUSED, seen: |e, _| root_failed(e, is_bad_handle) && mountable(e), cause: Cause::HandleInvalid,
        why: "the export is there and the root's handle is not valid in it any more" },
    Rule { symptoms: REFUSED, seen: |e, _| root_failed(e, is_bad_handle) && failed(e.may_mount.as_ref(), is_noent), cause: Cause::HandleInvalid,
        why: "the export is there and the mounted directory is not" },
    // With NFSv4, what the way from its root meets. An export begins where the number of the filesystem changes.
    Rule { symptoms: &[Symptom::NotMounted, Symptom::Refused], seen: |e, _| failed(e.path.as_ref(), is_no_root), cause: Cause::ExportGone,
        why: "the server shows this client not even the root of its exports" },
    Rule { symptoms: ABSENT, seen: |e, _| failed(e.may_mount.as_ref(), is_noent), cause: Cause::ExportGone,
        why: "the server has no such path" },
    Rule { symptoms: ABSENT, seen: |e, _| stopped(e), cause: Cause::ExportGone,
        why: "the path is not among what the server shows this client" },
    Rule { symptoms: REFUSED, seen: |e, s| !root_good(e) && way(e, s) == Some(Way::Missing), cause: Cause::ExportGone,
        why: "the way to the path does not come to the export any more" },
    Rule { symptoms: REFUSED, seen: |e, s| root_failed(e, is_bad_handle) && way(e, s) == Some(Way::Another), cause: Cause::FilesystemReplaced,
        why: "another filesystem is exported under the path: its number differs from before" },
    Rule { symptoms: REFUSED, seen: |e, s| stopped(e) && way(e, s) == Some(Way::Same), cause: Cause::HandleInvalid,
        why: "the mounted directory is missing from its filesystem, which is still exported" },
    Rule { symptoms: REFUSED, seen: |e, s| root_failed(e, is_bad_handle) && way(e, s) == Some(Way::Same), cause: Cause::HandleInvalid,
        why: "the export is there and the root's handle is not valid in it any more" },
    Rule { symptoms: REFUSED, seen: |e, s| s.baseline.is_none() && root_failed(e, is_bad_handle) && begins(e), cause: Cause::HandleInvalid,
        why: "the export is there and the root's handle is not valid in it any more" },

    // The handle is good and what lies behind it changed. A number given by an export's `fsid=` stays, so equality proves nothing.
    Rule { symptoms: EMPTIED, seen: |e, s| home(s, e, |home, root| root.fsid != home.fsid), cause: Cause::FilesystemReplaced,
        why: "the number of the filesystem behind the root's handle differs from before" },
    Rule { symptoms: EMPTIED, seen: |e, s| home(s, e, remade), cause: Cause::FilesystemReplaced,
        why: "the directory behind the root's handle was made at another time than the one before" },
];

/// The rows that need one more proof than the server alone can give.
#[rustfmt::skip]
const CANDIDATES: &[Rule] = &[
    Rule { symptoms: HUNG, seen: |e, _| e.address_moved(), cause: Cause::AddressChanged,
        why: "the server's name no longer leads to the address that the mount talks to" },
    Rule { symptoms: HUNG, seen: |e, s| s.root_hangs && root_intact(e), cause: Cause::ClientStuck,
        why: "the server answers for the very handle on which this mount hangs" },
    Rule { symptoms: ANY, seen: |e, s| home(s, e, |home, root| root.fsid != home.fsid || remade(home, root)), cause: Cause::FilesystemReplaced,
        why: "fsid or time of making of the root differ from before" },
];

/// What the answers prove about a mount with this symptom.
#[must_use]
pub fn conclude(examination: &Examination, seen: &Seen) -> Conclusion {
    let applies = |rule: &&Rule| rule.symptoms.contains(&seen.symptom) && (rule.seen)(examination, seen);
    let proof = RULES.iter().find(applies);
    let cause = proof.map(|rule| rule.cause);
    let candidates = CANDIDATES.iter().filter(applies).map(|rule| rule.cause).filter(|one| Some(*one) != cause);
    Conclusion { cause, why: proof.map(|rule| rule.why.to_owned()), candidates: candidates.collect() }
}

/// The cause that the answers prove; `None` where they prove none.
#[must_use]
pub fn cause(examination: &Examination, seen: &Seen) -> Option<Cause> {
    conclude(examination, seen).cause
}

const HEAD: &str = "# What the server is asked, and what its answers prove

This page is generated; a test compares it with the program. When a mount does not answer, or answers with an error, its
server is asked over sockets of our own, never through the mount, and from a source port below 1024 where we may:

| question | how | what it tells |
|---|---|---|
| where does the name lead? | the host's resolver | whether there is such a name, whether it still leads to the mount's address |
| does it take connections? | TCP to the port of NFS | silence, refusal, no route |
| does it speak NFS? | NULL in versions 3 and 4 | a server whose kernel accepts and whose service is dead; the versions it has |
| what of the mount's root? | GETATTR of the handle that the kernel's client holds (from v4 by a 4.0 compound) | whether this very mount can be served |
| is the export there? | NFSv4: LOOKUP of its path; NFSv3: mountd's EXPORT and MNT, taken back by UMNT | whether it is exported to this machine |
| is it recovering? | NFSv4: a lock test in the name of nobody, which makes no state | whether it is in its grace period |
| EFS: does the proxy live? | its process in /proc, its port, and a connection past it | the proxy's death from the server's |

The table is read from top to bottom, and the first row that applies decides. Where none does the cause is `unknown`.
";

/// The tables as a page, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write_table(&mut page, "Proven", RULES);
    let _ = write_table(&mut page, "Likely, until one more proof", CANDIDATES);
    page
}

fn write_table(page: &mut String, title: &str, rules: &[Rule]) -> std::fmt::Result {
    writeln!(page, "\n## {title}\n\n| when the mount | the cause is | because |\n|---|---|---|")?;
    for rule in rules {
        let symptoms: Vec<&str> = rule.symptoms.iter().map(|symptom| word(*symptom)).collect();
        writeln!(page, "| {} | `{}` | {} |", symptoms.join(", "), rule.cause, rule.why)?;
    }
    Ok(())
}

fn word(symptom: Symptom) -> &'static str {
    match symptom {
        Symptom::NotMounted => "is not made yet",
        Symptom::Hung => "hangs",
        Symptom::Refused => "is refused",
        Symptom::Emptied => "is emptied",
    }
}

// === What the rules look at ===

fn proxied(e: &Examination) -> bool {
    e.proxy.is_some()
}

fn proxy_ended(e: &Examination) -> bool {
    matches!(e.proxy.as_ref().map(|proxy| &proxy.process), Some(ProxyProcess::Gone | ProxyProcess::Reused(_)))
}

/// The name was asked for and leads nowhere, or no resolver said where.
fn nameless(e: &Examination) -> bool {
    let resolution = e.name.as_ref().map(|name| &name.resolution);
    e.address.is_none() && matches!(resolution, Some(Resolution::Gone | Resolution::NoAnswer | Resolution::Timeout))
}

/// What came of the connection past the proxy.
fn behind(e: &Examination, wanted: &[Connect]) -> bool {
    let connect = e.proxy.as_ref().and_then(|proxy| proxy.connect.as_ref());
    failed(connect, |failure| matches!(failure, Failure::Connect(connect) if wanted.contains(connect)))
}

fn connect(e: &Examination, wanted: &[Connect]) -> bool {
    failed(e.connect.as_ref(), |failure| matches!(failure, Failure::Connect(connect) if wanted.contains(connect)))
}

fn refused(e: &Examination) -> bool {
    failed(e.connect.as_ref(), is_refused)
}

fn is_refused(failure: &Failure) -> bool {
    *failure == Failure::Connect(Connect::Refused)
}

/// It was connected, and NULL in the mount's version got no reply.
fn mute(e: &Examination) -> bool {
    failed(e.null(), Failure::is_silence)
}

fn speaks(e: &Examination) -> bool {
    e.null().is_some_and(|null| null.failure().is_none_or(Failure::is_reply))
}

fn failed<T>(check: Option<&Check<T>>, how: impl Fn(&Failure) -> bool) -> bool {
    check.and_then(Check::failure).is_some_and(how)
}

fn in_grace(e: &Examination) -> bool {
    let grace = |failure: &Failure| failure.status() == Some(Status::GRACE);
    let tested = e.grace.as_ref().and_then(Check::ok);
    tested == Some(&Grace::In) || root_failed(e, grace) || failed(e.path.as_ref(), grace)
}

fn ok_root(e: &Examination) -> Option<&Attributes> {
    e.root.as_ref().and_then(Check::ok)
}

fn root_failed(e: &Examination, how: impl Fn(&Failure) -> bool) -> bool {
    failed(e.root.as_ref(), how)
}

fn is_bad_handle(failure: &Failure) -> bool {
    matches!(failure.status(), Some(Status::STALE | Status::BADHANDLE | Status::FHEXPIRED))
}

fn is_noent(failure: &Failure) -> bool {
    failure.status() == Some(Status::NOENT)
}

/// The server answers for the client's own handle, and with the client's own inode number.
fn root_intact(e: &Examination) -> bool {
    ok_root(e).is_some_and(|root| root.links != Some(0)) && !root_is_another(e)
}

fn root_good(e: &Examination) -> bool {
    ok_root(e).is_some()
}

fn root_is_another(e: &Examination) -> bool {
    matches!((ok_root(e), e.fileid), (Some(root), Some(fileid)) if root.fileid != fileid)
}

fn unknown_client(e: &Examination) -> bool {
    let unknown = |failure: &Failure| *failure == Failure::Denied(Denial::Auth(AUTH_BADCRED));
    root_failed(e, unknown) || failed(e.path.as_ref(), unknown)
}

fn mount_refused(e: &Examination) -> bool {
    let refused = |failure: &Failure| matches!(failure.status(), Some(Status::ACCES | Status::PERM));
    e.mountd_privileged == Some(true) && failed(e.may_mount.as_ref(), refused)
}

/// The list is whole and has others than the path. An empty one proves nothing: there are servers that hide theirs.
fn unlisted(e: &Examination) -> bool {
    e.exports.as_ref().and_then(Check::ok).is_some_and(|exports| exports.misses() && exports.count > 0)
}

fn mountable(e: &Examination) -> bool {
    e.may_mount.as_ref().is_some_and(|mount| mount.answer.is_ok())
}

fn is_no_root(failure: &Failure) -> bool {
    matches!(failure.status(), Some(Status::NOENT | Status::NOFILEHANDLE | Status::STALE))
}

fn walk(e: &Examination) -> Option<&Walk> {
    e.path.as_ref().and_then(Check::ok)
}

/// The way to the path ends at a component that is not there.
fn stopped(e: &Examination) -> bool {
    walk(e).is_some_and(|walk| walk.stopped == Some(Status::NOENT))
}

/// The path is there, and a filesystem begins with it or it is the root of all: it is an export of its own.
fn begins(e: &Examination) -> bool {
    let Some(walk) = walk(e) else { return false };
    walk.end().is_some_and(|end| walk.above().is_none_or(|above| above.fsid != end.fsid))
}

/// Where the way to the path leads, compared with good times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Not to the place of the export, or there no filesystem begins.
    Missing,
    /// To another filesystem at that place.
    Another,
    /// To the same one.
    Same,
}

/// `None` where nothing is remembered, or something else than a missing name stopped the way.
fn way(e: &Examination, s: &Seen) -> Option<Way> {
    let home = s.baseline?;
    let depth = home.depth?;
    let walk = walk(e)?;
    let there = walk.met.get(depth);
    let above = depth.checked_sub(1).and_then(|above| walk.met.get(above));
    match there {
        None => stopped(e).then_some(Way::Missing),
        Some(there) if there.fsid == home.root.fsid => Some(Way::Same),
        Some(there) if above.is_some_and(|above| above.fsid == there.fsid) => Some(Way::Missing),
        Some(_) => Some(Way::Another),
    }
}

/// The root is remembered from good times, the server answers for its handle now, and the two are so.
fn home(s: &Seen, e: &Examination, so: fn(&Attributes, &Attributes) -> bool) -> bool {
    s.baseline.zip(ok_root(e)).is_some_and(|(home, root)| so(&home.root, root))
}

fn remade(home: &Attributes, root: &Attributes) -> bool {
    root.created.zip(home.created).is_some_and(|(now, then)| now != then)
}

#[cfg(test)]
mod tests;
