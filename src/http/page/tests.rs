use super::*;

const NOW: f64 = 1_790_000_101.0;

fn golden() -> Snapshot {
    serde_json::from_str(include_str!("../../../tests/fixtures/golden/snapshot.json")).expect("fixture")
}

#[test]
fn the_dead_stand_above_the_unknown_and_the_healthy() {
    let page = render(&golden(), NOW);
    let at = |needle: &str| page.find(needle).unwrap_or_else(|| panic!("{needle} is missing"));
    assert!(at("STALE".to_lowercase().as_str()) < at("/mnt/user"));
    assert!(at("/mnt/gone</h2>") < at("/mnt/gone/sub</h2>"), "an inherited verdict stands before its origin");
    assert!(at("/mnt/gone/sub</h2>") < at("/mnt/user</h2>"));
    assert!(at("/mnt/user</h2>") < at("/mnt/data"));
}

#[test]
fn a_hostile_mountpoint_stays_text() {
    let mut snapshot = golden();
    let hostile = "/mnt/<script>alert(1)</script>\"'&\u{202e}".to_owned();
    for mount in &mut snapshot.mounts {
        mount.mountpoint.clone_from(&hostile);
        mount.source.clone_from(&hostile);
        mount.evidence.clone_from(&hostile);
        mount.advice.clone_from(&hostile);
        mount.fstype.clone_from(&hostile);
    }
    snapshot.node.clone_from(&hostile);
    snapshot.autofs[0].source.clone_from(&hostile);
    let page = render(&snapshot, NOW);
    assert!(!page.contains("<script") && !page.contains('\u{202e}'));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = render(&golden(), NOW);
    for foreign in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("http-equiv=\"refresh\" content=\"5\""));
}

#[test]
fn a_crowd_is_cut_and_counted() {
    let mut snapshot = golden();
    let hung = snapshot.mounts.iter().find(|mount| mount.state == State::Hung).cloned().expect("a hung mount");
    snapshot.mounts = vec![hung; MAX_CARDS + 7];
    let page = render(&snapshot, NOW);
    assert_eq!(page.matches("<article").count(), MAX_CARDS);
    assert!(page.contains("and 7 more"));
}

#[test]
fn an_old_snapshot_and_an_unfinished_pass_are_said() {
    let mut snapshot = golden();
    assert!(!render(&snapshot, NOW).contains("This page is old"));
    snapshot.ready = false;
    let page = render(&snapshot, NOW + 60.0);
    assert!(page.contains("This page is old") && page.contains("still under way"));
}

#[test]
fn a_node_without_mounts_says_so() {
    let mut snapshot = golden();
    snapshot.mounts.clear();
    assert!(render(&snapshot, NOW).contains("no network mounts"));
}
