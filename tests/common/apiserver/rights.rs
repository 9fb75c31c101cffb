//! RBAC: what an account may do by the roles that are bound to it, and which of that a request takes.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::answers::{self, Answer};
use super::resources::{self, Place};
use super::{Asked, Shared};

/// One verb on one resource, as a role grants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// "" for the core group.
    pub group: String,
    /// With its subresource: `pods/eviction`.
    pub resource: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// Only objects of this name; none: all of them.
    pub name: Option<String>,
    /// Only in this namespace; none: everywhere.
    pub namespace: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// What a request wants to do.
struct Wanted<'a> {
    verb: &'static str,
    resource: String,
    place: &'a Place,
}

impl Right {
    fn allows(&self, wanted: &Wanted<'_>) -> bool {
        let (name, namespace) = (&wanted.place.name, &wanted.place.namespace);
        // A new object's name is in its body, where RBAC does not look.
        let name = if wanted.verb == "create" && !wanted.resource.contains('/') { &None } else { name };
        self.group == wanted.place.resource.group()
            && self.resource == wanted.resource
            && self.verb == wanted.verb
            && self.name.as_ref().is_none_or(|own| Some(own) == name.as_ref())
            && self.namespace.as_ref().is_none_or(|own| Some(own) == namespace.as_ref())
    }
}

/// The rights of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    account: String,
    rights: BTreeSet<Right>,
}

impl Rights {
    /// Those of the service account `account`, by the bindings and roles among `objects`.
    pub fn of(objects: &[Value], account: &str) -> Rights {
        let mut rights = BTreeSet::new();
        let is_subject = |object: &&Value| {
            let subjects = object["subjects"].as_array();
            subjects.is_some_and(|all| all.iter().any(|one| one["kind"] == "ServiceAccount" && one["name"] == account))
        };
        for binding in objects.iter().filter(is_subject) {
            let (kind, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
            let role = objects.iter().find(|object| object["kind"] == *kind && object["metadata"]["name"] == *name);
            let role = role.unwrap_or_else(|| panic!("there is no {kind} {name}"));
            let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
            role["rules"].as_array().unwrap().iter().for_each(|rule| add(&mut rights, rule, namespace.as_ref()));
        }
        Rights { account: account.to_owned(), rights }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Right> {
        self.rights.iter()
    }

    /// All but one.
    pub fn without(&self, right: &Right) -> Rights {
        let rights = self.rights.iter().filter(|own| *own != right).cloned().collect();
        Rights { account: self.account.clone(), rights }
    }

    /// Those that one of the requests took.
    pub fn used(&self, asked: &[Asked]) -> BTreeSet<Right> {
        let used = |right: &&Right| {
            asked.iter().any(|asked| {
                let place = resources::place(&asked.path);
                place.is_some_and(|place| right.allows(&wanted(asked, &place)))
            })
        };
        self.rights.iter().filter(used).cloned().collect()
    }
}

fn add(rights: &mut BTreeSet<Right>, rule: &Value, namespace: Option<&String>) {
    let list = |key: &str| -> Vec<String> {
        let words = rule[key].as_array().cloned().unwrap_or_default();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let names = list("resourceNames");
    let names: Vec<Option<String>> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    for group in list("apiGroups") {
        for resource in list("resources") {
            for verb in list("verbs") {
                assert!(![&group, &resource, &verb].iter().any(|word| word.contains('*')), "a wildcard: {rule}");
                for name in &names {
                    let (group, resource, verb) = (group.clone(), resource.clone(), verb.clone());
                    rights.insert(Right { group, resource, verb, name: name.clone(), namespace: namespace.cloned() });
                }
            }
        }
    }
}

fn wanted<'a>(asked: &Asked, place: &'a Place) -> Wanted<'a> {
    let resource = match &place.subresource {
        Some(sub) => format!("{}/{sub}", place.resource.plural),
        None => place.resource.plural.to_owned(),
    };
    Wanted { verb: super::faults::verb(asked, place), resource, place }
}

/// The refusal of what the account may not do; none where nobody said what it may, or it may.
pub(super) fn refuses(shared: &Shared, asked: &Asked) -> Option<Answer> {
    let rights = shared.rights.lock().unwrap();
    let (rights, place) = (rights.as_ref()?, resources::place(&asked.path)?);
    let wanted = wanted(asked, &place);
    if rights.iter().any(|right| right.allows(&wanted)) {
        return None;
    }
    let (verb, group) = (wanted.verb, place.resource.group());
    Some(answers::forbidden(&rights.account, verb, &wanted.resource, group, place.namespace.as_deref()))
}
