//! What goes wrong on request.

use std::time::Duration;

use serde_json::{Value, json};

use super::Asked;
use super::answers::{self, Answer};

/// Which requests: all of those, whose method, path and kind are as said.
#[derive(Debug, Clone, Default)]
pub struct On {
    /// GET, POST, PATCH, PUT, DELETE; none: any.
    pub method: Option<&'static str>,
    /// Words that the path contains.
    pub path: &'static str,
    /// Watches only, or all but watches.
    pub watch: Option<bool>,
}

impl On {
    /// Every request.
    pub const ALL: On = On { method: None, path: "", watch: None };

    /// Those with these words in their path.
    pub fn path(path: &'static str) -> On {
        On { path, ..On::ALL }
    }

    /// Those with this method and these words in their path.
    pub fn method(method: &'static str, path: &'static str) -> On {
        On { method: Some(method), path, watch: None }
    }

    /// Watches of this resource.
    pub fn watch(path: &'static str) -> On {
        On { method: Some("GET"), path, watch: Some(true) }
    }

    /// Lists and gets of this resource.
    pub fn read(path: &'static str) -> On {
        On { method: Some("GET"), path, watch: Some(false) }
    }

    fn matches(&self, asked: &Asked) -> bool {
        self.method.is_none_or(|method| method == asked.method)
            && asked.path.contains(self.path)
            && self.watch.is_none_or(|watch| watch == asked.is_watch())
    }
}

/// What they get.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The server's own words for 401, 403, 404, 409, 410, 422, 429, 500, 503.
    Status(u16),
    /// 429 of priority and fairness, with `Retry-After`.
    TooMany {
        /// Seconds.
        retry_after: u64,
    },
    /// This status with this text, as a proxy in between answers.
    Page(u16, &'static str),
    /// 200 with this object, whatever was asked.
    Other(Value),
    /// The connection is cut without an answer.
    Reset,
    /// The answer is cut (RST) in the middle of its first line.
    Cut,
    /// Never an answer.
    Silent,
    /// A watch that never says anything after its header; anything else: never an answer.
    Mute,
    /// The answer comes so much later.
    Slow(Duration),
}

/// How the answer to a request is changed.
pub(super) enum Way {
    Answer(Answer, Option<u64>),
    Page(u16, &'static str),
    Reset,
    Cut,
    Silent,
    Mute,
    Slow(Duration),
}

/// The faults in force; the first that matches counts.
#[derive(Default)]
pub(super) struct Faults(Vec<(On, Fault, Option<usize>)>);

impl Faults {
    pub(super) fn add(&mut self, on: On, fault: Fault, times: Option<usize>) {
        self.0.push((on, fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What this request gets.
    pub(super) fn hit(&mut self, asked: &Asked) -> Option<Way> {
        let left = |times: &Option<usize>| times.is_none_or(|left| left > 0);
        let (_, fault, times) = self.0.iter_mut().find(|(on, _, times)| left(times) && on.matches(asked))?;
        *times = times.map(|left| left - 1);
        Some(match fault.clone() {
            Fault::Status(code) => Way::Answer(status(code, asked), None),
            Fault::TooMany { retry_after } => Way::Answer(throttled(Some(retry_after)), Some(retry_after)),
            Fault::Page(code, text) => Way::Page(code, text),
            Fault::Other(object) => Way::Answer((200, object), None),
            Fault::Reset => Way::Reset,
            Fault::Cut => Way::Cut,
            Fault::Silent => Way::Silent,
            Fault::Mute => Way::Mute,
            Fault::Slow(time) => Way::Slow(time),
        })
    }
}

fn throttled(retry_after: Option<u64>) -> Answer {
    let (code, mut body) = answers::failure(429, "TooManyRequests", "Too many requests, please try again later.");
    if let Some(seconds) = retry_after {
        body["details"] = json!({"retryAfterSeconds": seconds});
    }
    (code, body)
}

/// The API's word for what is asked of this place.
pub(super) fn verb(asked: &Asked, place: &super::resources::Place) -> &'static str {
    match (asked.method.as_str(), asked.is_watch()) {
        (_, true) => "watch",
        ("GET", _) if place.name.is_some() => "get",
        ("GET", _) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        _ => "delete",
    }
}

fn status(code: u16, asked: &Asked) -> Answer {
    let place = super::resources::place(&asked.path);
    let name = place.as_ref().and_then(|place| place.name.clone()).unwrap_or_default();
    let Some(place) = place else { return answers::no_such_path() };
    let verb = verb(asked, &place);
    let what = match &place.subresource {
        Some(sub) => format!("{}/{sub}", place.resource.plural),
        None => place.resource.plural.to_owned(),
    };
    match code {
        401 => answers::unauthorized(),
        403 => answers::forbidden("mountwarden-agent", verb, &what, place.resource.group(), place.namespace.as_deref()),
        404 => answers::no_such_path(),
        409 => answers::conflict(place.resource, &name),
        410 => answers::expired_list(),
        422 => answers::invalid(place.resource.kind, &name, "spec", "FieldValueInvalid", "Invalid value"),
        429 => throttled(None),
        500 => answers::failure(500, "InternalError", "Internal error occurred: etcdserver: request timed out"),
        503 => answers::failure(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
        other => answers::failure(other, "Unknown", "unknown"),
    }
}
