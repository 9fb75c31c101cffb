//! What a real server refuses (422).

use serde_json::Value;

use super::answers::{self, Answer};
use super::resources::Resource;

/// Why this object cannot be stored.
pub(super) fn refuses(resource: Resource, object: &Value) -> Option<Answer> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let (field, reason, message) = match resource.plural {
        "events" if resource.api_version == "v1" => core_event(object),
        "events" => event(object),
        "nodemounts" => node_mounts(object),
        _ => None,
    }
    .or_else(|| bad_name(name))?;
    Some(answers::invalid(resource.kind, name, field, reason, &message))
}

type Complaint = (&'static str, &'static str, String);

fn required(field: &'static str) -> Complaint {
    (field, "FieldValueRequired", "Required value".to_owned())
}

fn bad_name(name: &str) -> Option<Complaint> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let bad = name.is_empty() || name.len() > 253 || !name.chars().all(fine) || name.starts_with(['-', '.']);
    bad.then(|| {
        let words = format!("Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case ...");
        ("metadata.name", "FieldValueInvalid", words)
    })
}

/// `ValidateEventCreate` of `pkg/apis/core/validation/events.go`, for events.k8s.io/v1.
fn event(event: &Value) -> Option<Complaint> {
    if event["eventTime"].as_str().is_none_or(|time| humantime::parse_rfc3339(time).is_err()) {
        return Some(required("eventTime"));
    }
    for (field, most) in
        [("reportingController", 63 + 253), ("reportingInstance", 128), ("action", 128), ("reason", 128)]
    {
        match event[field].as_str() {
            None | Some("") => return Some(required(field)),
            Some(text) if text.len() > most => {
                return Some((field, "FieldValueInvalid", format!("can have at most {most} characters")));
            }
            Some(_) => {}
        }
    }
    if event["note"].as_str().is_some_and(|note| note.len() > 1024) {
        return Some(("note", "FieldValueInvalid", "can have at most 1024 characters".to_owned()));
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        return Some(("type", "FieldValueInvalid", format!("Invalid value: {}", event["type"])));
    }
    place(event, "regarding")
}

fn core_event(event: &Value) -> Option<Complaint> {
    place(event, "involvedObject")
}

/// Events about what has no namespace lie in `default`, all others beside what they are about.
fn place(event: &Value, about: &'static str) -> Option<Complaint> {
    let about_namespace = event[about]["namespace"].as_str().unwrap_or_default();
    let expected = if about_namespace.is_empty() { "default" } else { about_namespace };
    let own = event["metadata"]["namespace"].as_str().unwrap_or_default();
    (own != expected).then(|| {
        let words = format!("Invalid value: {about_namespace:?}: does not match event.namespace");
        ("involvedObject.namespace", "FieldValueInvalid", words)
    })
}

/// The bounds of the CRD's schema.
fn node_mounts(object: &Value) -> Option<Complaint> {
    for (field, most) in [("mounts", 100), ("requests", 200), ("servers", 100)] {
        let many = object["status"][field].as_array().map_or(0, Vec::len);
        if many > most {
            return Some(("status", "FieldValueTooMany", format!("{field}: must have at most {most} items")));
        }
    }
    None
}
