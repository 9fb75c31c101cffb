//! `docs/configuration.md`, the example file and the effective configuration, all written from [`KEYS`].

use std::fmt::Write as _;

use super::Config;
use super::schema::{KEYS, Key};

/// The reference page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("| key | default | flag | environment | what it does |\n|---|---|---|---|---|\n");
    let defaults = Config::default();
    for key in KEYS.iter().filter(|key| key.public()) {
        let flag = key.flag.map(|flag| format!("`--{}`", flag.name)).unwrap_or_default();
        let env = key.flag.map(|flag| format!("`{}`", flag.env)).unwrap_or_default();
        let default = key.field.yaml(&defaults);
        let row = format!("| `{}` | `{default}` | {flag} | {env} | {} |\n", key.name, key.help);
        page.push_str(&row);
    }
    let _ = write!(page, "\n## Limits\n\n{LIMITS}\n## Example\n\n```yaml\n{}```\n", example());
    page
}

const INTRODUCTION: &str = "\
<!-- Written by `mountwarden config-doc`; a test compares. -->
# Configuration

mountwarden needs no configuration. What is set comes from, each overriding the one before:

1. the defaults;
2. the YAML file named by `--config FILE` (or `MOUNTWARDEN_CONFIG`);
3. the environment; an empty variable counts as not set;
4. the flags.

A list that is set replaces the list of the step before. `mountwarden check-config` says everything that is wrong at once,
with line and column, and prints what is in force. `mountwarden run` ends with code 78 when the configuration is not
valid; on SIGHUP it reads the file again, and keeps what it has when the new one is bad.

Durations are written `500ms`, `15s`, `2m` or `1m30s`. Patterns are globs: `*` also matches `/`, `{a,b}` is either. A dot in
a key below stands for a section of the file (`workers.max` is `max` under `workers:`).

";

const LIMITS: &str = "\
`interval` is at least `1s` and `timeout` at least `100ms`; `slow` is shorter than `timeout`; `backoff_max` is at least
`interval`; `workers.warm` and `workers.per_owner` are at most `workers.max`. `timeout` may be longer than `interval`: a mount is
never probed twice at a time. An address is `:12049` (all addresses), `192.0.2.7:12049` or `[::]:12049`.
";

/// A file with every setting at its default, explained: `docs/example-config.yaml`.
#[must_use]
pub fn example() -> String {
    let mut text = String::from("# Every setting with its default; leave out what you do not change.\n");
    write_yaml(&mut text, &Config::default(), true);
    text
}

/// The configuration in force, as a file that says the same.
#[must_use]
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    write_yaml(&mut text, config, false);
    text
}

fn write_yaml(text: &mut String, config: &Config, explained: bool) {
    let mut section = None;
    for key in KEYS.iter().filter(|key| key.public()) {
        let (its_section, name) = key.split();
        if its_section != section {
            section = its_section;
            if let Some(section) = section {
                let _ = writeln!(text, "{section}:");
            }
        }
        let indent = if section.is_some() { "  " } else { "" };
        if explained {
            let _ = writeln!(text, "{indent}# {}", note(key));
        }
        let _ = writeln!(text, "{indent}{name}: {}", key.field.yaml(config));
    }
}

fn note(key: &Key) -> String {
    match key.flag {
        Some(flag) => format!("{} (--{})", key.help, flag.name),
        None => key.help.to_owned(),
    }
}
