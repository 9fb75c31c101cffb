//! `/proc/PID/cgroup` -> which pod and container a process belongs to, or what else it is.
//!
//! Forms: cgroups(7) for the file; the kubelet's names from `pkg/kubelet/cm` (systemd and cgroupfs drivers); the
//! runtimes' names from containerd (`cri-containerd-ID.scope`), CRI-O (`crio-ID.scope`), Docker (`docker-ID.scope`) and
//! runc. Seen from a private cgroup namespace other processes have relative paths (`/../../kubepods-...`): what is cut
//! off is not known then, and is not guessed.

use crate::mounts::kubelet::is_pod_uid;

/// The class that the kubelet gave a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

/// Who started a container, by the name of its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// `cri-containerd-ID.scope`.
    Containerd,
    /// `crio-ID.scope`.
    CriO,
    /// `docker-ID.scope`, `/docker/ID`: dockerd, below pods by cri-dockerd.
    Docker,
    /// `libpod-ID.scope`.
    Podman,
}

/// Whose a process is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A process of a pod.
    Pod {
        /// UID; for static pods the hash of their manifest.
        uid: String,
        /// The container; `None` for helpers of the runtime that sit in the pod's own cgroup.
        container: Option<String>,
        /// Where the name says it.
        qos: Option<Qos>,
        /// Where the name says it.
        runtime: Option<Runtime>,
    },
    /// A container outside of any pod.
    Container {
        /// Id.
        id: String,
        /// Where the name says it.
        runtime: Option<Runtime>,
    },
    /// An LXC or Incus container.
    Lxc(String),
    /// A machine of systemd-machined.
    Machine(String),
    /// A unit of systemd: a service, scope or session.
    Unit(String),
    /// Anything else; the path.
    Other(String),
}

impl Owner {
    /// Reads the whole file. The hierarchy that says most counts: on cgroup v1 only some are delegated.
    #[must_use]
    pub fn parse(file: &[u8]) -> Owner {
        let mut best = Owner::Other(String::new());
        for line in file.split(|&byte| byte == b'\n') {
            // `ID:CONTROLLERS:PATH`; a path may hold colons.
            let Some(path) = line.splitn(3, |&byte| byte == b':').nth(2) else { continue };
            let owner = of_path(&String::from_utf8_lossy(path));
            if rank(&owner) > rank(&best) {
                best = owner;
            }
        }
        best
    }

    /// In words, for people: who holds something.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Owner::Pod { uid, container: Some(id), .. } => format!("pod {uid} container {}", short(id)),
            Owner::Pod { uid, .. } => format!("pod {uid}"),
            Owner::Container { id, .. } => format!("container {}", short(id)),
            Owner::Lxc(name) => format!("lxc {name}"),
            Owner::Machine(name) => format!("machine {name}"),
            Owner::Unit(name) => name.clone(),
            Owner::Other(path) if path.is_empty() || path == "/" => "a process".to_owned(),
            Owner::Other(path) => path.clone(),
        }
    }
}

/// As `crictl` and `docker` show ids.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn rank(owner: &Owner) -> u8 {
    match owner {
        Owner::Pod { container: Some(_), .. } => 6,
        Owner::Pod { .. } => 5,
        Owner::Container { .. } => 4,
        Owner::Lxc(_) | Owner::Machine(_) => 3,
        Owner::Unit(_) => 2,
        Owner::Other(path) => u8::from(!path.is_empty() && path != "/"),
    }
}

fn of_path(path: &str) -> Owner {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    if let Some(owner) = of_pod(&parts) {
        return owner;
    }
    let container = parts.iter().enumerate().find_map(|(index, part)| {
        let under_docker = index.checked_sub(1).and_then(|above| parts.get(above)) == Some(&"docker");
        let (id, runtime) = container(part)?;
        Some(Owner::Container { id, runtime: runtime.or(under_docker.then_some(Runtime::Docker)) })
    });
    container.or_else(|| outside(&parts)).unwrap_or_else(|| Owner::Other(path.to_owned()))
}

fn of_pod(parts: &[&str]) -> Option<Owner> {
    let (index, pod) = parts.iter().enumerate().find_map(|(index, part)| {
        let above = index.checked_sub(1).and_then(|above| parts.get(above)).copied();
        Some((index, slice(part).or_else(|| directory(part, above))?))
    })?;
    let Pod { uid, qos, inline } = pod;
    // The outermost container: what runs containers of its own in there is still that one.
    let below = parts.iter().skip(index + 1).find_map(|part| container(part));
    let (container, runtime) = match inline.or(below) {
        Some((id, runtime)) => (Some(id), runtime),
        None => (None, None),
    };
    Some(Owner::Pod { uid, container, qos, runtime })
}

struct Pod {
    uid: String,
    qos: Option<Qos>,
    /// `SLICE:cri-containerd:ID`: the kubelet's systemd driver over a containerd that uses cgroupfs.
    inline: Option<(String, Option<Runtime>)>,
}

/// The systemd driver: `[PREFIX-]kubepods[-QOS]-podUID.slice`, dashes of the UID as underscores.
fn slice(part: &str) -> Option<Pod> {
    let (name, rest) = part.split_once(".slice")?;
    let (front, uid) = name.rsplit_once("-pod")?;
    let front = front.strip_suffix("-").unwrap_or(front);
    let qos = match front.rsplit('-').next()? {
        "besteffort" => Qos::BestEffort,
        "burstable" => Qos::Burstable,
        "kubepods" => Qos::Guaranteed,
        _ => return None,
    };
    if !front.split('-').any(|word| word == "kubepods") {
        return None;
    }
    let uid = uid.replace('_', "-");
    let inline = rest.strip_prefix(':').and_then(|rest| {
        let (prefix, id) = rest.split_once(':')?;
        Some((hex_id(id)?, runtime(prefix)))
    });
    is_pod_uid(&uid).then_some(Pod { uid, qos: Some(qos), inline })
}

/// The cgroupfs driver: `kubepods[/QOS]/podUID`; `above` is the directory before it, if the path shows it.
fn directory(part: &str, above: Option<&str>) -> Option<Pod> {
    let uid = part.strip_prefix("pod").filter(|uid| is_pod_uid(uid))?;
    let qos = match above {
        Some("besteffort") => Some(Qos::BestEffort),
        Some("burstable") => Some(Qos::Burstable),
        Some(above) if above == "kubepods" || above.ends_with("-kubepods") => Some(Qos::Guaranteed),
        _ => None,
    };
    Some(Pod { uid: uid.to_owned(), qos, inline: None })
}

/// A component that names a container: `PREFIX-ID.scope`, `PREFIX-ID`, `ID`. CRI-O's `crio-conmon-ID` is the monitor, which
/// runs in the host's mount namespace and is none.
fn container(part: &str) -> Option<(String, Option<Runtime>)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some(id) = hex_id(name) {
        return Some((id, None));
    }
    let (prefix, id) = name.rsplit_once(['-', '_'])?;
    let id = hex_id(id)?;
    if prefix.ends_with("conmon") {
        return None;
    }
    Some((id, runtime(prefix)))
}

fn runtime(prefix: &str) -> Option<Runtime> {
    match prefix {
        "cri-containerd" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" => Some(Runtime::Podman),
        _ => None,
    }
}

/// Runtimes make ids of 64 hexadecimal digits.
fn hex_id(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// What is no container of a runtime: LXC, machined, units of systemd.
fn outside(parts: &[&str]) -> Option<Owner> {
    let lxc = parts.iter().enumerate().find_map(|(index, part)| match *part {
        "lxc" => parts.get(index + 1).map(|name| (*name).to_owned()),
        part => part.strip_prefix("lxc.payload.").map(str::to_owned),
    });
    if let Some(name) = lxc {
        return Some(Owner::Lxc(name));
    }
    let machine = |part: &&&str| part.starts_with("machine-") && part.ends_with(".scope");
    if let Some(scope) = parts.iter().find(machine) {
        return Some(Owner::Machine(scope.to_string()));
    }
    let unit = |part: &&&str| part.ends_with(".service") || part.ends_with(".scope");
    // The outermost unit is the one that `systemctl` of the host knows.
    parts.iter().find(unit).map(|unit| Owner::Unit((*unit).to_owned()))
}

#[cfg(test)]
mod tests;
