//! Trial mounts of what targets have mounted ([`crate::probe::trial`]): how a new mount of the same would fare now.

use std::net::IpAddr;
use std::time::Duration;

use super::core::Core;
use crate::mounts::Mount;
use crate::probe::pool::Pool;
use crate::probe::trial::{Attempt, TrialReport, TrialSpec, attempt};
use crate::server::dns::{Resolution, Resolver};

/// What a trial mount takes.
#[derive(Debug, Clone)]
pub(super) struct Trials {
    pool: Pool,
    resolver: Resolver,
    deadline: Duration,
}

impl Core {
    /// Trial mounts whose steps have this deadline.
    pub(super) fn trials(&self, deadline: Duration) -> Trials {
        Trials { pool: self.pool.clone(), resolver: self.resolver.clone(), deadline }
    }
}

impl Trials {
    /// At the address that a new mount would find now; `names` are looked up in its root.
    pub(super) async fn anew(&self, mount: &Mount, names: Vec<Vec<u8>>) -> Result<TrialReport, String> {
        let address = self.address(mount).await?;
        self.at(mount, address, names).await
    }

    /// At this address.
    pub(super) async fn at(&self, mount: &Mount, address: IpAddr, names: Vec<Vec<u8>>) -> Result<TrialReport, String> {
        let spec = TrialSpec::of_mount(mount, address).ok_or("only NFS mounts can be tried")?.looking_for(names);
        match attempt(&self.pool, spec, &mount.origin.label, self.deadline).await {
            Attempt::Report(report) => Ok(report),
            other => Err(other.explain(self.deadline).unwrap_or_else(|| "the trial mount said nothing".to_owned())),
        }
    }

    /// The server's address as a new mount would find it.
    async fn address(&self, mount: &Mount) -> Result<IpAddr, String> {
        let Some(name) = mount.origin.server.as_deref() else { return Err("the mount names no server".to_owned()) };
        match self.resolver.resolve(name, self.deadline).await {
            Resolution::Found { addresses, .. } => {
                // The one that is in use, as long as the name still leads to it.
                let same = addresses.iter().find(|address| Some(**address) == mount.origin.address);
                same.or(addresses.first()).copied().ok_or_else(|| format!("{name} leads to no address"))
            }
            Resolution::Gone => Err(format!("there is no such name as {name}")),
            Resolution::NoAnswer | Resolution::Timeout => Err(format!("no resolver answers for {name}")),
            Resolution::NotAsked(why) => Err(why),
        }
    }
}
