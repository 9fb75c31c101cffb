//! What the answers about an export come to before it is mounted. Pure.

use std::net::IpAddr;

use super::options::MountOptions;
use super::report::Verdict;
use super::trials::Trial;
use super::words::{Facts, plain, todo, untechnical};
use crate::server::conclude::{Seen, Symptom, conclude};
use crate::server::examine::Examination;
use crate::server::link::Failure;
use crate::server::rpc::Accept;
use crate::verdict::{Cause, Severity};

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers<'a> {
    /// Asked with NFSv4 in mind.
    pub v4: Option<Examination>,
    /// With NFSv3, portmapper and mountd.
    pub v3: Option<Examination>,
    /// Other addresses of the name that take no connection.
    pub dead_addresses: Vec<IpAddr>,
    /// The trial mount.
    pub trial: Trial,
    /// The options that were asked for.
    pub options: &'a MountOptions,
}

/// A cause, the sentence of the rule that proved it, and what it was seen in.
#[derive(Debug, Clone)]
struct Proof<'a> {
    cause: Cause,
    why: String,
    found: &'a Examination,
}

impl Answers<'_> {
    /// The examinations in the order in which mount.nfs would meet them.
    fn examinations(&self) -> impl Iterator<Item = &Examination> {
        [self.v4.as_ref(), self.v3.as_ref()].into_iter().flatten()
    }

    /// The first cause that is proven, with its proof. With NFSv4 what stands in the way of NFSv3 does not matter, and an
    /// export that is missing there may be there for NFSv3.
    fn proven(&self) -> Option<Proof<'_>> {
        let seen = Seen { plain_security: self.options.plain_security(), ..Seen::new(Symptom::NotMounted) };
        let proofs: Vec<Option<Proof<'_>>> = self
            .examinations()
            .map(|found| {
                let conclusion = conclude(found, &seen);
                Some(Proof { cause: conclusion.cause?, why: conclusion.why.unwrap_or_default(), found })
            })
            .collect();
        let missing = |proof: &Option<Proof<'_>>| proof.as_ref().is_none_or(|proof| proof.cause == Cause::ExportGone);
        match proofs.as_slice() {
            // The last word is that of the version which is tried last.
            [first, last] if missing(first) => last.clone(),
            [first, ..] => first.clone(),
            [] => None,
        }
    }

    /// The path is there and this host may have it, as far as anybody but the kernel can tell.
    fn offered(&self) -> bool {
        let v4 = self.v4.as_ref().and_then(|found| found.path.as_ref()?.ok()).is_some_and(|walk| walk.end().is_some());
        let v3 = self.v3.as_ref().and_then(|found| found.may_mount.as_ref()?.ok()).is_some();
        v4 || v3
    }

    /// The server has none of the versions that are asked for.
    fn no_version(&self) -> bool {
        let refused = |failure: &Failure| {
            matches!(failure, Failure::NotExecuted(Accept::ProgramMismatch { .. } | Accept::ProgramUnavailable))
        };
        let mut nulls = self.examinations().filter_map(Examination::null).peekable();
        nulls.peek().is_some() && nulls.all(|null| null.failure().is_some_and(refused))
    }

    /// What came back from the port of NFS was no answer.
    fn garbage(&self) -> Option<&str> {
        self.examinations().filter_map(Examination::null).find_map(|null| match null.failure() {
            Some(Failure::Garbage(why)) => Some(why.as_str()),
            _ => None,
        })
    }

    fn asked_from_ordinary_port(&self) -> bool {
        self.examinations().any(|found| found.privileged == Some(false) || found.mountd_privileged == Some(false))
    }
}

/// The end of it.
#[must_use]
pub fn judge(answers: &Answers<'_>, facts: &Facts<'_>) -> Verdict {
    if let Trial::Mounted(words) = &answers.trial {
        return good(answers, format!("{} can be mounted from this host now ({words}).", facts.export));
    }
    if let Some(why) = answers.garbage() {
        return dead(
            None,
            format!("What listens at {} is no NFS server, or a broken one: {why}.", facts.at()),
            vec![
                "Look whether this is the right server and port, and what listens there (`ss -ltnp` on the server)."
                    .to_owned(),
            ],
        );
    }
    if answers.no_version() {
        return no_version(answers);
    }
    if let Some(proof) = answers.proven() {
        return of_proof(&proof, facts);
    }
    match &answers.trial {
        Trial::Refused { errno, words, by_server: true } => refused(answers, *errno, words, facts),
        Trial::Refused { words, .. } | Trial::NotMade(words) if answers.offered() => good(
            answers,
            format!(
                "The server offers {} to this host. That it really can be mounted was not tried: {words}.",
                facts.export
            ),
        ),
        Trial::Silent(words) => dead(
            None,
            format!("The server answers questions, and a mount of {} gets no answer: {words}.", facts.export),
            vec!["Look at the server for a stuck disk or file service (`dmesg -T | tail -n 50` there).".to_owned()],
        ),
        Trial::Refused { words, .. } | Trial::NotMade(words) => untold(answers, words),
        Trial::Mounted(_) => untold(answers, ""),
    }
}

fn good(answers: &Answers<'_>, summary: String) -> Verdict {
    let mut todo = vec![
        "If a pod still does not start: `kubectl describe pod POD` may show an older attempt; else compare the PersistentVolume's server, path and mountOptions with what was asked here (-o).".to_owned(),
    ];
    let mut result = Severity::Healthy;
    let mut summary = summary;
    if !answers.dead_addresses.is_empty() {
        let dead: Vec<String> = answers.dead_addresses.iter().map(ToString::to_string).collect();
        result = Severity::Degraded;
        summary += &format!(" But the name leads to further addresses that take no connection: {}.", dead.join(", "));
        todo.insert(
            0,
            "Take the dead addresses out of DNS, or bring them back: a mount may get one of them at any time."
                .to_owned(),
        );
    }
    todo.push("Reading was tried, writing was not: whether it may be written to, and has room, shows only once it is mounted: `mountwarden diagnose --write PATH` tries it, and a canary goes on trying.".to_owned());
    Verdict { result, cause: None, summary, todo }
}

fn dead(cause: Option<Cause>, summary: String, todo: Vec<String>) -> Verdict {
    Verdict { result: Severity::Dead, cause, summary, todo }
}

fn of_proof(proof: &Proof<'_>, facts: &Facts<'_>) -> Verdict {
    let connected = proof.found.connect.as_ref().is_some_and(|connect| connect.answer.is_ok());
    if connected && proof.cause == Cause::ServerRefused {
        return dead(
            Some(proof.cause),
            "The server's NFS service runs, but not its mount service (mountd), without which nothing can be mounted by NFSv3.".to_owned(),
            vec!["On the server: `systemctl restart nfs-mountd` (or nfs-server), and look whether a firewall rejects its port. Or mount with `vers=4.1`, which does not need it, if the server has that.".to_owned()],
        );
    }
    let summary = format!("{} Proof: {}.", plain(proof.cause, facts), untechnical(&proof.why));
    dead(Some(proof.cause), summary, todo(proof.cause, facts))
}

fn no_version(answers: &Answers<'_>) -> Verdict {
    let served: Vec<&str> = answers
        .examinations()
        .flat_map(|found| [("3", &found.v3), ("4", &found.v4)])
        .filter(|(_, check)| check.as_ref().is_some_and(|check| check.answer.is_ok()))
        .map(|(version, _)| version)
        .collect();
    let asked = answers.options.versions.join(", ");
    match served.first() {
        Some(served) => dead(
            None,
            format!(
                "The server does not speak NFS version {asked}, which is what was asked for; it speaks version {served}."
            ),
            vec![format!(
                "Ask for what it has: `vers={served}` in the mount options (mountOptions of the PersistentVolume), or switch the other version on at the server."
            )],
        ),
        None => dead(
            None,
            "Something answers at the port of NFS, and it speaks none of the versions that this host can.".to_owned(),
            vec!["Look whether this is the right server and port.".to_owned()],
        ),
    }
}

/// The kernel was told no by the server, and the questions showed no reason.
fn refused(answers: &Answers<'_>, errno: i32, words: &str, facts: &Facts<'_>) -> Verdict {
    let unprivileged = answers.options.has("noresvport") || (facts.efs && !answers.options.has("resvport"));
    match errno {
        libc::EPERM | libc::EACCES if unprivileged && answers.offered() => dead(
            Some(Cause::Permission),
            format!("The server offers {} to this host and refuses this mount: as it seems because of `noresvport`. It takes requests from ports below 1024 only.", facts.export),
            vec!["Leave out `noresvport`, or let the server take other ports too (`insecure` in /etc/exports, then `exportfs -ra`).".to_owned()],
        ),
        libc::EACCES | libc::ENOENT if answers.options.plain_security() => {
            dead(Some(Cause::ExportGone), plain(Cause::ExportGone, facts), todo(Cause::ExportGone, facts))
        }
        _ => dead(
            None,
            format!("A mount fails: {words}."),
            vec!["See whether the options are those that the server wants (-o), and read the server's log.".to_owned()],
        ),
    }
}

fn untold(answers: &Answers<'_>, why: &str) -> Verdict {
    let mut summary = "No answer proves that it can be mounted, and none what is wrong.".to_owned();
    if !why.is_empty() {
        summary += &format!(" No trial mount: {why}.");
    }
    let mut todo = vec!["Look at the steps above that failed.".to_owned()];
    if answers.asked_from_ordinary_port() || unprivileged_user() {
        todo.insert(0, "Ask again as root: servers answer requests from ports below 1024 only, unless told otherwise, and a trial mount needs root too.".to_owned());
    }
    Verdict { result: Severity::Unknown, cause: None, summary, todo }
}

fn unprivileged_user() -> bool {
    !nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests;
