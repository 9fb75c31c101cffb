//! The PodDisruptionBudgets that select a pod. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::pod::ready;
use crate::coordinator::facts::Budget;

/// Those of `budgets` (all of the pod's namespace) that select the pod.
pub(super) fn of(pod: &Pod, budgets: &[PodDisruptionBudget]) -> Vec<Budget> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let selecting = budgets.iter().filter(|budget| {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| selects(selector, &labels))
    });
    selecting.map(|budget| fact(budget, ready(pod))).collect()
}

fn fact(budget: &PodDisruptionBudget, pod_ready: bool) -> Budget {
    let status = budget.status.as_ref();
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    Budget {
        name: budget.metadata.name.clone().unwrap_or_default(),
        allowed: status.map_or(0, |status| status.disruptions_allowed),
        healthy: status.map_or(0, |status| status.current_healthy),
        desired: status.map_or(0, |status| status.desired_healthy),
        expected: status.map_or(0, |status| status.expected_pods),
        always_allow_unhealthy: policy == Some("AlwaysAllow"),
        pod_ready,
    }
}

/// As the API server matches: everything that is asked holds; an empty selector selects all (policy/v1).
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    exact && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let among = || value.is_some_and(|value| requirement.values.iter().flatten().any(|one| one == value));
    match requirement.operator.as_str() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // Unknown to us: it may select the pod.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn names(selector: Value) -> bool {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        selects(&serde_json::from_value(selector).unwrap(), &labels)
    }

    #[test]
    fn selectors_match_as_the_api_server_does() {
        assert!(names(json!({})));
        assert!(names(json!({"matchLabels": {"app": "web"}})) && !names(json!({"matchLabels": {"app": "db"}})));
        let expression = |operator: &str, key: &str, values: Value| {
            names(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert!(expression("In", "app", json!(["web", "db"])) && !expression("In", "app", json!(["db"])));
        assert!(expression("NotIn", "app", json!(["db"])) && !expression("NotIn", "app", json!(["web"])));
        assert!(expression("NotIn", "tier", json!(["web"])), "an absent label is not in");
        assert!(expression("Exists", "app", json!([])) && expression("DoesNotExist", "tier", json!([])));
    }

    #[test]
    fn a_recorded_budget_is_read() {
        let recording: Value = serde_json::from_str(include_str!("../../../tests/fixtures/api/pdb-get.json")).unwrap();
        let budget: PodDisruptionBudget = serde_json::from_value(recording["response"]["body"].clone()).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": {"app": "pdb"}}})).unwrap();
        let found = of(&pod, &[budget]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].allowed, found[0].healthy, found[0].desired, found[0].expected), (0, 2, 2, 2));
        assert!(found[0].never().is_none(), "a pod that is not Ready passes when enough others are healthy");
    }
}
