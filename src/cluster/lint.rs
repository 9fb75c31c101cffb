//! Annotations that are nonsense: said once each, and they count as `none`.

use std::collections::BTreeSet;

use super::text;
use crate::pods::names::{PodNames, Reading};
use crate::remedy::permission::{ANNOTATION, Permission};

/// Objects that are remembered; beyond that nothing is said.
const MOST: usize = 256;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Lint {
    said: BTreeSet<(String, String)>,
}

impl Lint {
    /// The annotations that are nonsense and were not named yet, in words. One that is put right may be named again.
    pub(super) fn look(&mut self, names: &PodNames) -> Vec<String> {
        let mut present = BTreeSet::new();
        for (_, pod) in names.iter() {
            let read = |reading: &Reading| match reading {
                Reading::Read(value) => value.clone(),
                Reading::Unread => None,
            };
            let places = [
                (format!("pod {}", pod.full()), pod.remedy.pod.clone()),
                (format!("namespace {}", pod.namespace), read(&pod.remedy.namespace)),
                ("this node".to_owned(), read(&pod.remedy.node)),
            ];
            let nonsense =
                |(place, value): (String, Option<String>)| Some((place, value.filter(|value| is_nonsense(value))?));
            present.extend(places.into_iter().filter_map(nonsense));
        }
        self.said.retain(|known| present.contains(known));
        let mut news = Vec::new();
        for (place, value) in present {
            if self.said.len() < MOST && self.said.insert((place.clone(), value.clone())) {
                news.push(format!(
                    "the annotation {ANNOTATION} of {} is {:?}, which counts as none: write evict, unstick, both with a comma, or none",
                    text::word(&place),
                    text::word(&value)
                ));
            }
        }
        news
    }
}

fn is_nonsense(value: &str) -> bool {
    let words: Vec<&str> = value.split(',').map(str::trim).collect();
    Permission::parse(value) == Permission::NONE
        && words.iter().any(|word| !["evict", "unstick", "none"].contains(word))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::pods::names::{PodName, RemedyWords};

    fn names(pods: &[(&str, Option<&str>)], namespace: Option<&str>) -> PodNames {
        let pod = |(name, value): &(&str, Option<&str>)| {
            let remedy = RemedyWords {
                pod: value.map(str::to_owned),
                namespace: Reading::Read(namespace.map(str::to_owned)),
                node: Reading::Unread,
            };
            let pod = PodName { namespace: "shop".into(), name: (*name).to_owned(), remedy, ..PodName::default() };
            ((*name).to_owned(), pod)
        };
        PodNames::new(pods.iter().map(pod).collect::<HashMap<_, _>>(), true)
    }

    #[test]
    fn nonsense_is_named_once_and_again_when_it_comes_back() {
        let mut lint = Lint::default();
        let bad = || names(&[("a", Some("evit")), ("b", Some("evict, unstick")), ("c", Some("none"))], None);
        let said = lint.look(&bad());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("pod shop/a is \"evit\", which counts as none"), "{said:?}");
        assert_eq!(lint.look(&bad()), Vec::<String>::new());
        assert!(lint.look(&names(&[("a", Some("evict"))], None)).is_empty());
        assert_eq!(lint.look(&bad()).len(), 1);
    }

    #[test]
    fn that_of_a_namespace_is_one_whatever_the_number_of_its_pods() {
        let said = Lint::default().look(&names(&[("a", None), ("b", None)], Some("yes\nlevel=error")));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("namespace shop") && !said[0].contains('\n'), "{said:?}");
    }
}
