//! `mountwarden.io/remedy`: what a pod, a namespace or a node allows.

/// The annotation on pods, namespaces and nodes.
pub const ANNOTATION: &str = "mountwarden.io/remedy";

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// Eviction.
    pub evict: bool,
    /// Release of mounts that keep a pod in Terminating.
    pub unstick: bool,
}

impl Permission {
    /// Nothing restricts.
    pub const ALL: Permission = Permission { evict: true, unstick: true };
    /// Nothing is allowed.
    pub const NONE: Permission = Permission { evict: false, unstick: false };

    /// Reads the annotation: `evict`, `unstick`, both with a comma, or `none`. `none` wins, and so does a word that is
    /// none of these: who mistypes a prohibition must not be taken for somebody who allows.
    #[must_use]
    pub fn parse(text: &str) -> Permission {
        let mut permission = Permission::NONE;
        for word in text.split(',') {
            match word.trim() {
                "evict" => permission.evict = true,
                "unstick" => permission.unstick = true,
                _ => return Permission::NONE,
            }
        }
        permission
    }

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Permission) -> Permission {
        Permission { evict: self.evict && other.evict, unstick: self.unstick && other.unstick }
    }
}

/// The annotations that bear on one pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Annotations<'a> {
    /// The pod's.
    pub pod: Option<&'a str>,
    /// Its namespace's.
    pub namespace: Option<&'a str>,
    /// Its node's.
    pub node: Option<&'a str>,
}

impl Annotations<'_> {
    /// What all three allow together; an absent one restricts nothing.
    #[must_use]
    pub fn allowed(&self) -> Permission {
        let present = [self.pod, self.namespace, self.node].into_iter().flatten();
        present.map(Permission::parse).fold(Permission::ALL, Permission::and)
    }

    /// What the pod or its namespace asks for. A node cannot opt in for its guests.
    #[must_use]
    pub fn asked(&self) -> Permission {
        let asked = [self.pod, self.namespace].into_iter().flatten().map(Permission::parse);
        asked.fold(Permission::NONE, |sum, next| Permission {
            evict: sum.evict || next.evict,
            unstick: sum.unstick || next.unstick,
        })
    }

    /// What the pod itself asks for.
    #[must_use]
    pub fn pod_asked(&self) -> Permission {
        self.pod.map_or(Permission::NONE, Permission::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVICT: Permission = Permission { evict: true, unstick: false };

    #[test]
    fn none_wins_and_nonsense_counts_as_none() {
        assert_eq!(Permission::parse("evict,unstick"), Permission::ALL);
        assert_eq!(Permission::parse(" evict , unstick "), Permission::ALL);
        assert_eq!(Permission::parse("evict"), EVICT);
        for text in
            ["none", "evict,none", "none,evict", "", ",", "evict,", "Evict", "true", "evict unstick", "evict;unstick"]
        {
            assert_eq!(Permission::parse(text), Permission::NONE, "{text:?}");
        }
    }

    #[test]
    fn the_most_restrictive_of_pod_namespace_and_node_holds() {
        let all = |pod, namespace, node| Annotations { pod, namespace, node }.allowed();
        assert_eq!(all(None, None, None), Permission::ALL);
        assert_eq!(all(Some("evict,unstick"), Some("evict"), None), EVICT);
        assert_eq!(all(Some("evict"), Some("unstick"), None), Permission::NONE);
        assert_eq!(all(Some("evict"), Some("evict"), Some("none")), Permission::NONE);
        assert_eq!(all(None, None, Some("evict")), EVICT);
    }

    #[test]
    fn a_node_does_not_opt_in_for_its_guests() {
        let node = Annotations { pod: None, namespace: None, node: Some("evict,unstick") };
        assert_eq!(node.asked(), Permission::NONE);
        let namespace = Annotations { namespace: Some("evict"), ..Annotations::default() };
        assert_eq!((namespace.asked(), namespace.pod_asked()), (EVICT, Permission::NONE));
    }

    proptest! {
        #[test]
        fn any_text_allows_at_most_what_it_names(text: String) {
            let permission = Permission::parse(&text);
            prop_assert!(!permission.evict || text.contains("evict"));
            prop_assert!(!permission.unstick || text.contains("unstick"));
        }
    }
}
