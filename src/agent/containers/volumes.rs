//! Where the kubelet has the volumes of each pod mounted on the host, and which of them a container's mount is. Pure.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mounts::kubelet::KubeletPath;
use crate::mounts::{Dev, Mount};

/// The volumes of all pods by the pod's UID, and what else the host has mounted.
#[derive(Debug, Default)]
pub(in crate::agent) struct Volumes {
    pods: HashMap<String, Vec<HostVolume>>,
    /// By source and path: superblock and mount id.
    places: HashMap<(OsString, PathBuf), (Dev, u64)>,
    /// By source: path and mount id of one of them that is no pod's.
    others: HashMap<OsString, (PathBuf, u64)>,
    sources: HashSet<OsString>,
}

/// How well a volume fits a container's mount: on the same superblock, of the same source, how long that is, no subPath.
type Fit = (bool, bool, usize, bool);

/// One mount of a volume on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct HostVolume {
    pub(in crate::agent) mountpoint: PathBuf,
    /// Name of the volume's directory.
    pub(in crate::agent) directory: String,
    /// Only a directory of the volume, for one container.
    pub(in crate::agent) sub_path: bool,
    pub(in crate::agent) mount_id: u64,
    dev: Dev,
    source: OsString,
    root: OsString,
}

impl Volumes {
    /// Reads them from a table of the host.
    pub(in crate::agent) fn of(mounts: &[Mount]) -> Volumes {
        let mut volumes = Volumes::default();
        for mount in mounts.iter().filter(|mount| !mount.view.is_container()) {
            let path = KubeletPath::parse(&mount.mountpoint);
            if mount.kind.is_some() && mount.hidden_by.is_none() {
                volumes.sources.insert(mount.source.clone());
                volumes.places.insert((mount.source.clone(), mount.mountpoint.clone()), (mount.dev, mount.id));
                if path.is_none() {
                    let place = (mount.mountpoint.clone(), mount.id);
                    volumes.others.entry(mount.source.clone()).or_insert(place);
                }
            }
            let Some(path) = path else { continue };
            let sub_path = match &path {
                KubeletPath::Volume { .. } => false,
                KubeletPath::SubPath { .. } => true,
                KubeletPath::Device { .. } | KubeletPath::Staging { .. } => continue,
            };
            let Some(uid) = path.pod_uid() else { continue };
            volumes.pods.entry(uid.to_owned()).or_default().push(HostVolume {
                mountpoint: mount.mountpoint.clone(),
                directory: path.directory().to_owned(),
                sub_path,
                mount_id: mount.id,
                dev: mount.dev,
                source: mount.source.clone(),
                root: mount.root.clone(),
            });
        }
        volumes
    }

    /// The host has the same superblock and source at the same path.
    pub(in crate::agent) fn has(&self, mount: &Mount) -> bool {
        let place = self.places.get(&(mount.source.clone(), mount.mountpoint.clone()));
        place.is_some_and(|(dev, _)| *dev == mount.dev)
    }

    /// The host has something of this source mounted.
    pub(in crate::agent) fn knows(&self, mount: &Mount) -> bool {
        self.sources.contains(&mount.source)
    }

    /// Path and id of what the host has mounted of just this source: the pod's own volume, else at the same path, else
    /// anywhere but among the volumes of other pods.
    pub(in crate::agent) fn of_this_source(
        &self,
        uid: Option<&str>,
        source: &OsStr,
        path: &Path,
    ) -> Option<(&Path, u64)> {
        let own = uid.and_then(|uid| self.pods.get(uid)).into_iter().flatten();
        let own = own.filter(|volume| volume.source == source).map(|volume| (&*volume.mountpoint, volume.mount_id));
        let same = self.places.get_key_value(&(source.to_owned(), path.to_owned()));
        let same = same.filter(|_| uid.is_none()).map(|((_, path), (_, id))| (&**path, *id));
        own.chain(same).chain(self.others.get(source).map(|(path, id)| (&**path, *id))).next()
    }

    /// The volume of the pod that a mount of one of its containers is: of one source, or of a directory below it. Of several
    /// the one on the same superblock, then the one that is closest; where two are equally close nobody can tell.
    pub(in crate::agent) fn of_mount(&self, uid: &str, mount: &Mount) -> Option<&HostVolume> {
        self.of_source(uid, Some(mount.dev), mount.source.as_bytes())
    }

    /// The same by what is kept of the mount.
    pub(in crate::agent) fn of_source(&self, uid: &str, dev: Option<Dev>, source: &[u8]) -> Option<&HostVolume> {
        let rank = |volume: &HostVolume| -> Option<Fit> {
            let length = volume.source.len();
            let below = below(volume.source.as_bytes(), source)?;
            // A subPath's own mount is as exact as the volume's, and says no more: the volume itself is what is named.
            Some((Some(volume.dev) == dev, below.is_empty(), length, !volume.sub_path))
        };
        let mut best: Option<(Fit, &HostVolume)> = None;
        let mut tied = false;
        for volume in self.pods.get(uid)? {
            let Some(rank) = rank(volume) else { continue };
            match best {
                Some((known, other)) if known == rank => tied |= other.directory != volume.directory,
                Some((known, _)) if known > rank => {}
                _ => (best, tied) = (Some((rank, volume)), false),
            }
        }
        best.filter(|_| !tied).map(|(_, volume)| volume)
    }

    /// The volume of the pod with this directory.
    pub(in crate::agent) fn of_directory(&self, uid: &str, directory: &str) -> Option<&HostVolume> {
        let volumes = self.pods.get(uid)?;
        volumes.iter().find(|volume| !volume.sub_path && volume.directory == directory)
    }
}

impl HostVolume {
    pub(in crate::agent) fn dev(&self) -> Dev {
        self.dev
    }

    /// The directory of the volume that a mount of it shows; empty for the whole. NFS shows it in the source, others in the
    /// root within the filesystem.
    pub(in crate::agent) fn directory_of(&self, source: &[u8], root: &[u8]) -> Vec<u8> {
        let by_source = below(self.source.as_bytes(), source).filter(|below| !below.is_empty());
        let by_root = || below(self.root.as_bytes(), root).unwrap_or_default();
        by_source.unwrap_or_else(by_root).to_vec()
    }
}

/// What of `path` lies below `base`; empty when they are the same.
fn below<'path>(base: &[u8], path: &'path [u8]) -> Option<&'path [u8]> {
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() || base.ends_with(b"/") {
        return Some(rest);
    }
    rest.strip_prefix(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{View, mountinfo};

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    fn volumes() -> Volumes {
        let base = format!("/var/lib/kubelet/pods/{UID}");
        let table = format!(
            "30 20 0:40 / {base}/volumes/kubernetes.io~nfs/pv-1 rw shared:1 - nfs4 srv:/x rw\n\
             31 20 0:40 / {base}/volumes/kubernetes.io~nfs/pv-2 rw shared:1 - nfs4 srv:/x/deep rw\n\
             32 20 0:40 / {base}/volume-subpaths/pv-1/app/0 rw shared:1 - nfs4 srv:/x/sub rw\n\
             33 20 0:50 /dir {base}/volumes/kubernetes.io~csi/pv-3/mount rw shared:1 - fuse.s3 s3 rw\n\
             34 20 0:51 / {base}/volumes/kubernetes.io~csi/pv-4/mount rw shared:1 - fuse.s3 s3 rw\n"
        );
        Volumes::of(&mountinfo::parse(table.as_bytes(), View::Host).mounts)
    }

    fn directory(dev: (u32, u32), source: &str) -> Option<String> {
        let dev = Some(Dev { major: dev.0, minor: dev.1 });
        volumes().of_source(UID, dev, source.as_bytes()).map(|volume| volume.directory.clone())
    }

    #[test]
    fn a_containers_mount_is_the_volume_with_the_closest_source() {
        assert_eq!(directory((0, 40), "srv:/x").as_deref(), Some("pv-1"));
        assert_eq!(directory((0, 40), "srv:/x/sub").as_deref(), Some("pv-1"), "a subPath");
        assert_eq!(directory((0, 40), "srv:/x/sub/deeper").as_deref(), Some("pv-1"));
        assert_eq!(directory((0, 40), "srv:/x/deep/er").as_deref(), Some("pv-2"));
        assert_eq!(directory((0, 99), "srv:/x").as_deref(), Some("pv-1"), "an old copy on a superblock of its own");
        assert_eq!(directory((0, 40), "srv:/xy"), None);
        assert_eq!(directory((0, 40), "other:/x"), None);
        assert_eq!(volumes().of_source("another pod", None, b"srv:/x"), None);
    }

    #[test]
    fn volumes_of_one_name_are_told_apart_by_their_superblock_or_not_at_all() {
        assert_eq!(directory((0, 50), "s3").as_deref(), Some("pv-3"));
        assert_eq!(directory((0, 51), "s3").as_deref(), Some("pv-4"));
        assert_eq!(directory((0, 60), "s3"), None);
    }

    #[test]
    fn the_directory_that_is_mounted_is_read_from_source_or_root() {
        let volumes = volumes();
        let nfs = volumes.of_directory(UID, "pv-1").unwrap();
        assert_eq!(nfs.directory_of(b"srv:/x/sub/deeper", b"/"), b"sub/deeper");
        assert_eq!(nfs.directory_of(b"srv:/x", b"/"), b"");
        let fuse = volumes.of_directory(UID, "pv-3").unwrap();
        assert_eq!(fuse.directory_of(b"s3", b"/dir/sub"), b"sub");
        assert_eq!(fuse.directory_of(b"s3", b"/elsewhere"), b"");
    }
}
