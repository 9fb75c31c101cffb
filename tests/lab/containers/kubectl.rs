//! What `kubectl` would print of the objects of the fake API server.

use serde_json::Value;

/// The node's condition that is ours.
pub(super) fn condition(node: &Value) -> Option<&Value> {
    let conditions = node["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "NetworkMountsHealthy")
}

/// The same as a line.
pub(super) fn conditions(node: &Value) {
    println!("$ kubectl describe node");
    if let Some(condition) = condition(node) {
        let words = ["type", "status", "lastHeartbeatTime", "lastTransitionTime", "reason", "message"];
        println!("  {}", words.map(|word| text(&condition[word])).join("  "));
    }
}

/// The columns of `NodeMounts`.
pub(super) fn node_mounts(object: &Value) {
    const COLUMNS: [&str; 8] = ["healthy", "degraded", "dead", "pods", "pending", "worst", "cause", "since"];
    let head = COLUMNS.map(str::to_uppercase);
    let cells = COLUMNS.map(|column| match column {
        "since" => age(&text(&object["status"][column])),
        _ => text(&object["status"][column]),
    });
    let name = text(&object["metadata"]["name"]);
    let widths = std::array::from_fn::<usize, 8, _>(|at| head[at].len().max(cells[at].len()));
    println!("$ kubectl get nm");
    for (first, row) in [("NAME", &head), (&*name, &cells)] {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{first:8}   {}", padded.join("   ").trim_end());
    }
}

fn age(time: &str) -> String {
    let passed = humantime::parse_rfc3339(time).ok().and_then(|time| time.elapsed().ok());
    passed.map(|passed| format!("{}s", passed.as_secs())).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
