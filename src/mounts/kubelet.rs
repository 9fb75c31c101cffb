//! The kubelet's paths, below any root directory (`/var/lib/kubelet`, k0s, microk8s, a disk of its own).
//!
//! Layout: `pkg/kubelet/kubelet_getters.go` (pods, volumes, volumeDevices, plugins), `pkg/volume/util/subpath` and
//! `pkg/volume/csi` of kubernetes/kubernetes. A volume's directory has the PersistentVolume's name where there is one and
//! the volume's own name otherwise (`volume.Spec.Name()`).

use std::ffi::OsStr;
use std::path::Path;

use crate::mounts::octal;

/// What a path below the kubelet's directory is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KubeletPath {
    /// A volume as the pod gets it: `pods/UID/volumes/PLUGIN/NAME`, for CSI with `/mount` behind it.
    Volume {
        /// The pod.
        pod_uid: String,
        /// Plugin as the API names it (`kubernetes.io/nfs`, `kubernetes.io/csi`, `vendor/driver`).
        plugin: String,
        /// Name of the directory.
        directory: String,
        /// What of the path lies below the volume itself; empty for the volume.
        below: String,
    },
    /// A directory of a volume, mounted for one container: `pods/UID/volume-subpaths/NAME/CONTAINER/INDEX`.
    SubPath {
        /// The pod.
        pod_uid: String,
        /// Name of the volume's directory.
        directory: String,
        /// Name of the container.
        container: String,
    },
    /// A raw block volume: `pods/UID/volumeDevices/PLUGIN/NAME`, or CSI's publish directory.
    Device {
        /// The pod.
        pod_uid: String,
        /// Name of the volume.
        directory: String,
    },
    /// Where a volume is mounted once for all pods of the node: `plugins/kubernetes.io/...`.
    Staging {
        /// Plugin (`kubernetes.io/gce-pd`), for CSI the driver (`efs.csi.aws.com`) where the path has it.
        plugin: String,
        /// Its directory there: the PersistentVolume, or a hash of the volume handle.
        volume: String,
    },
}

impl KubeletPath {
    /// Reads a path; `None` for what is no volume of the kubelet's.
    #[must_use]
    pub fn parse(path: &Path) -> Option<KubeletPath> {
        let parts: Vec<&OsStr> = path.iter().collect();
        // A kubelet root may itself lie below a directory of that name.
        let at = |name: &'static str| parts.iter().enumerate().filter(move |(_, part)| **part == name);
        let pods = at("pods").find_map(|(index, _)| pod_path(parts.get(index + 1..)?));
        pods.or_else(|| at("plugins").find_map(|(index, _)| staging(parts.get(index + 1..)?)))
    }

    /// The pod it belongs to.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            KubeletPath::Volume { pod_uid, .. }
            | KubeletPath::SubPath { pod_uid, .. }
            | KubeletPath::Device { pod_uid, .. } => Some(pod_uid),
            KubeletPath::Staging { .. } => None,
        }
    }

    /// Name of the volume's directory.
    #[must_use]
    pub fn directory(&self) -> &str {
        match self {
            KubeletPath::Volume { directory, .. }
            | KubeletPath::SubPath { directory, .. }
            | KubeletPath::Device { directory, .. } => directory,
            KubeletPath::Staging { volume, .. } => volume,
        }
    }

    /// The directory of a volume that is a mount of its own when all is well: in-tree network plugins, and CSI, whose
    /// drivers publish by mounting. Found on the node's disk, its mount is missing. Flexvolumes and the plugins that only
    /// fill a directory (ConfigMap, emptyDir) prove nothing.
    #[must_use]
    pub fn has_to_be_mounted(&self) -> bool {
        const PLUGINS: [&str; 8] = [
            "kubernetes.io/nfs",
            "kubernetes.io/csi",
            "kubernetes.io/cephfs",
            "kubernetes.io/glusterfs",
            "kubernetes.io/azure-file",
            "kubernetes.io/quobyte",
            "kubernetes.io/iscsi",
            "kubernetes.io/fc",
        ];
        matches!(self, KubeletPath::Volume { plugin, .. } if PLUGINS.contains(&plugin.as_str()))
    }
}

/// What follows `pods/`.
fn pod_path(parts: &[&OsStr]) -> Option<KubeletPath> {
    let [uid, kind, rest @ ..] = parts else { return None };
    let pod_uid = uid.to_str().filter(|uid| is_pod_uid(uid))?.to_owned();
    match (kind.to_str()?, rest) {
        ("volumes", [plugin, name, below @ ..]) => {
            let plugin = octal::label(plugin).replacen('~', "/", 1);
            let below = match below {
                [first, more @ ..] if plugin == "kubernetes.io/csi" && *first == "mount" => more,
                all => all,
            };
            let below: Vec<String> = below.iter().map(|part| octal::label(part)).collect();
            Some(KubeletPath::Volume { pod_uid, plugin, directory: octal::label(name), below: below.join("/") })
        }
        ("volume-subpaths", [name, container, _index, ..]) => {
            Some(KubeletPath::SubPath { pod_uid, directory: octal::label(name), container: octal::label(container) })
        }
        ("volumeDevices", [.., name]) => Some(KubeletPath::Device { pod_uid, directory: octal::label(name) }),
        _ => None,
    }
}

/// What follows `plugins/`: `kubernetes.io/csi/DRIVER/HASH/globalmount` (since 1.24), `kubernetes.io/csi/pv/PV/globalmount`
/// (before), `kubernetes.io/csi/volumeDevices/{staging,publish}/PV[/POD]`, `kubernetes.io/PLUGIN/mounts/...`.
fn staging(parts: &[&OsStr]) -> Option<KubeletPath> {
    let text: Vec<String> = parts.iter().map(|part| octal::label(part)).collect();
    let text: Vec<&str> = text.iter().map(String::as_str).collect();
    let stage = |plugin: &str, volume: &str| {
        Some(KubeletPath::Staging { plugin: plugin.to_owned(), volume: volume.to_owned() })
    };
    match text.as_slice() {
        ["kubernetes.io", "csi", "pv", volume, "globalmount", ..] => stage("kubernetes.io/csi", volume),
        ["kubernetes.io", "csi", "volumeDevices", "publish", volume, pod_uid, ..] if is_pod_uid(pod_uid) => {
            Some(KubeletPath::Device { pod_uid: (*pod_uid).to_owned(), directory: (*volume).to_owned() })
        }
        ["kubernetes.io", "csi", "volumeDevices", "staging", volume, ..] => stage("kubernetes.io/csi", volume),
        ["kubernetes.io", "csi", driver, volume, "globalmount", ..] => stage(driver, volume),
        ["kubernetes.io", plugin, "mounts", .., volume] => stage(&format!("kubernetes.io/{plugin}"), volume),
        _ => None,
    }
}

/// A UID of the API server (RFC 9562), or the hash that names a static pod (hex of an MD5: `applyDefaults` of
/// `pkg/kubelet/config`).
#[must_use]
pub fn is_pod_uid(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = || {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        lengths == [8, 4, 4, 4, 12] && text.split('-').all(hex)
    };
    (text.len() == 32 && hex(text)) || uuid()
}

/// UID of the pod in a path below the kubelet's directory, of its volumes, subPaths and devices.
#[must_use]
pub fn pod_uid(path: &Path) -> Option<String> {
    KubeletPath::parse(path)?.pod_uid().map(str::to_owned)
}

/// A path of a pod's volume itself: subPaths are further mounts of one.
#[must_use]
pub fn is_volume(path: &Path) -> bool {
    matches!(KubeletPath::parse(path), Some(KubeletPath::Volume { .. }))
}

#[cfg(test)]
mod tests;
