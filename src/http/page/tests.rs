use super::*;
use crate::snapshot::{Change, MountStatus, MountUser, Snapshot};
use crate::verdict::{Cause, State};

const NOW: f64 = 1_790_000_101.0;

fn golden() -> Snapshot {
    serde_json::from_str(include_str!("../../../tests/fixtures/golden/snapshot.json")).expect("fixture")
}

fn page(snapshot: &Snapshot) -> String {
    render(snapshot, &Filter::default(), NOW)
}

fn hung(snapshot: &Snapshot) -> MountStatus {
    snapshot.mounts.iter().find(|mount| mount.state == State::Hung).cloned().expect("a hung mount")
}

#[test]
fn the_dead_stand_above_the_unknown_and_the_healthy() {
    let page = page(&golden());
    let at = |needle: &str| page.find(needle).unwrap_or_else(|| panic!("{needle} is missing"));
    assert!(at("3 of 5 mounts dead.") < at("incident dead"));
    assert!(at("incident dead") < at("incident unknown"));
    assert!(at("<h3>/mnt/gone</h3>") < at("<h3>/mnt/gone/sub</h3>"), "an inherited verdict stands before its origin");
    assert!(at("<h3>/mnt/gone/sub</h3>") < at("</span> /mnt/user</h2>"));
    assert!(at("</span> /mnt/user</h2>") < at("<td>/mnt/data"));
}

#[test]
fn what_an_earlier_probe_took_is_no_evidence_of_one_that_is_blocked() {
    let mut snapshot = golden();
    let mut mount = hung(&snapshot);
    mount.steps =
        serde_json::from_value(serde_json::json!([{"step": "statx_root", "seconds": 0.0112}])).expect("a step");
    mount.blocked_seconds = 13.0;
    snapshot.mounts = vec![mount.clone()];
    let blocked = page(&snapshot);
    assert!(blocked.contains("blocked for <b>13 s</b>") && !blocked.contains("11.2 ms"), "{blocked}");
    // An error that came back is the last probe's.
    mount.blocked_seconds = 0.0;
    snapshot.mounts = vec![mount];
    assert!(page(&snapshot).contains("11.2 ms"));
}

#[test]
fn a_filesystem_without_a_server_is_named_by_its_source() {
    let mut snapshot = golden();
    let mut mount = hung(&snapshot);
    mount.origin.server = None;
    mount.source = "ops@files:/srv".to_owned();
    snapshot.mounts = vec![mount];
    let page = page(&snapshot);
    assert!(page.contains("source <a href=\"?server=ops%40files%3A/srv\">ops@files:/srv</a>"), "{page}");
}

#[test]
fn mounts_that_one_server_took_along_are_one_incident() {
    let mut snapshot = golden();
    let pattern = hung(&snapshot);
    let mount = |index: usize| {
        let user = MountUser {
            namespace: Some("shop".to_owned()),
            pod: Some(format!("web-{index}")),
            volume: "data".to_owned(),
            ..MountUser::default()
        };
        MountStatus { mountpoint: format!("/mnt/{index}"), users: vec![user], pod_count: 3, ..pattern.clone() }
    };
    snapshot.mounts = (0..60).map(mount).collect();
    let page = page(&snapshot);
    assert_eq!(page.matches("<article").count(), 1);
    assert!(page.contains("60 mounts of 10.0.0.2") && page.contains("shop/web-7 "));
    assert!(page.contains("First 60 mounts of 10.0.0.2: server unreachable for 1 min 41 s, 180 pods hit."), "{page}");
    // Three pods use each, one of which the snapshot names.
    assert!(page.contains("shop <small>60</small>") && page.contains("And 120 more: see"));
    assert!(page.contains("And 10 more: filter"), "50 of 60 are shown with their evidence");
}

#[test]
fn a_hostile_name_stays_text_wherever_it_stands() {
    let mut snapshot = golden();
    let hostile = "</code><script>alert(1)</script>\"'&`\u{202e}\u{1b}]0;x".to_owned();
    for mount in &mut snapshot.mounts {
        for text in
            [&mut mount.mountpoint, &mut mount.source, &mut mount.evidence, &mut mount.advice, &mut mount.fstype]
        {
            text.clone_from(&hostile);
        }
        mount.origin.server = Some(hostile.clone());
        mount.origin.version = Some(hostile.clone());
        mount.paths = vec![hostile.clone(); 3];
        mount.path_count = 3;
        mount.users = vec![MountUser {
            pod_uid: hostile.clone(),
            namespace: Some(hostile.clone()),
            pod: Some(hostile.clone()),
            volume: hostile.clone(),
            ..MountUser::default()
        }];
        mount.steps.iter_mut().for_each(|step| step.error = Some(hostile.clone()));
    }
    for server in &mut snapshot.servers {
        server.server.clone_from(&hostile);
        server.checks.iter_mut().for_each(|check| check.check.clone_from(&hostile));
    }
    for change in &mut snapshot.history {
        change.server.clone_from(&hostile);
        change.mountpoints = vec![hostile.clone()];
    }
    for pending in &mut snapshot.pending {
        for text in [&mut pending.pod, &mut pending.volume, &mut pending.source, &mut pending.evidence] {
            text.clone_from(&hostile);
        }
        pending.advice.clone_from(&hostile);
    }
    for plan in &mut snapshot.plan {
        plan.evict.words.clone_from(&hostile);
        plan.evict.advice.clone_from(&hostile);
        plan.pod.clone_from(&hostile);
        plan.mounts = vec![hostile.clone()];
    }
    assert!(!snapshot.pending.is_empty() && !snapshot.plan.is_empty());
    snapshot.node.clone_from(&hostile);
    snapshot.autofs[0].source.clone_from(&hostile);
    let filter = Filter { state: String::new(), server: String::new(), text: "script".to_owned() };
    for page in [
        page(&snapshot),
        render(&snapshot, &filter, NOW),
        render(&snapshot, &Filter { text: hostile, ..filter.clone() }, NOW),
    ] {
        // The one script is the page's own, and has a source instead of a text.
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("<script src=\"page.js\" defer></script>"));
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}') && !page.contains("alert(1)</"));
    }
}

#[test]
fn a_name_cannot_pass_its_own_words_off_as_a_command() {
    use crate::verdict::advice::{AdviceFacts, advice};
    let path = "/mnt/x` and then run `reboot` and `";
    let facts = AdviceFacts { mountpoint: path, server: None, export: None, port: None, fstype: "fuse.x" };
    let advice = advice(State::Hung, Cause::Unknown, &facts);
    let commands: Vec<_> = html::pieces(&advice).into_iter().filter(|piece| piece.is_command).collect();
    assert!(!commands.is_empty());
    assert!(commands.iter().all(|command| command.text.trim() != "reboot"), "{commands:?}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_nothing_inline() {
    let page = page(&golden());
    for foreign in ["http://", "https://", "@import", "url(", "style=", "onclick", "<style", "javascript:"] {
        assert!(!page.contains(foreign), "{foreign}");
        assert!(!STYLE.contains(foreign) || foreign == "<style", "{foreign}");
    }
    assert!(!SCRIPT.contains("http") && !SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval"));
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\""), "without scripts it renews itself too");
}

#[test]
fn a_filter_shows_what_it_names() {
    let snapshot = golden();
    let with = |query: &str| render(&snapshot, &Filter::of_query(Some(query)), NOW);
    for (query, shown, hidden) in [
        ("state=stale", "handle_invalid</b>", "server_unreachable</b>"),
        ("state=dead", "handle_invalid</b>", "<td>/mnt/data"),
        ("server=files.example", "handle_invalid</b>", "10.0.0.2:/gone"),
        ("server=files.example", "<b>shop/web-1</b>", "other.example"),
        ("q=other.example", "<b>shop/web-2</b>", "shop/web-1"),
        ("q=shop/web-0", "handle_invalid</b>", "server_unreachable</b>"),
        ("q=SERVER_UNREACH", "server_unreachable</b>", "handle_invalid</b>"),
        ("state=healthy", "<td>/mnt/data", "<article"),
    ] {
        let page = with(query);
        assert!(page.contains(shown) && !page.contains(hidden), "{query}");
        assert!(page.contains(" hidden. <a href=\"./\">Show all"), "{query}");
        assert!(page.contains("3 of 5 mounts dead."), "{query}: a filter hides no bad news from the summary");
    }
}

#[test]
fn the_last_hour_is_told_the_newest_first() {
    let page = page(&golden());
    let hour = page.split_once("id=\"hour\"").expect("a section").1;
    let (newer, older) = (hour.find("10.0.0.2").expect("one"), hour.find("files.example").expect("the other"));
    assert!(newer < older);
    assert!(hour.contains("2 mounts: /mnt/gone, /mnt/gone/sub"), "{hour}");
    let mut many = golden();
    let change = many.history[0].clone();
    many.history = vec![Change { cause: Some(Cause::Unknown), ..change }; 100];
    assert!(super::render(&many, &Filter::default(), NOW).contains("And 40 older ones"));
}

#[test]
fn rescues_and_the_reasons_against_them_are_told() {
    let mut snapshot = golden();
    let told = page(&snapshot);
    assert!(told.contains("<b>evict: no</b> (state), the mount&#39;s state is not one that an eviction heals."));
    assert!(told.contains("<b>unstick: yes</b>"), "{told}");
    snapshot.plan.clear();
    assert!(!page(&snapshot).contains("id=\"plan\""));
}

#[test]
fn pods_that_wait_for_a_volume_are_told_with_what_to_do() {
    let mut snapshot = golden();
    let told = page(&snapshot);
    let pending = snapshot.pending.first_mut().expect("one");
    assert!(told.contains("Pods that wait for a volume"));
    assert!(told.contains(&format!("<b>{}/{}</b>", pending.namespace, pending.pod)));
    let uid = format!("<b>{}</b>", pending.pod_uid);
    (pending.namespace, pending.pod) = (String::new(), String::new());
    assert!(page(&snapshot).contains(&uid), "nobody told its name");
}

#[test]
fn an_old_snapshot_an_unfinished_pass_and_troubles_are_said() {
    let mut snapshot = golden();
    assert!(!page(&snapshot).contains("This page is old"));
    assert!(page(&snapshot).contains("Cluster, node mounts: there is no NodeMounts"));
    snapshot.ready = false;
    snapshot.agent.config_ok = false;
    let page = render(&snapshot, &Filter::default(), NOW + 60.0);
    for words in ["This page is old", "still under way", "configuration file is not valid"] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_node_without_mounts_and_one_where_all_answer_say_so() {
    let mut snapshot = golden();
    snapshot.mounts.retain(|mount| mount.state == State::Healthy);
    assert!(page(&snapshot).contains("The one mount of this node answers."));
    snapshot.mounts.clear();
    assert!(page(&snapshot).contains("This node has no network mounts."));
}
