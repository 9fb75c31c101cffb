//! Requests but watches: what the store answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answers::{self, Answer};
use super::resources::{Place, Resource};
use super::store::Store;
use super::{Admission, Asked, Review, Shared, eviction, patch, resources, rules};

/// The pairs of a query, decoded.
pub(super) fn query(asked: &Asked) -> BTreeMap<String, String> {
    let pairs = asked.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap_or("0"), 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    namespace: Option<String>,
    fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

impl Selection {
    pub(super) fn of(place: &Place, query: &BTreeMap<String, String>) -> Selection {
        let pairs = |name: &str| {
            let text = query.get(name).map(String::as_str).unwrap_or_default();
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.trim_start_matches('=').to_owned())).collect()
        };
        let mut fields: Vec<(String, String)> = pairs("fieldSelector");
        fields.extend(place.name.clone().map(|name| ("metadata.name".to_owned(), name)));
        Selection { namespace: place.namespace.clone(), fields, labels: pairs("labelSelector") }
    }

    pub(super) fn takes(&self, object: &Value) -> bool {
        let field = |path: &str| path.split('.').fold(object, |value, name| &value[name]).as_str().unwrap_or_default();
        self.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == *namespace)
            && self.fields.iter().all(|(path, wanted)| field(path) == wanted)
            && self.labels.iter().all(|(name, wanted)| object["metadata"]["labels"][name] == *wanted)
    }
}

/// Answers a request that is no watch.
pub(super) fn answer(shared: &Shared, asked: &Asked) -> Answer {
    if asked.path == "/version" {
        return (200, json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}));
    }
    if matches!(asked.path.as_str(), "/readyz" | "/livez" | "/healthz") {
        return (200, json!("ok"));
    }
    let place = resources::place(&asked.path);
    let installed = |place: &Place| !place.resource.custom || shared.store().crds_installed;
    let Some(place) = place.filter(installed) else { return answers::no_such_path() };
    let query = query(asked);
    if asked.method == "GET" {
        let store = shared.store();
        return match &place.name {
            Some(name) => get(&store, &place, name),
            None => list(&store, &place, &query),
        };
    }
    let dry = query.get("dryRun").is_some_and(|dry| dry == "All");
    shared.change(|store, now| {
        let admission = shared.admission.lock().unwrap();
        let request = Write { place: &place, body: &asked.body, dry, now, admission: admission.as_ref() };
        match (asked.method.as_str(), place.subresource.as_deref(), place.name.as_deref()) {
            ("POST", Some("eviction"), Some(name)) => {
                let namespace = place.namespace.as_deref().unwrap_or_default();
                eviction::evict(store, namespace, name, &asked.body, dry, now)
            }
            ("POST", None, None) => request.create(store),
            ("PUT", _, Some(name)) => request.update(store, name),
            ("PATCH", _, Some(name)) => request.patch(store, name, &asked.content_type),
            ("DELETE", None, Some(name)) => request.delete(store, name),
            _ => answers::failure(405, "MethodNotAllowed", "the server does not allow this method on the resource"),
        }
    })
}

/// In the version of the path: events are stored once and read in both groups.
pub(super) fn as_asked(resource: Resource, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(resource.api_version);
    object
}

fn get(store: &Store, place: &Place, name: &str) -> Answer {
    match store.get(place.resource.plural, place.namespace.as_deref().unwrap_or_default(), name) {
        Some(object) => (200, as_asked(place.resource, object)),
        None => answers::not_found(place.resource, name),
    }
}

/// The token of a page is the version of the list and how many were given.
fn list(store: &Store, place: &Place, query: &BTreeMap<String, String>) -> Answer {
    let selection = Selection::of(place, query);
    let (version, start) = match query.get("continue").filter(|token| !token.is_empty()) {
        Some(token) => {
            let (version, start) = token.split_once('-').unwrap_or(("0", "0"));
            let (version, start) = (version.parse().unwrap_or(0), start.parse().unwrap_or(0));
            if version < store.oldest() {
                return answers::expired_list();
            }
            (version, start)
        }
        None => (store.version(), 0),
    };
    let limit: usize =
        query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let all: Vec<&Value> = store.all(place.resource.plural).filter(|object| selection.takes(object)).collect();
    // The items of a list carry neither kind nor version.
    let bare = |object: &&Value| {
        let mut object = (*object).clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        object
    };
    let items: Vec<Value> = all.iter().skip(start).take(limit).map(bare).collect();
    let end = start + items.len();
    let mut meta = json!({"resourceVersion": version.to_string()});
    if end < all.len() {
        meta["continue"] = json!(format!("{version}-{end}"));
        meta["remainingItemCount"] = json!(all.len() - end);
    }
    let kind = format!("{}List", place.resource.kind);
    (200, json!({"kind": kind, "apiVersion": place.resource.api_version, "metadata": meta, "items": items}))
}

struct Write<'a> {
    place: &'a Place,
    body: &'a Value,
    dry: bool,
    now: &'a str,
    admission: Option<&'a Admission>,
}

impl Write<'_> {
    fn namespace(&self) -> &str {
        self.place.namespace.as_deref().unwrap_or_default()
    }

    fn stored(&self, store: &mut Store, code: u16, object: Value, old: Option<Value>) -> Answer {
        if let Some(refusal) = rules::refuses(self.place.resource, &object) {
            return refusal;
        }
        if let Some(words) = self.admission.and_then(|judge| judge(&self.review(&object, old))) {
            return answers::failure(422, "Invalid", &words);
        }
        let object = if self.dry { object } else { store.put(object, self.now) };
        (code, as_asked(self.place.resource, &object))
    }

    /// What an admission policy gets to see (`AdmissionRequest` without who asks).
    fn review(&self, object: &Value, old: Option<Value>) -> Review {
        let resource = self.place.resource;
        let version = resource.api_version.rsplit('/').next();
        let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
        let request = json!({
            "resource": {"group": resource.group(), "version": version, "resource": resource.plural},
            "subResource": self.place.subresource.clone().unwrap_or_default(),
            "name": object["metadata"]["name"], "namespace": self.namespace(), "operation": operation});
        let of_path = |object: &Value| as_asked(resource, object);
        Review { request, object: of_path(object), old: old.as_ref().map_or(Value::Null, of_path) }
    }

    fn create(&self, store: &mut Store) -> Answer {
        let resource = self.place.resource;
        let mut object = self.body.clone();
        object["kind"] = json!(resource.kind);
        let meta = &mut object["metadata"];
        if !meta["resourceVersion"].is_null() {
            return answers::failure(400, "BadRequest", "resourceVersion should not be set on objects to be created");
        }
        if meta["name"].is_null() {
            let prefix = meta["generateName"].as_str().unwrap_or_default();
            meta["name"] = json!(format!("{prefix}{:05x}", store.version()));
        }
        if resource.namespaced {
            meta["namespace"] = json!(self.namespace());
            if store.get("namespaces", "", self.namespace()).is_none() {
                return answers::not_found(Resource::of_plural("namespaces"), self.namespace());
            }
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        if store.get(resource.plural, self.namespace(), &name).is_some() {
            return answers::exists(resource, &name);
        }
        // The status of a custom resource is set through its subresource alone.
        if let Some(fields) = object.as_object_mut().filter(|_| resource.custom) {
            fields.remove("status");
        }
        self.stored(store, 201, object, None)
    }

    fn update(&self, store: &mut Store, name: &str) -> Answer {
        let resource = self.place.resource;
        let Some(present) = store.get(resource.plural, self.namespace(), name).cloned() else {
            return answers::not_found(resource, name);
        };
        let asked = &self.body["metadata"]["resourceVersion"];
        if !asked.is_null() && asked != &present["metadata"]["resourceVersion"] {
            return answers::conflict(resource, name);
        }
        let object = self.kept_apart(&present, self.body.clone());
        self.stored(store, 200, object, Some(present))
    }

    fn patch(&self, store: &mut Store, name: &str, content_type: &str) -> Answer {
        let resource = self.place.resource;
        let apply = content_type.starts_with("application/apply-patch");
        let present = store.get(resource.plural, self.namespace(), name).cloned();
        let Some(present) = present else {
            return if apply { self.create(store) } else { answers::not_found(resource, name) };
        };
        let asked = &self.body["metadata"]["resourceVersion"];
        if !asked.is_null() && asked != &present["metadata"]["resourceVersion"] {
            return answers::conflict(resource, name);
        }
        let mut object = present.clone();
        match content_type {
            "application/merge-patch+json" => patch::merge(&mut object, self.body),
            _ if apply => patch::merge(&mut object, self.body),
            "application/strategic-merge-patch+json" if !resource.custom => patch::strategic(&mut object, self.body),
            other => {
                let words = format!("the body of the request was in an unknown format - {other}");
                return answers::failure(415, "UnsupportedMediaType", &words);
            }
        }
        let object = self.kept_apart(&present, object);
        self.stored(store, 200, object, Some(present))
    }

    /// A write to the status changes nothing else, and the other way round.
    fn kept_apart(&self, present: &Value, mut object: Value) -> Value {
        let resource = self.place.resource;
        if self.place.subresource.as_deref() == Some("status") {
            let status = object["status"].take();
            object = present.clone();
            object["status"] = status;
        } else if resource.has_status {
            object["status"] = present["status"].clone();
        }
        object["kind"] = json!(resource.kind);
        for field in ["uid", "creationTimestamp", "name", "namespace"] {
            object["metadata"][field] = present["metadata"][field].clone();
        }
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        object
    }

    fn delete(&self, store: &mut Store, name: &str) -> Answer {
        let resource = self.place.resource;
        let Some(present) = store.get(resource.plural, self.namespace(), name).cloned() else {
            return answers::not_found(resource, name);
        };
        let (asked, uid) = (&self.body["preconditions"]["uid"], &present["metadata"]["uid"]);
        if let Some(asked) = asked.as_str().filter(|_| asked != uid) {
            return answers::other_uid(resource.kind, name, asked, uid.as_str().unwrap_or_default());
        }
        let grace = &self.body["gracePeriodSeconds"];
        if !self.dry && resource.plural == "pods" && grace != &json!(0) {
            let mut pod = present;
            eviction::mark_deleted(&mut pod, self.now);
            return (200, store.put(pod, self.now));
        }
        if !self.dry {
            store.remove(resource.plural, self.namespace(), name);
        }
        answers::deleted()
    }
}
