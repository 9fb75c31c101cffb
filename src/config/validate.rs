//! Rules between settings.

use super::error::{ConfigError, Origin, Problem};
use super::{Config, Draft};

/// Two settings that must agree.
struct Rule {
    /// Both, the one that should change first.
    keys: [&'static str; 2],
    holds: fn(&Config) -> bool,
    says: &'static str,
}

const RULES: [Rule; 4] = [
    Rule { keys: ["slow", "timeout"], holds: |c| c.slow < c.timeout, says: "must be shorter than" },
    Rule { keys: ["backoff_max", "interval"], holds: |c| c.backoff_max >= c.interval, says: "must be at least" },
    Rule { keys: ["workers.warm", "workers.max"], holds: |c| c.workers_warm <= c.workers_max, says: "must be at most" },
    Rule {
        keys: ["workers.per_owner", "workers.max"],
        holds: |c| c.workers_per_owner <= c.workers_max,
        says: "must be at most",
    },
];

/// Adds a complaint for every rule that does not hold.
pub(super) fn check(draft: &mut Draft) {
    fit_slow(draft);
    for rule in &RULES {
        let broken = rule.keys.iter().any(|key| draft.broken.contains(key));
        if broken || (rule.holds)(&draft.config) {
            continue;
        }
        let error = contradiction(draft, rule);
        draft.errors.push(error);
    }
    if !draft.config.listen_ui.is_empty() && draft.config.listen == draft.config.listen_ui {
        let origin = origin_of(draft, &["listen_ui", "listen"]);
        let problem = Problem::Contradiction(format!(
            "listen and listen_ui are both {}: give them different ports, or turn listen_ui off with \"\"",
            draft.config.listen
        ));
        draft.errors.push(ConfigError { origin, problem });
    }
}

/// Nobody who shortens the deadline means to be told about the default of another setting.
fn fit_slow(draft: &mut Draft) {
    if !draft.origins.contains_key("slow") && draft.config.slow >= draft.config.timeout {
        draft.config.slow = draft.config.timeout / 2;
    }
}

fn contradiction(draft: &Draft, rule: &Rule) -> ConfigError {
    let say = |name: &'static str| {
        let value = super::schema::public_key(name).map(|key| key.field.yaml(&draft.config)).unwrap_or_default();
        let note = if draft.origins.contains_key(name) { "" } else { ", the default" };
        format!("{name} ({value}{note})")
    };
    let [first, second] = rule.keys;
    let text = format!("{} {} {}", say(first), rule.says, say(second));
    ConfigError { origin: origin_of(draft, &rule.keys), problem: Problem::Contradiction(text) }
}

/// The first of the keys that somebody set: only that one can be wrong.
fn origin_of(draft: &Draft, keys: &[&'static str]) -> Origin {
    keys.iter().find_map(|key| draft.origins.get(key)).cloned().unwrap_or(Origin::Default)
}
