//! A cause in words for somebody who is woken by it, and what to do about it, where nothing is mounted yet. Pure.
//!
//! Of a mount that exists, [`advice`](crate::verdict::advice) says what to do.

use std::net::SocketAddr;

use crate::verdict::Cause;
use crate::verdict::advice::shell_quote;

/// What the sentences are made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Name or address, without brackets.
    pub server: &'a str,
    /// Path on the server.
    pub export: &'a str,
    /// What was asked.
    pub address: Option<SocketAddr>,
    /// It is an EFS file system.
    pub efs: bool,
}

impl Facts<'_> {
    pub(super) fn at(&self) -> String {
        self.address
            .map_or_else(|| self.server.to_owned(), |address| format!("{} port {}", address.ip(), address.port()))
    }

    fn port(&self) -> u16 {
        self.address.map_or(2049, |address| address.port())
    }

    fn quoted(&self) -> String {
        shell_quote(self.server)
    }
}

/// What is the matter, in a sentence or two without a technical term that is not explained.
#[must_use]
pub fn plain(cause: Cause, facts: &Facts<'_>) -> String {
    let at = facts.at();
    match cause {
        Cause::ServerUnreachable => format!(
            "Nothing answers at {at}: the packets are lost on the way. The machine is off, or there is no way to it, or a firewall or security group in between drops them."
        ),
        Cause::ServerRefused => format!(
            "The machine is there and says that nobody listens at {at}: its file service is not running, is on another port, or a firewall rejects this host."
        ),
        Cause::ServerUnresponsive => format!(
            "The machine takes connections at {at}, but its file service leaves calls unanswered, or only writes: it is stuck or overloaded, or waits for its disk or for a helper (mountd)."
        ),
        Cause::ServerRecovering => "The server restarted a moment ago and serves again in a minute or two.".to_owned(),
        Cause::DnsFailed => {
            format!(
                "This host finds no address for the name {}: so there is nothing that it could mount from.",
                facts.server
            )
        }
        Cause::AddressChanged => {
            format!("{} has moved to another address, and the mount still talks to the old one.", facts.server)
        }
        Cause::ExportGone => format!(
            "The server is up and does not give {} to this host: the path is not exported (any more), is misspelt, or this host's address is not among its clients.",
            facts.export
        ),
        Cause::HandleInvalid => "The mounted directory was deleted or replaced on the server.".to_owned(),
        Cause::FilesystemReplaced => "Another filesystem stands where the mounted one was.".to_owned(),
        Cause::ClientStuck => "The server serves this very directory, and this host's mount of it is stuck.".to_owned(),
        Cause::ProxyDead => "The local program that encrypts the traffic of this mount is gone.".to_owned(),
        Cause::ExportReadonly => "The server gives it to this host for reading only.".to_owned(),
        Cause::MountedReadonly => "It is mounted for reading only on this host.".to_owned(),
        Cause::RootSquashed => {
            "The server takes root of this host for nobody, and nobody may not write there.".to_owned()
        }
        Cause::Permission => "Owner and mode of what is there keep this user out.".to_owned(),
        Cause::Quota => "The user who writes there has used up what the server allows him.".to_owned(),
        Cause::OutOfSpace => "No space is left in the filesystem behind it.".to_owned(),
        Cause::OutOfInodes => "The filesystem behind it can hold no more files.".to_owned(),
        Cause::IoError => "Reading or writing there ends in an error of the disk.".to_owned(),
        Cause::DataMismatch => "What was written there was not what came back.".to_owned(),
        other => format!("The cause is {other}.", other = other.as_str()),
    }
}

/// The sentence of a rule without the name of the empty call.
#[must_use]
pub fn untechnical(why: &str) -> String {
    why.replace("answers NULL", "answers an empty call")
}

/// What to do about it before anything is mounted.
#[must_use]
pub fn todo(cause: Cause, facts: &Facts<'_>) -> Vec<String> {
    let (server, port) = (facts.quoted(), facts.port());
    let test = format!(
        "See whether it works with `nc -vz -w 3 {server} {port}` from this host; then the pod mounts by itself (the kubelet tries again)."
    );
    match cause {
        Cause::ServerUnreachable if facts.efs => vec![
            format!("Look at the security group of the file system's mount target: it must let TCP {port} in from this node's security group."),
            "See that there is a mount target in this node's availability zone (`aws efs describe-mount-targets --file-system-id FS`).".to_owned(),
            test,
        ],
        Cause::ServerUnreachable => vec![
            "Is the server's machine up? Look at its console, not over the network.".to_owned(),
            format!("Does every firewall and security group in between let TCP {port} through, from this host to the server?"),
            test,
        ],
        Cause::ServerRefused => vec![
            "On the server: `systemctl status nfs-server` (or what its file service is called); start it, and read its log for why it ended.".to_owned(),
            format!("If it listens elsewhere, give the port: `-o port=N` here, mountOptions in the PersistentVolume. {test}"),
        ],
        Cause::ServerUnresponsive => vec![
            "On the server: look for a full or dead disk (`dmesg -T | tail -n 50`), for load, and for helpers that are stuck (`systemctl status nfs-server nfs-mountd rpcbind`).".to_owned(),
            "If the file service hangs for good, restart it: clients go on by themselves.".to_owned(),
        ],
        Cause::DnsFailed if facts.efs => vec![
            "The name of a file system leads somewhere only inside its VPC, from a zone that has a mount target, with DNS resolution and DNS hostnames of the VPC switched on: look at all three, and at the region (--region).".to_owned(),
            format!("Repair it until `getent ahosts {server}` prints an address on this host."),
        ],
        Cause::DnsFailed => vec![
            format!("Is the name spelt right? Repair DNS or /etc/hosts until `getent ahosts {server}` prints an address on this host."),
            "In Kubernetes names of mounts are resolved by the node, not by the cluster's DNS: `NAME.svc.cluster.local` works there only if the node's resolver knows it; use the Service's clusterIP.".to_owned(),
        ],
        Cause::ExportGone => vec![
            format!("On the server compare `exportfs -v` with what is asked for, {}: is the path there, and this host's address among its clients?", shell_quote(facts.export)),
            "If the server exports with a root of its own (fsid=0), NFSv4 paths begin below that: `/srv/data` may be `/data` or `/`.".to_owned(),
            "Correct /etc/exports and run `exportfs -ra` there, or correct the path in the PersistentVolume; the kubelet tries again by itself.".to_owned(),
        ],
        Cause::ServerRecovering => vec!["Wait for 2 minutes, then ask again.".to_owned()],
        _ => vec!["Look at the failed steps above, the first one first.".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_words_and_commands_are_quoted() {
        let facts = Facts { server: "a'b", export: "/x y", address: None, efs: false };
        for cause in Cause::ALL {
            assert!(!plain(*cause, &facts).is_empty() && !todo(*cause, &facts).is_empty());
        }
        let todo = todo(Cause::ExportGone, &facts).join(" ");
        assert!(todo.contains("'/x y'"), "{todo}");
        assert!(
            super::todo(Cause::DnsFailed, &facts)[0].contains(r"getent ahosts 'a'\''b'"),
            "{}",
            super::todo(Cause::DnsFailed, &facts)[0]
        );
    }
}
