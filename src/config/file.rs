//! The YAML file: bytes in, settings and complaints out.

use std::path::Path;

use serde_saphyr::{Location, Spanned};

use super::Draft;
use super::error::{ConfigError, Origin, Problem};
use super::field::Raw;
use super::node::{Located, Node};
use super::schema::{self, Key};

/// No configuration is this long; a device or a log file named by mistake is.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads the file and overlays the draft with what it says.
pub(super) fn apply(path: &Path, draft: &mut Draft) {
    let whole = |problem| ConfigError { origin: Origin::File(path.to_owned()), problem };
    match crate::localfs::read_local_file(path, MAX_BYTES) {
        Err(error) => draft.errors.push(whole(Problem::Unreadable(error))),
        Ok(bytes) => match std::str::from_utf8(&bytes) {
            Err(error) => draft.errors.push(whole(Problem::NotText { offset: error.valid_up_to() })),
            Ok(text) => apply_text(path, text, draft),
        },
    }
}

fn apply_text(path: &Path, text: &str, draft: &mut Draft) {
    let reader = Reader { path, draft };
    match serde_saphyr::from_str_with_options::<Option<Located>>(text, serde_saphyr::options! { with_snippet: false }) {
        Ok(Some(root)) => reader.root(root),
        Ok(None) => {}
        Err(error) => {
            let origin = error.location().map_or(Origin::File(path.to_owned()), |place| reader.at(place));
            let problem = Problem::Syntax(error.without_snippet().to_string());
            reader.draft.errors.push(ConfigError { origin, problem });
        }
    }
}

/// Walks the tree and fills the draft.
struct Reader<'a> {
    path: &'a Path,
    draft: &'a mut Draft,
}

impl Reader<'_> {
    fn at(&self, place: Location) -> Origin {
        Origin::Place { file: self.path.to_owned(), line: place.line(), column: place.column() }
    }

    fn complain(&mut self, place: Location, problem: Problem) {
        let origin = self.at(place);
        self.draft.errors.push(ConfigError { origin, problem });
    }

    fn root(mut self, root: Located) {
        match root.value {
            Node::Map(entries) => entries.into_iter().for_each(|(name, value)| self.entry(name, value)),
            // A file in which everything is commented out.
            Node::Null => {}
            other => {
                let key = "the file".to_owned();
                let problem = Problem::WrongType { key, expected: "a list of `key: value`", found: other.kind() };
                self.complain(root.referenced, problem);
            }
        }
    }

    fn entry(&mut self, name: Spanned<String>, value: Located) {
        if schema::is_section(&name.value) {
            self.section(&name.value, value);
        } else if let Some((section, inner)) = name.value.split_once('.') {
            // The file has one way to say each thing.
            let nearest = schema::public_key(&name.value).map(|_| format!("{section}: {{{inner}: ...}}"));
            self.complain(name.referenced, Problem::UnknownKey { key: name.value, nearest });
        } else {
            self.setting(name.value, name.referenced, value);
        }
    }

    fn section(&mut self, section: &str, value: Located) {
        match value.value {
            Node::Map(entries) => {
                for (name, value) in entries {
                    self.setting(format!("{section}.{}", name.value), name.referenced, value);
                }
            }
            Node::Null => {}
            other => {
                let expected = "a section of `key: value`";
                let problem = Problem::WrongType { key: section.to_owned(), expected, found: other.kind() };
                self.complain(value.referenced, problem);
            }
        }
    }

    fn setting(&mut self, name: String, place: Location, value: Located) {
        match schema::public_key(&name) {
            Some(key) => self.set(key, value),
            None => {
                let nearest = schema::nearest(&name);
                self.complain(place, Problem::UnknownKey { key: name, nearest });
            }
        }
    }

    fn set(&mut self, key: &'static Key, value: Located) {
        let origin = self.at(value.referenced);
        let result = match raw(key, value.value) {
            Ok(Some(raw)) => key
                .field
                .set(&mut self.draft.config, &raw)
                .map_err(|reason| Problem::BadValue { key: key.name, reason }),
            // `key:` with nothing behind it: the default stands.
            Ok(None) => return,
            Err(found) => Err(Problem::WrongType { key: key.name.to_owned(), expected: key.field.expected(), found }),
        };
        self.draft.record(key.name, origin, result);
    }
}

/// The value as text, or what stands there instead.
fn raw(key: &Key, node: Node) -> Result<Option<Raw>, &'static str> {
    use super::field::Field;
    match (node, key.field) {
        (Node::Null, _) => Ok(None),
        (Node::List(items), field) if field.is_list() => {
            let texts = items.into_iter().map(|item| match item.value {
                Node::Text(text) => Ok(text),
                other => Err(other.kind()),
            });
            texts.collect::<Result<Vec<_>, _>>().map(|texts| Some(Raw::Many(texts)))
        }
        // One pattern without brackets is a list of one; a comma in it belongs to the pattern.
        (Node::Text(text), field) if field.is_list() => Ok(Some(Raw::Many(vec![text]))),
        (Node::Text(text), _) => Ok(Some(Raw::One(text))),
        (Node::Bool(value), Field::Switch(_)) => Ok(Some(Raw::One(value.to_string()))),
        // To YAML `on` and `off` are what `true` and `false` are.
        (Node::Bool(value), Field::OnOff { .. }) => Ok(Some(Raw::One(if value { "on" } else { "off" }.to_owned()))),
        // 15 without its unit gets a better complaint from the duration itself.
        (Node::Number(text), Field::Duration { .. } | Field::Count { .. }) => Ok(Some(Raw::One(text))),
        (other, _) => Err(other.kind()),
    }
}
