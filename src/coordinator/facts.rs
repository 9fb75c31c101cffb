//! What the coordinator reads itself about a pod, as plain data.

use super::time::Time;
use crate::remedy::permission::Annotations;

/// All that must be known of a pod before it is evicted. Whoever could not read a part of it has no facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// UID of the pod that has the name now.
    pub uid: String,
    /// The node it is bound to.
    pub node: String,
    /// When the API server made it.
    pub created: Time,
    /// `deletionTimestamp` is set.
    pub terminating: bool,
    /// Phase `Succeeded` or `Failed`.
    pub completed: bool,
    /// A static pod's image in the API.
    pub mirror: bool,
    /// Who makes a new one.
    pub owner: Owner,
    /// UID of the controller; empty where there is none.
    pub controller: String,
    /// The network volume that the request names, if the pod has it; `None` when it has not.
    pub volume: Option<VolumeServer>,
    /// An emptyDir on disk, a local volume, a volume that ends with the pod.
    pub local_data: bool,
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`.
    pub safe_to_evict_denied: bool,
    /// Priority of the system's own pods.
    pub critical: bool,
    /// The pod's `mountwarden.io/remedy`.
    pub pod_annotation: Option<String>,
    /// Its namespace's.
    pub namespace_annotation: Option<String>,
    /// Its node's.
    pub node_annotation: Option<String>,
    /// The budgets that select it.
    pub budgets: Vec<Budget>,
    /// The newest creation time of all pods of its controller: what is younger after an eviction is a replacement. All
    /// of these times are of the API server's clock, so no other clock matters.
    pub newest_sibling: Time,
}

/// Which server the volume of a request leads to, as far as its specification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeServer {
    /// This one (in-tree NFS, drivers that name it).
    Named(String),
    /// The specification does not say (a CSI driver, a directory of the host).
    Unsaid,
}

/// Who stands behind a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// What kind.
    pub kind: OwnerKind,
    /// The workload as people know it: `Deployment/web`, `StatefulSet/db`; the pod's own name where there is none.
    pub workload: String,
}

/// Kinds of owners that make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// Makes a new pod anywhere (ReplicaSet, StatefulSet, others).
    Controller,
    /// The same, each pod with its own name and claims: never released from a hung mount.
    StatefulSet,
    /// Nobody.
    None,
    /// One pod per node.
    DaemonSet,
    /// Work that ends.
    Job,
    /// A virtual machine.
    VirtualMachine,
}

/// A PodDisruptionBudget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// `status.disruptionsAllowed`.
    pub allowed: i32,
    /// `status.currentHealthy`.
    pub healthy: i32,
    /// `status.desiredHealthy`.
    pub desired: i32,
    /// `status.expectedPods`.
    pub expected: i32,
    /// `unhealthyPodEvictionPolicy: AlwaysAllow`.
    pub always_allow_unhealthy: bool,
    /// The pod is Ready: only then is it one of the healthy that the budget counts.
    pub pod_ready: bool,
}

impl Budget {
    /// Why no eviction of this pod can ever be allowed as things stand; `None` when waiting may help.
    ///
    /// From `pkg/registry/core/pod/storage/eviction.go`: a pod that is not Ready passes with `AlwaysAllow`, or when
    /// enough others are healthy. All others need `disruptionsAllowed`, which is what is healthy beyond what is desired.
    #[must_use]
    pub fn never(&self) -> Option<&'static str> {
        if !self.pod_ready && (self.always_allow_unhealthy || (self.healthy >= self.desired && self.desired > 0)) {
            return None;
        }
        if self.allowed > 0 {
            return None;
        }
        if self.expected > 0 && self.desired >= self.expected {
            return Some("wants all of its pods healthy, so it allows no disruption ever");
        }
        if self.healthy == 0 && self.expected > 0 {
            return Some("has no healthy pod left, and waits for one");
        }
        None
    }
}

impl Facts {
    /// The annotations that bear on it.
    #[must_use]
    pub fn annotations(&self) -> Annotations<'_> {
        Annotations {
            pod: self.pod_annotation.as_deref(),
            namespace: self.namespace_annotation.as_deref(),
            node: self.node_annotation.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(healthy: i32, desired: i32, expected: i32, ready: bool, always: bool) -> Budget {
        Budget {
            name: "pdb".to_owned(),
            allowed: (healthy - desired).max(0),
            healthy,
            desired,
            expected,
            always_allow_unhealthy: always,
            pod_ready: ready,
        }
    }

    #[test]
    fn a_budget_that_waits_for_others_may_allow_it_later() {
        assert_eq!(budget(2, 2, 3, true, false).never(), None, "one of three is being replaced");
        assert_eq!(budget(1, 2, 3, false, false).never(), None, "another may become healthy");
        assert_eq!(budget(3, 2, 3, true, false).never(), None);
    }

    #[test]
    fn a_budget_without_a_healthy_pod_never_allows_it_unless_unhealthy_ones_may_go() {
        assert!(budget(0, 2, 3, false, false).never().unwrap().contains("no healthy pod left"));
        assert_eq!(budget(0, 2, 3, false, true).never(), None);
    }

    #[test]
    fn a_budget_that_wants_all_never_allows_a_ready_pod() {
        assert!(budget(3, 3, 3, true, false).never().unwrap().contains("allows no disruption ever"));
        assert!(budget(3, 3, 3, true, true).never().is_some(), "the policy is for unhealthy pods");
        assert_eq!(budget(3, 3, 4, false, false).never(), None, "enough others are healthy");
    }
}
