//! Answers in the shapes that were recorded from a real server.

use serde_json::{Value, json};

use super::resources::Resource;

/// Status and body.
pub(super) type Answer = (u16, Value);

/// Body of a recorded answer.
macro_rules! recorded {
    ($name:literal) => {{
        let recording = include_str!(concat!("../../fixtures/api/", $name, ".json"));
        let recording: Value = serde_json::from_str(recording).unwrap();
        recording["response"]["body"].clone()
    }};
}

/// A Status with this much of it replaced.
fn changed(mut body: Value, message: &str, details: Value) -> Answer {
    body["message"] = json!(message);
    if !details.is_null() {
        body["details"] = details;
    }
    (u16::try_from(body["code"].as_u64().unwrap()).unwrap(), body)
}

fn details(resource: Resource, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural});
    if !resource.group().is_empty() {
        details["group"] = json!(resource.group());
    }
    details
}

pub(super) fn unauthorized() -> Answer {
    (401, recorded!("auth-401"))
}

pub(super) fn forbidden(account: &str, verb: &str, what: &str, group: &str, namespace: Option<&str>) -> Answer {
    let place = namespace.map_or("at the cluster scope".to_owned(), |name| format!("in the namespace \"{name}\""));
    let message = format!(
        "{what} is forbidden: User \"system:serviceaccount:mountwarden:{account}\" cannot {verb} resource \"{what}\" in API \
         group \"{group}\" {place}"
    );
    changed(recorded!("rbac-403-list"), &message, json!({"kind": what, "group": group}))
}

pub(super) fn not_found(resource: Resource, name: &str) -> Answer {
    let message = format!("{} \"{name}\" not found", resource.full_name());
    changed(recorded!("eviction-404"), &message, details(resource, name))
}

/// A path that leads nowhere: what a custom resource without its CRD gets. By the source of the server; not recorded.
pub(super) fn no_such_path() -> Answer {
    let message = "the server could not find the requested resource";
    let (code, mut body) = changed(recorded!("eviction-404"), message, json!({}));
    body["details"] = json!({});
    (code, body)
}

pub(super) fn exists(resource: Resource, name: &str) -> Answer {
    let message = format!("{} \"{name}\" already exists", resource.full_name());
    changed(recorded!("lease-create-409"), &message, details(resource, name))
}

pub(super) fn conflict(resource: Resource, name: &str) -> Answer {
    let message = format!(
        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the \
         latest version and try again",
        resource.full_name()
    );
    changed(recorded!("lease-update-409"), &message, details(resource, name))
}

pub(super) fn other_uid(kind: &str, name: &str, asked: &str, present: &str) -> Answer {
    let message = format!(
        "Operation cannot be fulfilled on {kind} \"{name}\": the UID in the precondition ({asked}) does not match the UID \
         in record ({present}). The object might have been deleted and then recreated"
    );
    changed(recorded!("eviction-409-uid"), &message, json!({"name": name, "kind": kind}))
}

pub(super) fn invalid(kind: &str, name: &str, field: &str, reason: &str, message: &str) -> Answer {
    let text = format!("{kind} \"{name}\" is invalid: {field}: {message}");
    let causes = json!([{"reason": reason, "message": message, "field": field}]);
    changed(recorded!("event-invalid-422"), &text, json!({"name": name, "kind": kind, "causes": causes}))
}

pub(super) fn expired_list() -> Answer {
    (410, recorded!("list-continue-410"))
}

/// The line of a watch from a version that is too old.
pub(super) fn expired_watch(asked: u64, oldest: u64) -> Value {
    let mut line = recorded!("watch-410");
    line["object"]["message"] = json!(format!("too old resource version: {asked} ({oldest})"));
    line
}

pub(super) fn evicted() -> Answer {
    (201, recorded!("eviction-201"))
}

pub(super) fn budget(message: &str) -> Answer {
    let mut body = recorded!("eviction-429-pdb");
    body["details"]["causes"][0]["message"] = json!(message);
    (429, body)
}

pub(super) fn deleted() -> Answer {
    (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

/// Not recorded: as the server's source words them.
pub(super) fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code});
    (code, body)
}
