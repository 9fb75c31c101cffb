//! From the mount table to findings: first what one mount says of itself, then what mounts of one export are to each
//! other. Each rule states its bound and why ordinary mounts are on the right side of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::Finding;
use crate::mounts::source::{self, Mode};
use crate::mounts::{Dev, Kind, Mount, Origin, View, kubelet};

/// Tenths of a second: below it AWS warns of corruption and lost speed ("at least 150"); Linux takes 600 for TCP and RDMA.
const SHORT_TIMEO: u32 = 150;
/// What Linux takes for TCP and AWS advises for EFS.
const USUAL_RETRANS: u32 = 2;
/// Servers of little memory offer 32 KiB (`nfsd_get_default_max_blksize`), as does UDP; who has less has asked for it.
const SMALL_TRANSFER: u64 = 32 << 10;
/// What EFS serves and AWS advises.
const EFS_TRANSFER: u64 = 1 << 20;

pub(super) fn all(mut mounts: Vec<&Mount>) -> HashMap<(View, u64), Vec<Finding>> {
    mounts.retain(|mount| mount.kind.is_some_and(Kind::is_nfs));
    let mut found: HashMap<(View, u64), BTreeSet<Finding>> = HashMap::new();
    let mut add = |mount: &Mount, finding| {
        found.entry((mount.view, mount.id)).or_default().insert(finding);
    };
    for mount in &mounts {
        alone(mount).into_iter().for_each(|finding| add(mount, finding));
    }
    let mut exports: HashMap<Export<'_>, Vec<&Mount>> = HashMap::new();
    for mount in &mounts {
        if let Some(export) = Export::of(mount) {
            exports.entry(export).or_default().push(mount);
        }
    }
    for together in exports.values() {
        let (finding, locks) = (beside(together), local_locks(together));
        for mount in together {
            finding.into_iter().for_each(|finding| add(mount, finding));
            if locks && keeps_locks(mount) {
                add(mount, Finding::LocalLocks);
            }
        }
    }
    found.into_iter().map(|(mount, findings)| (mount, findings.into_iter().collect())).collect()
}

/// Whether the name that a mount was made with leads elsewhere now. `resolved`: all addresses of the name, as this node
/// resolves it; none means that nothing is known. A mount by address, or through a local proxy, has no such name.
#[must_use]
pub fn address_drift(origin: &Origin, resolved: &[IpAddr]) -> bool {
    let by_name = origin.server.as_deref().is_some_and(|server| server.parse::<IpAddr>().is_err());
    let Some(address) = origin.address.filter(|_| by_name && origin.proxy_port.is_none()) else { return false };
    !resolved.is_empty() && !resolved.iter().any(|other| other.to_canonical() == address.to_canonical())
}

/// What a mount's own options say.
fn alone(mount: &Mount) -> Vec<Finding> {
    let origin = &mount.origin;
    let efs = origin.efs_file_system.is_some();
    let soft = matches!(origin.mode, Some(Mode::Soft | Mode::Softerr));
    let udp = origin.proto.as_deref().is_some_and(|proto| proto.starts_with("udp"));
    let v40 = matches!(origin.version.as_deref(), Some("4.0" | "4"));
    let held = [
        (Finding::EfsSoft, efs && soft),
        (Finding::EfsReservedPort, efs && !mount.has_super_option("noresvport")),
        (Finding::SoftWritable, soft && !efs && !mount.read_only()),
        // Over UDP the defaults are 11 and 3: each lost packet costs so long.
        (Finding::ShortTimeout, !udp && origin.timeo.is_some_and(|timeo| timeo < SHORT_TIMEO)),
        // On hard mounts it only says after how many tries the kernel logs that the server is silent.
        (Finding::FewRetries, (soft || efs) && origin.retrans.is_some_and(|retrans| retrans < USUAL_RETRANS)),
        (Finding::NfsV40, v40),
        (Finding::SmallTransfers, small_transfers(mount, efs)),
        (Finding::ReadonlySuperblock, mount.has_super_option("ro") && !mount.has_option("ro")),
    ];
    held.into_iter().filter(|(_, holds)| *holds).map(|(finding, _)| finding).collect()
}

fn small_transfers(mount: &Mount, efs: bool) -> bool {
    let least = if efs { EFS_TRANSFER } else { SMALL_TRANSFER };
    let size = |name| mount.super_option(name).and_then(|text| text.parse::<u64>().ok());
    ["rsize", "wsize"].into_iter().filter_map(size).any(|bytes| bytes < least)
}

/// One directory of one server, as far as the table tells. The kernel names servers by address; two names of one are one.
#[derive(PartialEq, Eq, Hash)]
struct Export<'a> {
    server: &'a str,
    address: Option<IpAddr>,
    port: Option<u16>,
    directory: &'a str,
}

impl<'a> Export<'a> {
    fn of(mount: &'a Mount) -> Option<Export<'a>> {
        let origin = &mount.origin;
        let server = if origin.address.is_some() { "" } else { origin.server.as_deref()? };
        Some(Export { server, address: origin.address, port: origin.port, directory: origin.export.as_deref()? })
    }
}

/// Mounts of one export share a superblock, and so a cache, unless something keeps them apart. Read-only mounts beside
/// writable ones always do, and are nothing unusual.
fn beside(together: &[&Mount]) -> Option<Finding> {
    let mut options: BTreeMap<Dev, BTreeSet<String>> = BTreeMap::new();
    for mount in together {
        options.entry(mount.dev).or_insert_with(|| comparable(mount));
    }
    if options.len() < 2 || together.iter().all(|mount| mount.read_only()) {
        return None;
    }
    if together.iter().any(|mount| mount.has_super_option("nosharecache")) {
        return Some(Finding::SeparateCaches);
    }
    let different: HashSet<&BTreeSet<String>> = options.values().collect();
    (different.len() > 1).then_some(Finding::MixedOptions)
}

/// The options that somebody chose: not those that the kernel finds out by itself at each mount.
fn comparable(mount: &Mount) -> BTreeSet<String> {
    const FOUND_OUT: [&str; 10] =
        ["ro", "rw", "addr", "clientaddr", "mountaddr", "mountport", "mountvers", "mountproto", "port", "namlen"];
    source::options(&mount.super_options)
        .filter(|(name, _)| !FOUND_OUT.contains(&name.as_ref()))
        .map(|(name, value)| value.map_or_else(|| name.to_string(), |value| format!("{name}={value}")))
        .collect()
}

/// Several users write to one export, and at least one of its mounts keeps locks to itself.
///
/// Pods count as users, not their mounts: a volume and its subPaths belong to one. Outside Kubernetes only mounts with
/// superblocks of their own are told apart, since binds of one superblock do share their local locks.
fn local_locks(together: &[&Mount]) -> bool {
    let writers = || together.iter().filter(|mount| !mount.read_only());
    let pods: HashSet<String> = writers().filter_map(|mount| kubelet::pod_uid(&mount.mountpoint)).collect();
    let superblocks: HashSet<Dev> = writers().map(|mount| mount.dev).collect();
    (pods.len() > 1 || superblocks.len() > 1) && writers().any(|mount| keeps_locks(mount))
}

/// `nolock` of v3 shows as `local_lock=all` too; NFSv4 has its locks in the protocol.
fn keeps_locks(mount: &Mount) -> bool {
    let local = mount.super_option("local_lock").is_some_and(|locks| locks != "none");
    mount.kind == Some(Kind::Nfs) && (local || mount.has_super_option("nolock"))
}
