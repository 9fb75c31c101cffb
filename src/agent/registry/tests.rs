use super::*;
use crate::mounts::table::Table;

/// Two binds of one export.
const TABLE: &str = "20 1 0:5 / / rw - ext4 /dev/vda rw\n\
                     30 20 0:40 / /a rw - nfs4 srv:/x rw,hard\n\
                     31 20 0:40 / /b rw - nfs4 srv:/x rw,hard\n";

#[expect(clippy::disallowed_methods, reason = "a test writes the table that it reads")]
fn mounts() -> Vec<Mount> {
    let proc_root = tempfile::tempdir().unwrap();
    for process in ["self", "1"] {
        std::fs::create_dir(proc_root.path().join(process)).unwrap();
        std::fs::write(proc_root.path().join(process).join("mountinfo"), TABLE).unwrap();
    }
    Table::read(proc_root.path()).unwrap().mounts.into_iter().filter(|mount| mount.id >= 30).collect()
}

fn identity() -> Identity {
    Identity { handle: vec![1, 2, 3], ino: 2, unique_mount_id: Some(7) }
}

/// A registry that could not identify the mounts, and their targets.
fn unidentified(mounts: &[Mount]) -> (Registry, Vec<TargetId>) {
    let mut registry = Registry::default();
    let watched: Vec<_> = mounts.iter().map(|mount| Watched { mount, through: None }).collect();
    let newcomers = registry.update(&watched).to_identify;
    let ids = newcomers.iter().filter_map(|newcomer| registry.identified(newcomer, None, 0.0)).collect();
    (registry, ids)
}

#[test]
fn a_mount_that_is_identified_late_keeps_its_target() {
    let mounts = mounts();
    let (mut registry, ids) = unidentified(&mounts[..1]);
    assert!(registry.take_identity(ids[0], &mounts[0], &identity()));
    let watched: Vec<_> = mounts.iter().map(|mount| Watched { mount, through: None }).collect();
    let newcomers = registry.update(&watched).to_identify;
    assert_eq!(newcomers.len(), 1, "only the other bind is new");
    assert_eq!(registry.identified(&newcomers[0], Some(&identity()), 0.0), None, "and it is the same target");
    assert_eq!(registry.targets[&ids[0]].members.len(), 2);
    assert_eq!(registry.targets[&ids[0]].members[0].unique_mount_id, Some(7));
}

#[test]
fn a_root_that_another_target_has_is_not_taken_twice() {
    let mounts = mounts();
    let (mut registry, ids) = unidentified(&mounts);
    assert!(registry.take_identity(ids[0], &mounts[0], &identity()));
    assert!(!registry.take_identity(ids[1], &mounts[1], &identity()));
    assert!(!registry.take_identity(ids[1], &mounts[0], &identity()), "a mount of somebody else's");
    assert_eq!(registry.dissolve(ids[1]).map(|target| target.id), Some(ids[1]));
}
