//! One look at everything that speaks for or against the release of a pod's mounts and that only a worker may read: the
//! processes of all pods in question, everybody's mount tables, and the connections to servers.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::localfs;
use crate::mounts::Dev;
use crate::remedy::connections::{self, Connection};
use crate::remedy::holders::{self, Held};
use crate::remedy::processes::{self, Left};

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveySpec {
    /// Where proc is mounted.
    pub proc_root: Vec<u8>,
    /// Pods whose processes are counted.
    pub uids: Vec<String>,
    /// Superblocks whose mounts are listed.
    pub devs: Vec<Dev>,
}

/// What was seen; each part, or why it could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Processes of the pods, in the order of [`SurveySpec::uids`].
    pub left: Result<Vec<Left>, String>,
    /// All mounts of the superblocks, in all mount namespaces.
    pub held: Result<Vec<Held>, String>,
    /// TCP connections of the host.
    pub connections: Result<Vec<Connection>, String>,
}

/// Looks.
#[must_use]
pub fn run(spec: &SurveySpec) -> Survey {
    let root = Path::new(OsStr::from_bytes(&spec.proc_root));
    let words = |error: io::Error| error.to_string();
    Survey {
        left: processes::left_of(root, &spec.uids).map_err(words),
        held: holders::held(root, &spec.devs).map_err(words),
        connections: host_connections(root),
    }
}

/// Of PID 1's network namespace: the kubelet mounts there.
fn host_connections(root: &Path) -> Result<Vec<Connection>, String> {
    let mut all = Vec::new();
    for (name, must_be) in [("1/net/tcp", true), ("1/net/tcp6", false)] {
        let file = root.join(name);
        match localfs::read_kernel_file(&file) {
            Ok(bytes) => all.extend(connections::parse(&bytes)?),
            // A kernel without IPv6.
            Err(error) if !must_be && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    // What nobody asks for is left out: a busy node has tens of thousands.
    all.retain(Connection::is_up);
    all.sort_unstable_by_key(|connection| (connection.remote, connection.state));
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_surveyed() {
        let spec = SurveySpec { proc_root: b"/proc".to_vec(), uids: vec!["no-such-pod".to_owned()], devs: Vec::new() };
        let survey = run(&spec);
        assert_eq!(survey.left, Ok(vec![Left::default()]));
        assert!(survey.connections.is_ok(), "{survey:?}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let spec = SurveySpec { proc_root: b"/nonexistent".to_vec(), uids: Vec::new(), devs: Vec::new() };
        let survey = run(&spec);
        let all = [survey.left.err(), survey.held.err(), survey.connections.err()];
        assert!(all.iter().all(|error| error.as_ref().is_some_and(|text| text.starts_with("/nonexistent"))), "{all:?}");
    }
}
