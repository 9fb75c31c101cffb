//! Who leads: a Lease of `coordination.k8s.io/v1`, by hand, because what matters is the other half: **when a leader must
//! stop**. (kube-lease-manager and kube-leader-election tell that one leads, not for how long a call may still take.)
//!
//! No clock of another machine is compared with ours. A holder counts as gone when its Lease has not changed for
//! [`DURATION`] of our own monotonic clock. A leader acts until [`HOLD`] after it *began* its last renewal that
//! succeeded; the difference to [`DURATION`] is longer than a call may take ([`super::client::CALL`]).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use super::client::{CALL, Failure, call};

/// Name of the Lease.
pub const NAME: &str = "mountwarden-coordinator";

/// A Lease that was not renewed for so long may be taken.
pub const DURATION: Duration = Duration::from_secs(20);

/// A leader acts for so long after the start of its last renewal.
pub const HOLD: Duration = Duration::from_secs(12);

/// Time between two renewals, or two looks.
pub const PERIOD: Duration = Duration::from_secs(3);

/// Until when this process may act; `None` when it does not lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held(Option<Instant>);

impl Held {
    /// Whether a call that begins now ends before the Lease can be somebody else's.
    #[must_use]
    pub fn may_act(self, now: Instant) -> bool {
        self.0.is_some_and(|until| now < until)
    }
}

/// What was seen of the Lease, and since when it has looked so by our own clock.
#[derive(Debug, Clone)]
struct Observed {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
}

/// What to do about the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Todo {
    /// It is somebody else's.
    Wait,
    /// Write ourselves in; `true` when it was not ours.
    Write { taken: bool },
}

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    observed: Option<Observed>,
    held: Held,
}

impl Elector {
    /// A candidate of this name, which must be unique.
    #[must_use]
    pub fn new(client: Client, namespace: &str, me: String) -> Elector {
        Elector { api: Api::namespaced(client, namespace), me, observed: None, held: Held::default() }
    }

    /// Looks at the Lease, renews it, or takes it if it may. To be called every [`PERIOD`].
    pub async fn step(&mut self) -> Held {
        let begun = Instant::now();
        match self.campaign(begun).await {
            Ok(true) => self.held = Held(Some(begun + HOLD)),
            Ok(false) => self.held = Held::default(),
            // What was renewed before holds until its end, and not longer.
            Err(failure) => tracing::warn!(lease = NAME, "the Lease could not be looked at or renewed: {failure}"),
        }
        self.held
    }

    /// Gives the Lease up, so that another one need not wait.
    pub async fn resign(&mut self) {
        let was = std::mem::take(&mut self.held);
        if was.0.is_none() {
            return;
        }
        let Ok(Some(mut lease)) = call(self.api.get_opt(NAME)).await else { return };
        if holder(&lease) != self.me {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        // Whoever cannot write it either waits until it has run out.
        let _ = call(self.api.replace(NAME, &PostParams::default(), &lease)).await;
    }

    async fn campaign(&mut self, now: Instant) -> Result<bool, Failure> {
        let Some(mut lease) = call(self.api.get_opt(NAME)).await? else {
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.spec(None, true)),
            };
            return won(call(self.api.create(&PostParams::default(), &fresh)).await);
        };
        match self.judge(&lease, now) {
            Todo::Wait => Ok(false),
            Todo::Write { taken } => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), taken));
                // The version that was read goes along: of two that take it at once, one is refused.
                won(call(self.api.replace(NAME, &PostParams::default(), &lease)).await)
            }
        }
    }

    fn judge(&mut self, lease: &Lease, now: Instant) -> Todo {
        let holder = holder(lease);
        if holder == self.me {
            return Todo::Write { taken: false };
        }
        if holder.is_empty() {
            return Todo::Write { taken: true };
        }
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let same = self.observed.as_ref().filter(|seen| seen.holder == holder && seen.renewed == renewed);
        let since = same.map_or(now, |seen| seen.since);
        self.observed = Some(Observed { holder: holder.to_owned(), renewed, since });
        if now.duration_since(since) > DURATION { Todo::Write { taken: true } } else { Todo::Wait }
    }

    fn spec(&self, old: Option<&LeaseSpec>, taken: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = old.and_then(|spec| spec.acquire_time.clone()).filter(|_| !taken);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(taken && old.is_some()))),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// 409: somebody else was faster.
fn won<T>(written: Result<T, Failure>) -> Result<bool, Failure> {
    match written {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == 409 => Ok(false),
        Err(failure) => Err(failure),
    }
}

const _: () = assert!(HOLD.as_secs() + 2 * CALL.as_secs() <= DURATION.as_secs(), "a call could outlive the Lease");
