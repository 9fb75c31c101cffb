//! Settings from flags and environment.

use super::Draft;
use super::error::{Origin, Problem};
use super::field::Raw;
use super::schema::Key;

/// What flags and environment variables say; kept, because it holds again at every re-read of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(&'static str, Origin, Raw)>);

impl Overrides {
    /// Sets a single value, or a list of which each text may itself hold several, separated by commas.
    pub fn set(&mut self, key: &'static Key, origin: Origin, texts: Vec<String>) {
        let raw = if key.field.is_list() {
            Raw::Many(texts.iter().flat_map(|text| super::field::split_list(text)).collect())
        } else {
            Raw::One(texts.into_iter().next_back().unwrap_or_default())
        };
        self.0.push((key.name, origin, raw));
    }

    /// Whether `name` (as in the file, `log.level`) is set here.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, ..)| *key == name)
    }

    pub(super) fn apply(&self, draft: &mut Draft) {
        for (name, origin, raw) in &self.0 {
            let Some(key) = super::schema::KEYS.iter().find(|key| key.name == *name) else { continue };
            // What the file said wrongly about this key is still an error of the file.
            let result =
                key.field.set(&mut draft.config, raw).map_err(|reason| Problem::BadValue { key: key.name, reason });
            draft.record(key.name, origin.clone(), result);
        }
    }
}
