//! The objects, their versions and their history.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resources::Resource;

/// (plural, namespace, name).
pub(super) type Key = (String, String, String);

/// What happened to an object.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) plural: String,
    pub(super) before: Option<Value>,
    /// None when it was removed.
    pub(super) after: Option<Value>,
}

/// Everything that is stored.
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    version: u64,
    /// Watches from before this version are too old.
    oldest: u64,
    pub(super) crds_installed: bool,
}

impl Store {
    pub(super) fn new() -> Store {
        // Real versions are far from 0, which means "any" in a request.
        Store { objects: BTreeMap::new(), history: Vec::new(), version: 1000, oldest: 1000, crds_installed: true }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(plural.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn all<'a>(&'a self, plural: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((of, ..), _)| of == plural).map(|(_, object)| object)
    }

    /// What happened to objects of this plural after `version`.
    pub(super) fn since<'a>(&'a self, plural: &'a str, version: u64) -> impl Iterator<Item = &'a Change> {
        self.history.iter().filter(move |change| change.version > version && change.plural == plural)
    }

    /// Stores an object under a new version; what the server gives (UID, creation time) is filled in where it is missing.
    pub(super) fn put(&mut self, mut object: Value, now: &str) -> Value {
        let resource = Resource::of_kind(text(&object["kind"]));
        let key = key(resource, &object);
        let before = self.objects.get(&key).cloned();
        self.version += 1;
        let version = self.version;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(version.to_string());
        let kept = |field: &str| before.as_ref().map(|before| before["metadata"][field].clone());
        if meta["uid"].is_null() {
            meta["uid"] = kept("uid").unwrap_or_else(|| json!(uid(version)));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = kept("creationTimestamp").unwrap_or_else(|| json!(now));
        }
        self.objects.insert(key, object.clone());
        let plural = resource.plural.to_owned();
        self.history.push(Change { version, plural, before, after: Some(object.clone()) });
        object
    }

    /// Removes an object and, as the garbage collector does, what it owns.
    pub(super) fn remove(&mut self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&key)?;
        self.version += 1;
        let version = self.version;
        let before = object.clone();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.history.push(Change { version, plural: plural.to_owned(), before: Some(before), after: None });
        let owner = object["metadata"]["uid"].clone();
        let owned = |object: &Value| {
            object["metadata"]["ownerReferences"].as_array().is_some_and(|all| all.iter().any(|of| of["uid"] == owner))
        };
        let orphans: Vec<Key> =
            self.objects.iter().filter(|(_, object)| owned(object)).map(|(key, _)| key.clone()).collect();
        for (plural, namespace, name) in orphans {
            self.remove(&plural, &namespace, &name);
        }
        Some(object)
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
    }
}

fn key(resource: Resource, object: &Value) -> Key {
    let meta = &object["metadata"];
    let namespace = if resource.namespaced { text(&meta["namespace"]) } else { "" };
    (resource.plural.to_owned(), namespace.to_owned(), text(&meta["name"]).to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn uid(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-{:012x}", number * 7919)
}
