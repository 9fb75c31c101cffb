//! Where a name leads now, by the host's resolver.
//!
//! The mount helpers call getaddrinfo, with all that the host's nsswitch.conf, /etc/hosts and search domains make of a
//! name; another resolver library would give other answers than the next mount gets. It blocks, for as long as the
//! resolver's own timeouts say, and cannot be cancelled: it runs in a thread of its own, which waits on sockets only. A few
//! may wait at a time; while all do, further names are not asked for and say so.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dns_lookup::LookupErrorKind;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Addresses that are kept of a name.
pub const KEPT: usize = 64;

/// Lookups at a time. A thread that waits costs its stack (some ten KiB touched) and a socket.
const IN_FLIGHT: usize = 4;

/// Longest name: what DNS allows with a dot at the end.
const MAX_NAME: usize = 254;

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// To these addresses.
    Found {
        /// The first [`KEPT`] different ones, in the resolver's order of preference.
        addresses: Vec<IpAddr>,
        /// Further ones that were left off.
        more: usize,
    },
    /// The resolver answered that there is no such name, or no address for it.
    Gone,
    /// No resolver answered, or one said that it could not tell (SERVFAIL).
    NoAnswer,
    /// Nothing came by our own deadline.
    Timeout,
    /// It could not be asked, and why.
    NotAsked(String),
}

impl Resolution {
    /// The address that the resolver prefers.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        match self {
            Resolution::Found { addresses, .. } => addresses.first().copied(),
            _ => None,
        }
    }

    /// The name leads elsewhere: it was resolved, completely, and the address is not among its addresses.
    #[must_use]
    pub fn excludes(&self, address: IpAddr) -> bool {
        match self {
            Resolution::Found { addresses, more: 0 } => {
                !addresses.is_empty() && !addresses.iter().any(|other| other.to_canonical() == address.to_canonical())
            }
            _ => false,
        }
    }
}

/// The host's resolver.
#[derive(Debug, Clone)]
pub struct Resolver {
    slots: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Resolver { slots: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }
}

impl Resolver {
    /// Resolves a name (or an address, which is its own answer).
    pub async fn resolve(&self, name: &str, deadline: Duration) -> Resolution {
        let lookup = |name: &str| match dns_lookup::lookup_host(name) {
            Ok(addresses) => found(addresses),
            Err(error) => refused(error.kind(), error.error_num()),
        };
        self.resolve_by(name, deadline, lookup).await
    }

    async fn resolve_by<F>(&self, name: &str, deadline: Duration, lookup: F) -> Resolution
    where
        F: FnOnce(&str) -> Resolution + Send + 'static,
    {
        if let Ok(address) = name.parse() {
            return Resolution::Found { addresses: vec![address], more: 0 };
        }
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Resolution::NotAsked("this is no name that DNS could know".to_owned());
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Resolution::NotAsked(format!("{IN_FLIGHT} lookups are still waiting for the resolver"));
        };
        let (sender, receiver) = oneshot::channel();
        let owned = name.to_owned();
        let thread = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = sender.send(lookup(&owned));
            drop(slot);
        });
        if let Err(error) = thread {
            return Resolution::NotAsked(format!("no thread: {error}"));
        }
        match timeout(deadline, receiver).await {
            Ok(Ok(resolution)) => resolution,
            Ok(Err(_)) => Resolution::NotAsked("the lookup ended without an answer".to_owned()),
            Err(_) => Resolution::Timeout,
        }
    }
}

/// The different ones of an answer; getaddrinfo may name an address once for each kind of socket.
fn found(answer: impl Iterator<Item = IpAddr>) -> Resolution {
    let mut seen = HashSet::new();
    let mut addresses: Vec<IpAddr> = answer.filter(|address| seen.insert(*address)).collect();
    let more = addresses.len().saturating_sub(KEPT);
    addresses.truncate(KEPT);
    if addresses.is_empty() { Resolution::Gone } else { Resolution::Found { addresses, more } }
}

fn refused(kind: LookupErrorKind, number: i32) -> Resolution {
    match kind {
        LookupErrorKind::NoName | LookupErrorKind::NoData => Resolution::Gone,
        LookupErrorKind::Again | LookupErrorKind::Fail => Resolution::NoAnswer,
        kind => Resolution::NotAsked(format!("getaddrinfo: {kind:?} ({number})")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    const PATIENT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_localhost_is_known() {
        let resolver = Resolver::default();
        let address = resolver.resolve("192.0.2.7", PATIENT).await;
        assert_eq!(address, Resolution::Found { addresses: vec![Ipv4Addr::new(192, 0, 2, 7).into()], more: 0 });
        let Resolution::Found { addresses, .. } = resolver.resolve("localhost", PATIENT).await else {
            panic!("localhost is in every /etc/hosts");
        };
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }

    #[tokio::test]
    async fn what_is_no_name_is_not_asked_for() {
        let long = "a".repeat(300);
        for name in ["", "a\0b", &long] {
            assert!(matches!(Resolver::default().resolve(name, PATIENT).await, Resolution::NotAsked(_)), "{name:?}");
        }
    }

    #[test]
    fn a_name_with_a_thousand_addresses_costs_a_count() {
        let addresses = (0..1000_u16).flat_map(|host| [Ipv4Addr::new(10, 0, (host >> 8) as u8, (host & 255) as u8); 2]);
        let Resolution::Found { addresses, more } = found(addresses.map(IpAddr::from)) else { panic!("found") };
        assert_eq!(addresses.len(), KEPT);
        assert_eq!(more, 1000 - KEPT);
        let resolution = Resolution::Found { addresses, more };
        assert!(!resolution.excludes(Ipv4Addr::new(10, 9, 9, 9).into()), "it may be among those left off");
    }

    #[test]
    fn gone_is_told_from_silence() {
        let cases = [
            (libc::EAI_NONAME, Resolution::Gone),
            (libc::EAI_NODATA, Resolution::Gone),
            (libc::EAI_AGAIN, Resolution::NoAnswer),
            (libc::EAI_FAIL, Resolution::NoAnswer),
        ];
        for (number, resolution) in cases {
            assert_eq!(refused(LookupErrorKind::new(number), number), resolution);
        }
        assert!(matches!(refused(LookupErrorKind::new(libc::EAI_MEMORY), libc::EAI_MEMORY), Resolution::NotAsked(_)));
    }

    #[test]
    fn only_a_complete_answer_without_the_address_excludes_it() {
        let ours: IpAddr = Ipv4Addr::new(10, 0, 1, 1).into();
        let found = |addresses: Vec<IpAddr>| Resolution::Found { addresses, more: 0 };
        assert!(found(vec![Ipv4Addr::new(10, 0, 1, 2).into()]).excludes(ours));
        assert!(!found(vec![Ipv4Addr::new(10, 0, 1, 1).to_ipv6_mapped().into()]).excludes(ours));
        for other in [Resolution::Gone, Resolution::NoAnswer, Resolution::Timeout] {
            assert!(!other.excludes(ours));
        }
    }

    /// A resolver that never answers costs the deadline, then a slot, and no more than [`IN_FLIGHT`] of them.
    #[tokio::test]
    async fn lookups_that_hang_are_bounded() {
        let resolver = Resolver::default();
        let mut waiting = Vec::new();
        for _ in 0..IN_FLIGHT {
            let (release, released) = mpsc::channel::<()>();
            waiting.push(release);
            let hang = move |_: &str| {
                let _ = released.recv();
                Resolution::NoAnswer
            };
            let answer = resolver.resolve_by("hangs.example", Duration::from_millis(20), hang).await;
            assert_eq!(answer, Resolution::Timeout);
        }
        let full = resolver.resolve_by("next.example", PATIENT, |_| Resolution::Gone).await;
        assert!(matches!(full, Resolution::NotAsked(why) if why.contains("4 lookups")));
        // Addresses need no lookup.
        assert!(matches!(resolver.resolve("::1", PATIENT).await, Resolution::Found { .. }));
        drop(waiting);
        let slots = resolver.slots.acquire_many(u32::try_from(IN_FLIGHT).unwrap());
        assert!(timeout(PATIENT, slots).await.is_ok(), "the slots come back with the threads");
    }
}
