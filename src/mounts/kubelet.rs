//! The kubelet's paths.

use std::path::Path;

/// UID of the pod in a path below the kubelet's directory, of its volumes and subPaths.
#[must_use]
pub fn pod_uid(path: &Path) -> Option<String> {
    let mut parts = path.iter();
    parts.find(|part| *part == "pods")?;
    let uid = parts.next()?.to_str()?;
    let below = parts.next()?;
    let volumes = below == "volumes" || below == "volume-subpaths" || below == "volumeDevices";
    (volumes && uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'))
        .then(|| uid.to_owned())
}

/// A path of a pod's volume itself: subPaths are further mounts of one.
#[must_use]
pub fn is_volume(path: &Path) -> bool {
    pod_uid(path).is_some() && path.iter().any(|part| part == "volumes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_of_pods_have_a_pod() {
        const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
        for below in ["volumes/kubernetes.io~nfs/data", "volume-subpaths/data/app/0", "volumeDevices/x"] {
            let path = format!("/var/lib/kubelet/pods/{UID}/{below}");
            assert_eq!(pod_uid(Path::new(&path)).as_deref(), Some(UID), "{path}");
        }
        for path in
            ["/mnt/pods/short/volumes/x", "/srv/data", "/pods", &format!("/var/lib/kubelet/pods/{UID}/etc-hosts")]
        {
            assert_eq!(pod_uid(Path::new(path)), None, "{path}");
        }
    }
}
