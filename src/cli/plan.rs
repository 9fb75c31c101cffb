//! `status --plan`: for every pod on a dead mount what would be done, or which guard says no.

use std::fmt::Write as _;

use super::text::{escape, wrap};
use crate::snapshot::{Intent, PodPlan};

/// Columns of the whole text.
const COLUMNS: usize = 100;

/// All pods, each with both remedies.
pub(super) fn render(plan: &[PodPlan]) -> String {
    if plan.is_empty() {
        return "no pod of this node is on a dead mount\n".to_owned();
    }
    let mut out = String::new();
    for pod in plan {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}  {}", escape(&pod.pod_label()), pod.state);
        for mount in &pod.mounts {
            let _ = writeln!(out, "    {}", escape(mount));
        }
        line(&mut out, "evict", &pod.evict);
        line(&mut out, "unstick", &pod.unstick);
    }
    out
}

fn line(out: &mut String, action: &str, intent: &Intent) {
    let head = match (&intent.guard, intent.go) {
        (_, true) => format!("{action}: yes, "),
        (Some(guard), false) => format!("{action}: no ({guard}), "),
        (None, false) => format!("{action}: not yet, "),
    };
    let mut text = head + &escape(&intent.words);
    if !intent.advice.is_empty() {
        let _ = write!(text, ". {}", escape(&intent.advice));
    }
    for (number, line) in wrap(&text, COLUMNS - 8).into_iter().enumerate() {
        let indent = if number == 0 { "    " } else { "        " };
        let _ = writeln!(out, "{indent}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::State;

    fn intent(go: bool, guard: Option<&str>, words: &str) -> Intent {
        let advice = if go { String::new() } else { "Nothing: it passes.".to_owned() };
        Intent { go, guard: guard.map(str::to_owned), words: words.to_owned(), advice }
    }

    #[test]
    fn each_pod_says_what_would_be_done_and_which_guard_says_no() {
        let pod = PodPlan {
            pod_uid: "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            mounts: vec!["/var/lib/kubelet/pods/0b2e7d6c/volumes/kubernetes.io~nfs/data".to_owned()],
            state: State::Hung,
            evict: intent(false, Some("state"), "the mount's state is not one that an eviction heals"),
            unstick: intent(true, None, "1 of its mounts are released"),
        };
        let unknown = PodPlan { pod: String::new(), unstick: intent(false, None, "not looked at"), ..pod.clone() };
        let text = render(&[pod, unknown]);
        assert_eq!(
            text,
            "shop/web-0  hung\n\
             \x20   /var/lib/kubelet/pods/0b2e7d6c/volumes/kubernetes.io~nfs/data\n\
             \x20   evict: no (state), the mount's state is not one that an eviction heals. Nothing: it passes.\n\
             \x20   unstick: yes, 1 of its mounts are released\n\
             0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11  hung\n\
             \x20   /var/lib/kubelet/pods/0b2e7d6c/volumes/kubernetes.io~nfs/data\n\
             \x20   evict: no (state), the mount's state is not one that an eviction heals. Nothing: it passes.\n\
             \x20   unstick: not yet, not looked at. Nothing: it passes.\n"
        );
        assert_eq!(render(&[]), "no pod of this node is on a dead mount\n");
    }
}
