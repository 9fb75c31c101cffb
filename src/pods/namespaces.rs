//! Which mount namespaces this node has, whose each is, and one process through which it can be looked at. Pure.
//!
//! A namespace is named by its inode number while a process lives in it; the process by its number and its start, since
//! numbers come round. Who holds a namespace is read from the cgroups of those in it, not from what it has mounted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::Owner;
use crate::canary::Ids;
pub use crate::mounts::Process;
use crate::probe::scan::{MemberRow, Scan, ScanJob, What};

/// A process may still be on its way into its container for so long after it was first seen: a runtime starts it, then
/// unshares, then moves it into its cgroup.
const YOUNG: Duration = Duration::from_secs(30);

/// Everything is read again so often: a process may enter another namespace at any age.
const FULL: Duration = Duration::from_secs(600);

/// Others in one namespace that are kept by name.
const OTHERS: usize = 8;

/// Users that processes of one container run as.
const MOST_IDS: usize = 8;

/// Whose a mount namespace is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// PID 1's: the host.
    Host,
    /// The agent's own, where that is another one.
    Agent,
    /// That of a pod's container, another container, a service, a session.
    Of(Arc<Owner>),
}

impl Holder {
    /// The pod, where it is one.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            Holder::Of(owner) => match owner.as_ref() {
                Owner::Pod { uid, .. } => Some(uid),
                _ => None,
            },
            Holder::Host | Holder::Agent => None,
        }
    }

    /// The runtime's id of the container, where it is one.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        match self {
            Holder::Of(owner) => match owner.as_ref() {
                Owner::Pod { container, .. } => container.as_deref(),
                Owner::Container { id, .. } => Some(id),
                _ => None,
            },
            Holder::Host | Holder::Agent => None,
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Holder::Host => "the host".to_owned(),
            Holder::Agent => "mountwarden".to_owned(),
            Holder::Of(owner) => owner.words(),
        }
    }
}

/// A mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number; absent where it may not be seen (needs CAP_SYS_PTRACE): then each container counts as one.
    pub id: Option<u64>,
    /// The process to look through: the same one as long as it lives, else the oldest of the holder's.
    pub process: Process,
    /// Name of its program, at most 15 bytes.
    pub program: Vec<u8>,
    /// Whose it is: a container's rather than that of somebody who entered it.
    pub holder: Holder,
    /// Who else has processes in it, the first few.
    pub others: Vec<Arc<Owner>>,
    /// Processes in it.
    pub processes: usize,
    /// Whom the holder's processes run as; empty where one of them may read everything, or it is not known of one.
    pub ids: Vec<Arc<Ids>>,
}

impl Namespace {
    /// The container that only keeps a pod's other namespaces: it runs nothing of the pod's and has no volume. By the name
    /// of its program, which anybody can have, so it decides nothing by itself.
    #[must_use]
    pub fn is_pause(&self) -> bool {
        self.holder.pod_uid().is_some() && self.processes == 1 && self.program == b"pause"
    }
}

/// What of a process is kept.
#[derive(Debug)]
struct Known {
    ino: u64,
    seen: Duration,
    member: Option<Member>,
    unreadable: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    process: Process,
    namespace: Option<u64>,
    owner: Arc<Owner>,
    program: Vec<u8>,
    ids: Option<Arc<Ids>>,
}

/// All processes of the node as they were last seen, and their namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    known: HashMap<i32, Known>,
    all: Vec<Namespace>,
    host: Option<u64>,
    own: Option<u64>,
    /// When everything was last read.
    full: Option<Duration>,
    scanned: bool,
}

impl Namespaces {
    /// What a worker is to look at next. `now`: any clock that only goes forward.
    #[must_use]
    pub fn job(&self, proc_root: &[u8], now: Duration) -> ScanJob {
        let all = self.full.is_none_or(|at| now.saturating_sub(at) >= FULL);
        let young = |known: &Known| all || now.saturating_sub(known.seen) < YOUNG || known.unreadable.is_some();
        let again = self.known.iter().filter(|(_, known)| young(known)).map(|(pid, _)| *pid).collect();
        let known = self.known.iter().map(|(pid, known)| (*pid, known.ino)).collect();
        ScanJob { proc_root: proc_root.to_vec(), known, again }
    }

    /// Takes over what it saw. True: a namespace came, went, or is somebody else's now.
    pub fn take(&mut self, scan: Scan, now: Duration) -> bool {
        let mut changed = (self.host, self.own) != (scan.host, scan.own);
        (self.host, self.own) = (scan.host, scan.own);
        let owners: Vec<Arc<Owner>> = scan.cgroups.iter().map(|text| Arc::new(Owner::parse(text))).collect();
        let ids: Vec<Arc<Ids>> = scan.ids.into_iter().map(Arc::new).collect();
        // Before the rows: a number that another process has now is in both.
        for pid in scan.gone {
            changed |= self.known.remove(&pid).is_some();
        }
        for row in scan.rows {
            let (member, unreadable) = match row.what {
                What::Member(member) => (self::member(member, &owners, &ids), None),
                What::Nothing => (None, None),
                What::Unreadable(errno) => (None, Some(errno)),
            };
            let before = self.known.get(&row.pid).filter(|before| before.ino == row.ino);
            let seen = before.map_or(now, |before| before.seen);
            changed |= before.is_none_or(|before| (&before.member, before.unreadable) != (&member, unreadable));
            self.known.insert(row.pid, Known { ino: row.ino, seen, member, unreadable });
        }
        if self.full.is_none_or(|at| now.saturating_sub(at) >= FULL) {
            self.full = Some(now);
        }
        self.scanned |= !scan.more;
        if !changed {
            return false;
        }
        let now = self.group(&self.all);
        let before = std::mem::replace(&mut self.all, now);
        self.all != before
    }

    /// All mount namespaces, the host's too where it could be seen, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.all.iter()
    }

    /// The node was looked through once, as a whole.
    #[must_use]
    pub fn scanned(&self) -> bool {
        self.scanned
    }

    /// Processes that are known.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.known.len()
    }

    /// Why what is told here may not be all: a process that could not be looked at, or whose namespace may not be seen.
    /// Whoever must be sure that nobody else has something does not act then.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if !self.scanned {
            return Some("the processes of this node were not looked through yet".to_owned());
        }
        let unreadable = self.known.iter().find_map(|(pid, known)| Some((pid, known.unreadable?)));
        if let Some((pid, errno)) = unreadable {
            return Some(format!("process {pid} cannot be looked at (errno {errno})"));
        }
        let unseen = |member: &Member| member.namespace.is_none();
        let hidden = self.known.values().filter_map(|known| known.member.as_ref()).find(|member| unseen(member));
        hidden.map(|member| {
            format!("the mount namespace of process {} cannot be seen (needs CAP_SYS_PTRACE)", member.process.pid)
        })
    }

    /// Why containers cannot be looked into: most mount namespaces may not be seen. That PID 1's may not is nothing unusual
    /// (a security module), and hides no container.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        let members = || self.known.values().filter_map(|known| known.member.as_ref());
        let hidden = members().filter(|member| member.namespace.is_none()).count();
        (hidden > 1 && hidden * 2 > members().count())
            .then(|| format!("the mount namespaces of {hidden} processes cannot be seen (needs CAP_SYS_PTRACE)"))
    }

    fn group(&self, before: &[Namespace]) -> Vec<Namespace> {
        let mut groups: BTreeMap<Group<'_>, Vec<&Member>> = BTreeMap::new();
        for member in self.known.values().filter_map(|known| known.member.as_ref()) {
            let group = match member.namespace {
                Some(id) => Group::Seen(id),
                // Each container has one of its own. What else there is cannot be told from the host.
                None if rank(&member.owner) >= CONTAINER => Group::Container(&member.owner),
                None => continue,
            };
            groups.entry(group).or_default().push(member);
        }
        let chosen: HashMap<Process, Option<u64>> = before.iter().map(|old| (old.process, old.id)).collect();
        groups.into_values().filter_map(|members| self.namespace(&members, &chosen)).collect()
    }

    fn namespace(&self, members: &[&Member], chosen: &HashMap<Process, Option<u64>>) -> Option<Namespace> {
        let best = members.iter().map(|member| rank(&member.owner)).max()?;
        let mut of_holder: Vec<&&Member> = members.iter().filter(|member| rank(&member.owner) == best).collect();
        of_holder.sort_by_key(|member| (member.process.start, member.process.pid));
        let oldest = **of_holder.first()?;
        let id = oldest.namespace;
        let holder = match id {
            Some(id) if self.host == Some(id) => Holder::Host,
            Some(id) if self.own == Some(id) => Holder::Agent,
            _ => Holder::Of(Arc::clone(&oldest.owner)),
        };
        let kept = |member: &&&&Member| member.owner == oldest.owner && chosen.get(&member.process) == Some(&id);
        let through = of_holder.iter().find(kept).map_or(oldest, |kept| **kept);
        let mut others: Vec<Arc<Owner>> = Vec::new();
        // On the host everybody is at home.
        for member in members.iter().filter(|_| holder != Holder::Host) {
            if others.len() < OTHERS && member.owner != oldest.owner && !others.contains(&member.owner) {
                others.push(Arc::clone(&member.owner));
            }
        }
        others.sort();
        let program = through.program.clone();
        let ids = ids_of(members.iter().filter(|member| member.owner == oldest.owner));
        Some(Namespace { id, process: through.process, program, holder, others, processes: members.len(), ids })
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Group<'a> {
    Seen(u64),
    Container(&'a Owner),
}

fn member(row: MemberRow, owners: &[Arc<Owner>], ids: &[Arc<Ids>]) -> Option<Member> {
    let owner = owners.get(usize::try_from(row.cgroup).ok()?)?;
    let process = Process { pid: row.entry, start: row.start };
    let ids = row.ids.and_then(|index| ids.get(usize::try_from(index).ok()?)).cloned();
    Some(Member { process, namespace: row.namespace, owner: Arc::clone(owner), program: row.name, ids })
}

/// Whom these run as, each once: none where that is not known of all, or they are too many to tell.
fn ids_of<'a>(members: impl Iterator<Item = &'a &'a Member>) -> Vec<Arc<Ids>> {
    let ids: Option<BTreeSet<&Arc<Ids>>> = members.map(|member| member.ids.as_ref()).collect();
    ids.filter(|ids| ids.len() <= MOST_IDS).into_iter().flatten().cloned().collect()
}

const CONTAINER: u8 = 4;

/// Who enters a container (`nsenter`, `kubectl debug`) does not hold it.
fn rank(owner: &Owner) -> u8 {
    match owner {
        Owner::Pod { container: Some(_), .. } => 5,
        Owner::Container { .. } => CONTAINER,
        Owner::Pod { .. } => 3,
        Owner::Lxc(_) | Owner::Machine(_) => 2,
        Owner::Unit(_) => 1,
        Owner::Other(_) => 0,
    }
}

#[cfg(test)]
mod tests;
