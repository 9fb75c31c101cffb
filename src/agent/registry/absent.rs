//! Targets that stand for what a container lacks.

use std::collections::HashSet;

use super::Registry;
use crate::agent::containers::AbsentMount;
use crate::agent::target::{Key, Target, choose_labels};
use crate::mounts::View;
use crate::probe::schedule::TargetId;
use crate::snapshot::UnixSeconds;

impl Registry {
    /// Takes over what a container lacks: gives the targets that are new, and those that are no more.
    pub(in crate::agent) fn update_absent(
        &mut self,
        view: View,
        absent: Vec<AbsentMount>,
        now: UnixSeconds,
    ) -> (Vec<TargetId>, Vec<Target>) {
        let key = |absent: &AbsentMount| Key::Absent { view, path: absent.path.clone() };
        let present: HashSet<Key> = absent.iter().map(key).collect();
        let of_view = |key: &&Key| matches!(key, Key::Absent { view: of, .. } if *of == view);
        let gone: Vec<Key> =
            self.by_key.keys().filter(of_view).filter(|key| !present.contains(*key)).cloned().collect();
        let removed = gone.iter().filter_map(|key| self.forget_absent(key)).collect();
        let mut new = Vec::new();
        for absent in absent {
            let key = key(&absent);
            if self.by_key.contains_key(&key) {
                continue;
            }
            let mount = absent.stand_in(view);
            let labels = choose_labels(&mount, &absent.label, |labels| self.labels.contains(labels));
            self.labels.insert(labels.clone());
            self.next_id += 1;
            self.by_key.insert(key.clone(), self.next_id);
            let mut target = Target::new(self.next_id, key, labels, &mount, now);
            (target.on_host, target.absent) = (Some(absent.what.clone()), Some(absent));
            self.targets.insert(self.next_id, target);
            new.push(self.next_id);
        }
        (new, removed)
    }

    fn forget_absent(&mut self, key: &Key) -> Option<Target> {
        let target = self.targets.remove(&self.by_key.remove(key)?)?;
        self.labels.remove(&target.labels);
        Some(target)
    }
}
