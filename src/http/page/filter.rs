//! What a person wants to see, from the query of the page's address.

use crate::snapshot::{MountStatus, PendingVolume};
use crate::verdict::{Severity, State};

/// Longest text that is searched for; a longer one is cut.
const LONGEST: usize = 256;

/// What is shown of the mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A state, or a class of states (`dead`, `degraded`); empty: all.
    pub state: String,
    /// A server as mounted; empty: all.
    pub server: String,
    /// Something in a path, a source, a cause, a pod or a volume; empty: all.
    pub text: String,
}

impl Filter {
    /// Reads `state=...&server=...&q=...`; what it does not know is left out.
    #[must_use]
    pub fn of_query(query: Option<&str>) -> Filter {
        let mut filter = Filter::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let value: String = value.trim().chars().take(LONGEST).collect();
            match key.as_ref() {
                "state" if known(&value) => filter.state = value,
                "server" => filter.server = value,
                "q" => filter.text = value,
                _ => {}
            }
        }
        filter
    }

    /// Everything is shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// The query that leads back here.
    #[must_use]
    pub fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (key, value) in [("state", &self.state), ("server", &self.server), ("q", &self.text)] {
            if !value.is_empty() {
                query.append_pair(key, value);
            }
        }
        query.finish()
    }

    pub(super) fn admits(&self, mount: &MountStatus) -> bool {
        self.admits_state(mount) && self.admits_server(mount) && self.admits_text(mount)
    }

    /// A volume that is not mounted yet has no state.
    pub(super) fn admits_pending(&self, pending: &PendingVolume) -> bool {
        let wanted = self.text.to_lowercase();
        let name = format!("{}/{}", pending.namespace, pending.pod);
        let cause = pending.cause.map_or("", |cause| cause.as_str());
        let words = [&name, &pending.volume, &pending.source, cause, pending.claim.as_deref().unwrap_or_default()];
        self.state.is_empty()
            && (self.server.is_empty() || pending.source.starts_with(&format!("{}:", self.server)))
            && words.iter().any(|word| word.to_lowercase().contains(&wanted))
    }

    fn admits_state(&self, mount: &MountStatus) -> bool {
        self.state.is_empty() || self.state == mount.state.as_str() || self.state == severity_word(mount.severity())
    }

    fn admits_server(&self, mount: &MountStatus) -> bool {
        self.server.is_empty() || self.server == server_of(mount)
    }

    fn admits_text(&self, mount: &MountStatus) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let wanted = self.text.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let user = |user: &crate::snapshot::MountUser| {
            let named = [&user.namespace, &user.pod, &user.claim, &user.container].into_iter().flatten();
            has(&user.volume) || has(&user.pod_uid) || named.into_iter().any(|name| has(name)) || has(&user.pod_label())
        };
        has(&mount.mountpoint)
            || has(&mount.source)
            || has(&mount.fstype)
            || mount.cause.is_some_and(|cause| has(cause.as_str()))
            || mount.paths.iter().any(|path| has(path))
            || mount.users.iter().any(user)
            || mount.volumes.iter().any(|volume| has(&volume.persistent_volume) || has(&volume.claim))
    }
}

/// The server as mounted; the source where there is none.
pub(super) fn server_of(mount: &MountStatus) -> &str {
    mount.origin.server.as_deref().unwrap_or(&mount.source)
}

pub(super) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Healthy => "healthy",
        Severity::Degraded => "degraded",
        Severity::Dead => "dead",
        Severity::Unknown => "unknown",
    }
}

fn known(state: &str) -> bool {
    matches!(state, "dead" | "degraded") || State::ALL.iter().any(|known| known.as_str() == state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_written() {
        let filter = Filter::of_query(Some("state=hung&server=10.0.0.5&q=shop%2Fweb+0&x=y"));
        assert_eq!(
            (filter.state.as_str(), filter.server.as_str(), filter.text.as_str()),
            ("hung", "10.0.0.5", "shop/web 0")
        );
        assert_eq!(Filter::of_query(Some(&filter.query())), filter);
        assert!(Filter::of_query(None).is_empty() && Filter::of_query(Some("state=&q=+&server=")).is_empty());
    }

    #[test]
    fn nonsense_shows_everything() {
        assert!(Filter::of_query(Some("state=<script>&%zz&&==")).is_empty());
        assert_eq!(Filter::of_query(Some(&format!("q={}", "a".repeat(5000)))).text.len(), LONGEST);
    }
}
