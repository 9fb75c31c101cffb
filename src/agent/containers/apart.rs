//! Containers that are meant to share a directory, and do not: one has it on the network, another on the node's disk.
//!
//! It happens where something is mounted on the host after a container was started with the directory below: a hostPath, a
//! volume of type `local`. The container keeps the disk, those that come later have the share, and both work.
//!
//! Nothing is guessed. Both pods' specifications name the same directory (one claim, or one path of this node in one
//! namespace), both containers' tables were read, and there is a moment at which both were as they are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Seen;
use crate::agent::core::Core;
use crate::mounts::{Process, View, octal};
use crate::pods::names::{PodName, PodNames, VolumeName, VolumeOrigin, WantedMount};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::tables::PlaceRow;

/// Containers on the node's disk that are named for one mount, and that are looked for.
const NAMED: usize = 3;
const FOUND: usize = 16;

/// What several containers are meant to have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::agent) struct Common {
    namespace: String,
    what: What,
    sub_path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Claim(String),
    Directory(PathBuf),
}

impl Common {
    fn of(pod: &PodName, volume: &VolumeName, wanted: &WantedMount) -> Option<Common> {
        // An expression leads elsewhere in each pod.
        if wanted.sub_path.contains("$(") {
            return None;
        }
        let what = match (&volume.claim, &volume.origin) {
            (Some(claim), _) => What::Claim(claim.clone()),
            (None, Some(VolumeOrigin::HostPath(path))) => What::Directory(path.clone()),
            _ => return None,
        };
        Some(Common { namespace: pod.namespace.clone(), what, sub_path: wanted.sub_path.clone() })
    }

    fn words(&self) -> String {
        let below = if self.sub_path.is_empty() { String::new() } else { format!(", directory {}", self.sub_path) };
        let what = match &self.what {
            What::Claim(claim) => format!("claim {claim}"),
            What::Directory(path) => format!("hostPath {}", path.display()),
        };
        octal::label(OsStr::new(&format!("{what}{below}")))
    }
}

/// What more than one container of this node is meant to have.
pub(in crate::agent) fn commons(names: &PodNames) -> HashSet<Common> {
    let mut once = HashSet::new();
    let mut more = HashSet::new();
    for (_, pod) in names.iter().filter(|(_, pod)| !pod.terminating) {
        for common in pod.mounts.iter().filter_map(|wanted| Common::of(pod, pod.volume(&wanted.volume)?, wanted)) {
            if once.contains(&common) {
                more.insert(common);
            } else {
                once.insert(common);
            }
        }
    }
    more
}

/// A path of a container that is compared with those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Compared {
    pub(in crate::agent) path: PathBuf,
    pub(in crate::agent) common: Common,
}

/// The paths of one container that are compared.
pub(super) fn compared(pod: &PodName, container: &str, commons: &HashSet<Common>) -> Vec<Compared> {
    let of_container = pod.mounts.iter().filter(|wanted| wanted.container == container);
    let paths = of_container.filter_map(|wanted| {
        let common = Common::of(pod, pod.volume(&wanted.volume)?, wanted).filter(|common| commons.contains(common))?;
        Some(Compared { path: wanted.path.clone(), common })
    });
    paths.collect()
}

/// What a container has at a compared path, and from when to when that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    common: Common,
    path: PathBuf,
    row: PlaceRow,
    /// A reading that showed it was over then.
    from: Now,
    /// A later one that showed it, too, had not begun before then.
    until: Now,
}

/// Times of a reading: when it was asked for, and when it came back.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct Reading {
    pub(in crate::agent) asked: Now,
    pub(in crate::agent) answered: Now,
}

impl Seen {
    /// Takes over what the compared paths lead to.
    pub(super) fn take_places(&mut self, compared: &[Compared], rows: Vec<PlaceRow>, reading: Reading) {
        let mut before = std::mem::take(&mut self.places);
        for row in rows {
            let index = usize::try_from(row.index).ok();
            let Some(Compared { path, common }) = index.and_then(|index| compared.get(index)) else { continue };
            let same = |place: &Place| (&place.path, &place.common) == (path, common) && place.row.same(&row);
            let place = match before.iter().position(same) {
                Some(known) => Place { until: reading.asked, ..before.swap_remove(known) },
                None => {
                    Place { common: common.clone(), path: path.clone(), row, from: reading.answered, until: Now::ZERO }
                }
            };
            self.places.push(place);
        }
    }

    /// The table is as it was.
    pub(super) fn confirm_places(&mut self, reading: Reading) {
        self.places.iter_mut().for_each(|place| place.until = reading.asked);
    }
}

impl PlaceRow {
    /// `ext4 (/dev/vda1)`; what has no device is its type alone.
    fn words(&self) -> String {
        let source = octal::label(OsStr::from_bytes(&self.source));
        if source.starts_with('/') { format!("{} ({source})", self.fstype) } else { self.fstype.clone() }
    }

    fn same(&self, other: &PlaceRow) -> bool {
        let key = |row: &PlaceRow| (row.mount, row.network);
        key(self) == key(other) && (&self.fstype, &self.source) == (&other.fstype, &other.source)
    }
}

impl Place {
    /// There was a moment at which both were so.
    fn meets(&self, other: &Place) -> bool {
        self.from.max(other.from) <= self.until.min(other.until)
    }
}

/// A container's network mount, and one that has a local filesystem in its place.
struct Pair<'a> {
    network: (Process, &'a Place),
    local: (Process, &'a Place),
}

fn pairs(views: &HashMap<Process, Seen>) -> Vec<Pair<'_>> {
    let mut by_common: BTreeMap<&Common, Vec<(Process, &Place)>> = BTreeMap::new();
    for (process, seen) in views {
        for place in &seen.places {
            by_common.entry(&place.common).or_default().push((*process, place));
        }
    }
    let mut found = Vec::new();
    for mut places in by_common.into_values() {
        places.sort_by_key(|(process, _)| *process);
        let (network, local): (Vec<_>, Vec<_>) = places.into_iter().partition(|(_, place)| place.row.network);
        for network in network {
            let apart = local.iter().filter(|(_, local)| local.meets(network.1)).take(FOUND);
            found.extend(apart.map(|local| Pair { network, local: *local }));
        }
    }
    found
}

impl Core {
    /// The paths of a container that are compared with those of others.
    pub(super) fn compared_paths(&self, process: Process) -> Vec<Compared> {
        if self.containers.commons.is_empty() {
            return Vec::new();
        }
        let here = self.in_pod(process);
        here.map(|here| compared(here.pod, here.container, &self.containers.commons)).unwrap_or_default()
    }

    /// All tables were read: who has the node's disk where others have a network mount.
    pub(super) fn compare_containers(&mut self) {
        let mut of_target: BTreeMap<TargetId, BTreeMap<(Process, &Path), String>> = BTreeMap::new();
        for pair in pairs(&self.containers.views) {
            let (process, place) = pair.network;
            let Some(target) = self.registry.of_view(View::Container(process), place.row.mount) else { continue };
            let local = (pair.local.0, pair.local.1.path.as_path());
            // One of those that have the mount is enough to say what it should be.
            if of_target.get(&target).is_some_and(|known| known.contains_key(&local)) {
                continue;
            }
            if let Some(words) = self.pair_words(&pair) {
                of_target.entry(target).or_default().insert(local, words);
            }
        }
        let mut of_target: BTreeMap<TargetId, String> =
            of_target.into_iter().map(|(id, found)| (id, sentence(found.into_values()))).collect();
        let stale = self.registry.targets.values().filter(|target| target.apart.is_some()).map(|target| target.id);
        let stale: BTreeSet<TargetId> = stale.chain(of_target.keys().copied()).collect();
        for id in stale {
            let apart = of_target.remove(&id);
            if let Some(target) = self.registry.targets.get_mut(&id)
                && target.apart != apart
            {
                target.apart = apart;
                self.changed = true;
                self.announce_findings(id);
            }
        }
    }

    /// `None`: one of them is not known any more, or its pod is going.
    fn pair_words(&self, pair: &Pair<'_>) -> Option<String> {
        let who = |process| {
            let here = self.in_pod(process)?;
            Some(format!("{} ({})", here.pod.full(), here.container))
        };
        let (local, network) = (pair.local.1, pair.network.1);
        Some(format!(
            "{} has {} of this node at {}, where {} has this mount at {}: both mount {}",
            who(pair.local.0)?,
            local.row.words(),
            label(&local.path),
            who(pair.network.0)?,
            label(&network.path),
            local.common.words(),
        ))
    }
}

fn label(path: &Path) -> String {
    octal::label(path.as_os_str())
}

fn sentence(pairs: impl ExactSizeIterator<Item = String>) -> String {
    let more = pairs.len().saturating_sub(NAMED);
    let told: Vec<String> = pairs.take(NAMED).collect();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", told.join("; "))
}

#[cfg(test)]
mod tests;
