//! Which resources there are, and what a path means.

/// A resource of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    /// `v1`, `policy/v1`, ...
    pub(super) api_version: &'static str,
    pub(super) namespaced: bool,
    /// Its status is written through the subresource only.
    pub(super) has_status: bool,
    /// Exists only where its CRD is installed.
    pub(super) custom: bool,
}

const fn resource(
    plural: &'static str,
    kind: &'static str,
    api_version: &'static str,
    namespaced: bool,
    has_status: bool,
) -> Resource {
    Resource { plural, kind, api_version, namespaced, has_status, custom: false }
}

static RESOURCES: [Resource; 17] = [
    resource("pods", "Pod", "v1", true, true),
    resource("nodes", "Node", "v1", false, true),
    resource("namespaces", "Namespace", "v1", false, true),
    resource("persistentvolumes", "PersistentVolume", "v1", false, true),
    resource("persistentvolumeclaims", "PersistentVolumeClaim", "v1", true, true),
    resource("configmaps", "ConfigMap", "v1", true, false),
    resource("secrets", "Secret", "v1", true, false),
    resource("events", "Event", "events.k8s.io/v1", true, false),
    resource("storageclasses", "StorageClass", "storage.k8s.io/v1", false, false),
    resource("leases", "Lease", "coordination.k8s.io/v1", true, false),
    resource("poddisruptionbudgets", "PodDisruptionBudget", "policy/v1", true, true),
    resource("deployments", "Deployment", "apps/v1", true, true),
    resource("replicasets", "ReplicaSet", "apps/v1", true, true),
    resource("statefulsets", "StatefulSet", "apps/v1", true, true),
    resource("daemonsets", "DaemonSet", "apps/v1", true, true),
    resource("jobs", "Job", "batch/v1", true, true),
    Resource { custom: true, ..resource("nodemounts", "NodeMounts", "mountwarden.io/v1alpha1", false, true) },
];

impl Resource {
    /// `pods`, `leases.coordination.k8s.io`: as messages name it.
    pub(super) fn full_name(&self) -> String {
        match self.group() {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// "" for the core group.
    pub(super) fn group(&self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The resource of an object.
    pub(super) fn of_kind(kind: &str) -> Resource {
        *RESOURCES.iter().find(|known| known.kind == kind).unwrap_or_else(|| panic!("the server knows no {kind}"))
    }

    pub(super) fn of_plural(plural: &str) -> Resource {
        *RESOURCES.iter().find(|known| known.plural == plural).unwrap_or_else(|| panic!("the server knows no {plural}"))
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Reads a path; none for one that leads nowhere.
pub(super) fn place(path: &str) -> Option<Place> {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let (api_version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if *plural != "status" => {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        _ => (None, rest.to_vec()),
    };
    let plural = rest.first()?;
    // Events can be reached in both of their groups.
    let known =
        |known: &&Resource| known.plural == *plural && (known.api_version == api_version || *plural == "events");
    let mut resource = *RESOURCES.iter().find(known)?;
    if *plural == "events" && api_version == "v1" {
        resource.api_version = "v1";
    }
    let word = |at: usize| rest.get(at).map(|word| (*word).to_owned());
    Some(Place { resource, namespace, name: word(1), subresource: word(2) })
}
