//! Which servers are asked, and what they said. Only those are asked whose mounts do not answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::book::{Book, Turn};
use super::target::Target;
use crate::probe::schedule::Now;
use crate::server::{Connect, NfsVersion, ServerAnswer};
use crate::verdict::{Cause, ServerView};

/// A silent server is asked so often. Its answer ends the back-off of its mounts, so this bounds how late we notice.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// An answer older than this explains nothing any more.
const FRESH: Duration = Duration::from_secs(15);

/// Longest wait for a connection and a NULL reply: a packet or two may be lost on the way (TCP's first retry is after 1 s).
const LONGEST_ASK: Duration = Duration::from_secs(4);

/// One server as one protocol version sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ServerKey {
    address: SocketAddr,
    v3: bool,
}

impl ServerKey {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[derive(Debug)]
struct Server {
    next: Option<Now>,
    silent: BTreeSet<u64>,
    last: Option<(Now, ServerAnswer)>,
    in_flight: bool,
}

/// The servers of mounts that do not answer.
#[derive(Debug)]
pub(super) struct Servers {
    servers: BTreeMap<ServerKey, Server>,
    /// By target: its server, and whether it refused us last time.
    refusing: HashMap<u64, (String, bool)>,
    deadline: Duration,
}

/// What an answer means for the mounts of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It answers and did not before (or was not asked before).
    Back,
    /// Nothing that the schedule needs to know.
    Same,
}

impl Servers {
    pub(super) fn new(timeout: Duration) -> Servers {
        Servers { servers: BTreeMap::new(), refusing: HashMap::new(), deadline: timeout.min(LONGEST_ASK) }
    }

    /// The deadline of probes bounds that of questions.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.deadline = timeout.min(LONGEST_ASK);
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A target of this server is silent, or answers again.
    pub(super) fn watch(&mut self, target: &Target, silent: bool, now: Now) {
        let Some(key) = key_of(target) else { return };
        if !silent {
            if let Some(server) = self.servers.get_mut(&key) {
                server.silent.remove(&target.id);
                if server.silent.is_empty() && !server.in_flight {
                    self.servers.remove(&key);
                }
            }
            return;
        }
        let server = self.servers.entry(key).or_insert_with(|| Server {
            next: Some(now),
            silent: BTreeSet::new(),
            last: None,
            in_flight: false,
        });
        server.silent.insert(target.id);
    }

    /// Forgets a target that is gone.
    pub(super) fn forget(&mut self, target: &Target) {
        self.watch(target, false, Duration::ZERO);
        self.refusing.remove(&target.id);
    }

    /// The servers to ask now, each with the turn that it takes.
    pub(super) fn take_due(&mut self, now: Now, book: &Book) -> Vec<(ServerKey, NfsVersion, Turn)> {
        let mut due = Vec::new();
        for (key, server) in &mut self.servers {
            if server.in_flight || server.next.is_none_or(|at| at > now) {
                continue;
            }
            let Some(turn) = book.turn(key.address) else { continue };
            server.in_flight = true;
            server.next = None;
            due.push((*key, if key.v3 { NfsVersion::V3 } else { NfsVersion::V4 }, turn));
        }
        due
    }

    /// When the next one is due. The end of the question that it waits for wakes us too.
    pub(super) fn next_wake(&self, book: &Book) -> Option<Now> {
        let waiting = self.servers.iter().filter(|(key, _)| book.is_free(key.address));
        waiting.filter_map(|(_, server)| server.next).min()
    }

    /// A server answered, or did not. Gives the silent targets that it concerns.
    pub(super) fn answered(&mut self, key: ServerKey, answer: ServerAnswer, now: Now) -> (News, Vec<u64>) {
        let Some(server) = self.servers.get_mut(&key) else { return (News::Same, Vec::new()) };
        server.in_flight = false;
        let was_alive = server.last.as_ref().map(|(_, answer)| answer.alive());
        let news = if answer.alive() && was_alive == Some(false) { News::Back } else { News::Same };
        server.last = Some((now, answer));
        if server.silent.is_empty() {
            self.servers.remove(&key);
            return (News::Same, Vec::new());
        }
        server.next = Some(now + ASK_EVERY);
        (news, server.silent.iter().copied().collect())
    }

    /// What the server of a target said lately.
    pub(super) fn view(&self, target: &Target, now: Now) -> Option<ServerView> {
        let (at, answer) = self.servers.get(&key_of(target)?)?.last.as_ref()?;
        (now.saturating_sub(*at) <= FRESH).then(|| ServerView {
            alive: answer.alive(),
            cause: if target.mount.origin.proxy_port.is_some() { proxy_cause(answer) } else { answer.cause() },
            words: answer.to_string(),
        })
    }

    /// Whether some server is being asked for the first time: `check` waits for it.
    pub(super) fn asking(&self) -> bool {
        self.servers.values().any(|server| server.last.is_none())
    }

    /// Remembers whether a server refused us.
    pub(super) fn note_refusal(&mut self, target: &Target, refused: bool) {
        self.refusing.insert(target.id, (target.server_label(), refused));
    }

    /// More than half of at least two servers refuse us: more likely it is our rights than theirs.
    pub(super) fn many_refuse(&self) -> bool {
        let servers: HashSet<&str> = self.refusing.values().map(|(server, _)| server.as_str()).collect();
        let refused = self.refusing.values().filter(|(_, refused)| *refused);
        let refusing: HashSet<&str> = refused.map(|(server, _)| server.as_str()).collect();
        refusing.len() >= 2 && refusing.len() * 2 > servers.len()
    }
}

/// Behind a local proxy only the proxy was asked: nobody listening there is its death, and nothing else proves a cause.
fn proxy_cause(answer: &ServerAnswer) -> Option<Cause> {
    (answer.connect == Connect::Refused).then_some(Cause::ProxyDead)
}

/// The server behind a target, if it can be asked.
pub(super) fn key_of(target: &Target) -> Option<ServerKey> {
    let address = target.server_address()?;
    let version = NfsVersion::from_option(target.mount.origin.version.as_deref().unwrap_or("4"))?;
    Some(ServerKey { address, v3: version == NfsVersion::V3 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::target::{Key, Labels};
    use crate::mounts::{View, mountinfo};

    fn target(id: u64, version: &str) -> Target {
        let line =
            format!("3{id} 20 0:4{id} / /mnt/{id} rw - nfs4 srv:/x rw,vers={version},hard,proto=tcp,addr=192.0.2.7\n");
        let mount = mountinfo::parse(line.as_bytes(), View::Own).mounts.remove(0);
        let labels = Labels { mountpoint: String::new(), source: String::new(), fstype: String::new() };
        Target::new(id, Key::of(&mount, None), labels, &mount, 0.0)
    }

    #[test]
    fn a_server_that_is_asked_already_waits_for_its_next_question_without_keeping_us_awake() {
        let (book, now) = (Book::default(), Duration::from_secs(60));
        let mut servers = Servers::new(Duration::from_secs(5));
        // Two mounts of one server, with both versions of NFS: two pulses, one server.
        servers.watch(&target(1, "3"), true, now);
        servers.watch(&target(2, "4.1"), true, now);
        let mut first = servers.take_due(now, &book);
        assert_eq!(first.len(), 1);
        assert!(servers.take_due(now, &book).is_empty());
        assert_eq!(servers.next_wake(&book), None, "its end wakes us");
        let (key, _, turn) = first.remove(0);
        drop(turn);
        let silence = ServerAnswer { connect: Connect::Timeout, null: None, connecting: Duration::ZERO, rtt: None };
        servers.answered(key, silence, now);
        assert_eq!(servers.next_wake(&book), Some(now), "the other version's turn");
        let second = servers.take_due(now, &book);
        assert!(matches!(second.as_slice(), [(other, _, _)] if *other != key));
        assert_eq!(servers.next_wake(&book), None);
        drop(second);
        assert_eq!(servers.next_wake(&book), Some(now + ASK_EVERY));
    }
}
