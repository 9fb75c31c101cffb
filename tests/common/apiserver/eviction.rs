//! The Eviction subresource, as `pkg/registry/core/pod/storage/eviction.go` of Kubernetes decides.

use serde_json::{Value, json};

use super::answers::{self, Answer};
use super::resources::Resource;
use super::store::Store;

/// Evicts a pod, or says why not.
pub(super) fn evict(store: &mut Store, namespace: &str, name: &str, eviction: &Value, dry: bool, now: &str) -> Answer {
    // propagateDryRun: in the query or in the body.
    let dry = dry || eviction["deleteOptions"]["dryRun"] == json!(["All"]);
    let Some(pod) = store.get("pods", namespace, name).cloned() else {
        return answers::not_found(Resource::of_plural("pods"), name);
    };
    let (asked, present) = (&eviction["deleteOptions"]["preconditions"]["uid"], &pod["metadata"]["uid"]);
    if let Some(asked) = asked.as_str().filter(|_| asked != present) {
        return answers::other_uid("Pod", name, asked, present.as_str().unwrap_or_default());
    }
    // A budget has no say over a pod that is ending or has not begun.
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let ending = !pod["metadata"]["deletionTimestamp"].is_null();
    if !ending && !matches!(phase, "Succeeded" | "Failed" | "Pending") {
        match budgets(store, namespace, &pod).as_slice() {
            [] => {}
            [budget] => {
                if let Err(refusal) = take_from(store, budget, &pod, dry, now) {
                    return refusal;
                }
            }
            _ => {
                let words =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return answers::failure(500, "InternalError", words);
            }
        }
    }
    if !dry && !ending {
        let mut pod = pod;
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
            conditions.push(json!({"type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": now, "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}));
        }
        let mut pod = store.put(pod, now);
        mark_deleted(&mut pod, now);
        store.put(pod, now);
    }
    answers::evicted()
}

/// Sets the pod's deletion time: the end of its grace.
pub(super) fn mark_deleted(pod: &mut Value, now: &str) {
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    let end = humantime::parse_rfc3339(now).unwrap() + std::time::Duration::from_secs(grace);
    pod["metadata"]["deletionTimestamp"] = json!(humantime::format_rfc3339_seconds(end).to_string());
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
}

fn budgets(store: &Store, namespace: &str, pod: &Value) -> Vec<Value> {
    let labels = &pod["metadata"]["labels"];
    let selects = |budget: &&Value| {
        budget["metadata"]["namespace"] == namespace
            && budget["spec"]["selector"]["matchLabels"]
                .as_object()
                .is_some_and(|wanted| wanted.iter().all(|(name, value)| &labels[name] == value))
    };
    store.all("poddisruptionbudgets").filter(selects).cloned().collect()
}

fn take_from(store: &mut Store, budget: &Value, pod: &Value, dry: bool, now: &str) -> Result<(), Answer> {
    let ready = pod["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"));
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let status = &budget["status"];
    let (healthy, desired) = (number(&status["currentHealthy"]), number(&status["desiredHealthy"]));
    if !ready {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || healthy >= desired && desired > 0 {
            return Ok(());
        }
    }
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        return Err(answers::budget(&format!("The disruption budget {name} is still being processed by the server.")));
    }
    let allowed = number(&status["disruptionsAllowed"]);
    if allowed < 0 {
        let words = format!("pod disruption budget {name} is forbidden: pdb disruptions allowed is negative");
        return Err(answers::failure(403, "Forbidden", &words));
    }
    if allowed == 0 {
        let words = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(answers::budget(&words));
    }
    if !dry {
        let mut budget = budget.clone();
        budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
        store.put(budget, now);
    }
    Ok(())
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
