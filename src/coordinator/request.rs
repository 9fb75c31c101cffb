//! What an agent asks, read from its `NodeMounts`: strictly, since a node may lie.

use super::time::Time;
use crate::cluster::node_mounts::{GateRoot, NodeMounts, RescueRequest, ServerSeen};
use crate::verdict::{Cause, State};

/// Longest text that is taken from a request; Kubernetes allows names of 253 bytes and paths are at most 4096.
const MAX_TEXT: usize = 4096;

/// Requests that are read of one node.
pub const MAX_PER_NODE: usize = crate::cluster::node_mounts::MAX_REQUESTS;

/// What one node reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The node, by the name of its object.
    pub node: String,
    /// The servers of its mounts.
    pub servers: Vec<ServerSeen>,
    /// What its agent asks, at most [`MAX_PER_NODE`].
    pub requests: Vec<Request>,
    /// Requests beyond that, which nobody reads.
    pub left_out: usize,
    /// Requests that cannot be understood.
    pub malformed: Vec<String>,
}

impl NodeView {
    /// Reads an object.
    #[must_use]
    pub fn read(object: &NodeMounts) -> NodeView {
        let node = object.metadata.name.clone().unwrap_or_default();
        let Some(status) = &object.status else { return NodeView { node, ..NodeView::default() } };
        let mut view = NodeView {
            node,
            servers: status.servers.iter().take(crate::cluster::node_mounts::MAX_SERVERS).cloned().collect(),
            left_out: status.requests.len().saturating_sub(MAX_PER_NODE),
            ..NodeView::default()
        };
        for request in status.requests.iter().take(MAX_PER_NODE) {
            match Request::read(request) {
                Ok(request) => view.requests.push(request),
                Err(why) => view.malformed.push(why),
            }
        }
        view
    }

    /// How this node sees a server.
    #[must_use]
    pub fn server(&self, server: &str) -> Option<&ServerSeen> {
        self.servers.iter().find(|seen| seen.server == server)
    }
}

/// A request that can be understood. None of it is believed where it can be read elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// Name of the volume in the pod's specification.
    pub volume: String,
    /// The server as mounted.
    pub server: String,
    /// The exported path.
    pub export: String,
    /// State of the mount.
    pub state: State,
    /// Its cause.
    pub cause: Cause,
    /// Since when.
    pub since: Time,
    /// When the agent last confirmed it.
    pub refreshed: Time,
    /// What the recovery gate saw.
    pub gate: Gate,
}

/// What the recovery gate saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// When the first trial mount answered; `None` where none did.
    pub first: Option<Time>,
    /// When the second one did.
    pub second: Option<Time>,
    /// What a new pod would find.
    pub root: GateRoot,
    /// Names known from before that it has.
    pub names_found: u32,
    /// Names known from before.
    pub names_known: u32,
    /// The agent's own words, for the Event.
    pub words: String,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(request: &RescueRequest) -> Result<Request, String> {
        let texts = [
            ("namespace", &request.namespace),
            ("pod", &request.pod),
            ("uid", &request.uid),
            ("volume", &request.volume),
            ("server", &request.server),
        ];
        for (name, text) in texts {
            if text.is_empty() || text.len() > MAX_TEXT {
                return Err(format!("{name} is empty or too long"));
            }
        }
        let state = word(&State::ALL, State::as_str, &request.state).ok_or("state is no known word")?;
        let cause = word(Cause::ALL, Cause::as_str, &request.cause).ok_or("cause is no known word")?;
        let gate = &request.gate;
        Ok(Request {
            namespace: request.namespace.clone(),
            pod: request.pod.clone(),
            uid: request.uid.clone(),
            volume: request.volume.clone(),
            server: request.server.clone(),
            export: clip(&request.export),
            state,
            cause,
            since: Time::parse(&request.since).ok_or("since is no time")?,
            refreshed: Time::parse(&request.refreshed).ok_or("refreshed is no time")?,
            gate: Gate {
                first: Time::parse(&gate.first_trial),
                second: Time::parse(&gate.second_trial),
                root: gate.root,
                names_found: gate.names_found,
                names_known: gate.names_known,
                words: clip(&gate.words),
            },
        })
    }
}

fn word<T: Copy>(all: &[T], as_str: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|one| as_str(*one) == text)
}

/// Text of an agent for logs and Events: printable, and not long.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node_mounts::{GateReport, NodeMountsSpec, NodeMountsStatus};

    fn asked() -> RescueRequest {
        RescueRequest {
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            uid: "u1".to_owned(),
            volume: "data".to_owned(),
            server: "srv".to_owned(),
            export: "/e".to_owned(),
            state: "stale".to_owned(),
            cause: "handle_invalid".to_owned(),
            since: "2026-11-21T03:00:00Z".to_owned(),
            refreshed: "2026-11-21T03:10:00Z".to_owned(),
            gate: GateReport { first_trial: "2026-11-21T03:09:00Z".to_owned(), ..GateReport::default() },
        }
    }

    #[test]
    fn a_request_is_read_with_what_the_gate_has_so_far() {
        let request = Request::read(&asked()).unwrap();
        assert_eq!((request.state, request.cause), (State::Stale, Cause::HandleInvalid));
        assert_eq!(request.gate.first, Time::parse("2026-11-21T03:09:00Z"));
        assert_eq!(request.gate.second, None);
    }

    #[test]
    fn nonsense_is_named() {
        let say = |change: fn(&mut RescueRequest)| {
            let mut request = asked();
            change(&mut request);
            Request::read(&request).unwrap_err()
        };
        assert_eq!(say(|r| r.state = "dead".to_owned()), "state is no known word");
        assert_eq!(say(|r| r.cause = String::new()), "cause is no known word");
        assert_eq!(say(|r| r.uid = String::new()), "uid is empty or too long");
        assert_eq!(say(|r| r.server = "x".repeat(5000)), "server is empty or too long");
        assert_eq!(say(|r| r.refreshed = "now".to_owned()), "refreshed is no time");
    }

    #[test]
    fn ten_thousand_requests_of_one_node_are_two_hundred() {
        let status = NodeMountsStatus { requests: vec![asked(); 10_000], ..NodeMountsStatus::default() };
        let mut object = NodeMounts::new("n1", NodeMountsSpec {});
        object.status = Some(status);
        let view = NodeView::read(&object);
        assert_eq!((view.node.as_str(), view.requests.len(), view.left_out), ("n1", 200, 9800));
    }

    #[test]
    fn words_of_an_agent_are_clipped_and_printable() {
        let mut request = asked();
        request.gate.words = format!("a\n\u{1b}[31m{}", "x".repeat(10_000));
        let words = Request::read(&request).unwrap().gate.words;
        assert_eq!(words.len(), 512);
        assert!(!words.contains(['\n', '\u{1b}']));
    }
}
