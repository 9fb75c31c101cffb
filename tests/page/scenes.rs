//! Situations that the page is looked at in.

use std::time::SystemTime;

use mountwarden::snapshot::{Change, Intent, MountStatus, MountUser, PodPlan, Snapshot, StepStatus};
use mountwarden::verdict::advice::{AdviceFacts, advice};
use mountwarden::verdict::{Cause, State};

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The golden document, made a moment ago, without what troubles its cluster.
fn base() -> Snapshot {
    let golden = include_str!("../fixtures/golden/snapshot.json");
    let mut snapshot: Snapshot = serde_json::from_str(golden).unwrap();
    let moved = now() - snapshot.generated;
    snapshot.generated += moved;
    snapshot.node = "ip-10-0-3-17".to_owned();
    snapshot.history.clear();
    (snapshot.pending, snapshot.pending_count) = (Vec::new(), 0);
    snapshot.kubelet_mounts.clear();
    snapshot.plan.clear();
    snapshot.autofs.clear();
    snapshot.agent.workers_stuck = 0;
    snapshot.agent.host_error = None;
    snapshot.agent.config_ok = true;
    snapshot.agent.cluster = None;
    snapshot
}

fn mount(
    like: &MountStatus,
    server: &str,
    export: &str,
    path: &str,
    state: State,
    cause: Option<Cause>,
    age: f64,
) -> MountStatus {
    let at = now();
    let mut mount = like.clone();
    mount.mountpoint = path.to_owned();
    mount.paths = vec![path.to_owned()];
    mount.path_count = 1;
    mount.source = format!("{server}:{export}");
    mount.fstype = "nfs4".to_owned();
    mount.origin.server = Some(server.to_owned());
    mount.origin.export = Some(export.to_owned());
    mount.origin.version = Some("4.1".to_owned());
    mount.origin.port = Some(2049);
    (mount.state, mount.cause, mount.since) = (state, cause, at - age);
    (mount.inherited, mount.gate, mount.canary) = (false, None, None);
    (mount.findings, mount.users, mount.pod_count) = (Vec::new(), Vec::new(), 0);
    mount.last_probe = Some(at - 3.2);
    mount.last_success = Some(if state == State::Healthy { at - 3.2 } else { at - age - 11.0 });
    mount.blocked_seconds = if state == State::Hung { age } else { 0.0 };
    let facts =
        AdviceFacts { mountpoint: path, server: Some(server), export: Some(export), port: Some(2049), fstype: "nfs4" };
    mount.advice = advice(state, cause.unwrap_or(Cause::Unknown), &facts);
    mount.evidence = match state {
        State::Hung => {
            "The forced statx of the root has not answered within 5 s; the worker sits in rpc_wait_bit_killable."
        }
        State::Stale => "statx of the root said ESTALE after 0.4 ms, and the server answers",
        _ => "every step answered",
    }
    .to_owned();
    let step = |step: &str, seconds, error: Option<&str>| StepStatus {
        step: step.into(),
        seconds,
        error: error.map(str::to_owned),
    };
    mount.steps = match state {
        State::Hung => vec![step("statx_root", 5.0, None)],
        State::Stale => vec![step("statx_root", 0.0004, Some("ESTALE"))],
        _ => vec![step("statx_root", 0.0006, None), step("sentinel", 0.0011, None), step("statfs", 0.0007, None)],
    };
    mount
}

fn pod(mount: &mut MountStatus, index: usize, namespace: &str, name: &str) {
    mount.users.push(MountUser {
        pod_uid: format!("0b2e7d6c-9f0c-4c29-8a40-{index:012x}"),
        namespace: Some(namespace.to_owned()),
        pod: Some(name.to_owned()),
        volume: "data".to_owned(),
        ..MountUser::default()
    });
    mount.pod_count = mount.users.len();
}

fn count(snapshot: &mut Snapshot) {
    for state in State::ALL {
        let number = snapshot.mounts.iter().filter(|mount| mount.state == state).count();
        snapshot.summary.insert(state.to_string(), number);
    }
}

fn change(
    server: &str,
    age: f64,
    from: State,
    to: State,
    cause: Option<Cause>,
    mountpoints: &[&str],
    count: usize,
) -> Change {
    Change {
        first: now() - age,
        last: now() - age + 4.0,
        server: server.to_owned(),
        from: Some(from),
        to: Some(to),
        cause,
        mountpoints: mountpoints.iter().map(|path| (*path).to_owned()).collect(),
        count,
    }
}

pub(crate) fn all() -> Vec<(&'static str, Snapshot)> {
    vec![
        ("healthy", healthy()),
        ("dead-server", dead_server()),
        ("crowd", crowd()),
        ("hostile", hostile()),
        ("empty", empty()),
    ]
}

fn healthy() -> Snapshot {
    let mut snapshot = base();
    let like = snapshot.mounts[0].clone();
    let mounts = [
        ("srv", "/a", "/mnt/home"),
        ("fs-0123456789abcdef0", "/", "/mnt/archive"),
        ("fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com", "/", "/mnt/models"),
        ("nas.example", "/export", "/srv/www"),
        ("nas.example", "/export", "/var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/uploads"),
    ];
    let healthy = |(server, export, path)| mount(&like, server, export, path, State::Healthy, None, 86_400.0);
    snapshot.mounts = mounts.map(healthy).to_vec();
    count(&mut snapshot);
    snapshot
}

pub(crate) fn dead_server() -> Snapshot {
    let mut snapshot = healthy();
    let like = snapshot.mounts[0].clone();
    let volume = |name: &str| format!("/var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/{name}");
    for (index, name) in ["uploads", "sessions", "cache"].into_iter().enumerate() {
        let mut dead = mount(
            &like,
            "10.0.5.20",
            &format!("/srv/{name}"),
            &volume(name),
            State::Hung,
            Some(Cause::ServerUnreachable),
            754.0 + index as f64,
        );
        for replica in 0..=index {
            pod(&mut dead, 10 * index + replica, "shop", &format!("web-{}", 10 * index + replica));
        }
        dead.path_count = index + 1;
        snapshot.mounts.push(dead);
    }
    let mut stale =
        mount(&like, "10.0.5.21", "/srv/orders", &volume("orders"), State::Stale, Some(Cause::ExportGone), 190.0);
    pod(&mut stale, 99, "shop", "orders-0");
    let user = &stale.users[0];
    snapshot.plan = vec![PodPlan {
        pod_uid: user.pod_uid.clone(),
        namespace: "shop".to_owned(),
        pod: "orders-0".to_owned(),
        mounts: stale.paths.clone(),
        state: State::Stale,
        evict: Intent {
            go: false,
            guard: Some("gate".to_owned()),
            words: "no two trial mounts that agree, at least the grace apart, prove that a new pod would find a working mount".to_owned(),
            advice: "Bring the server back; the agent tries on by itself.".to_owned(),
        },
        unstick: Intent {
            go: false,
            guard: Some("not_terminating".to_owned()),
            words: "the pod is not being deleted".to_owned(),
            advice: String::new(),
        },
    }];
    snapshot.mounts.push(stale);
    snapshot.servers[0].server = "10.0.5.20".to_owned();
    snapshot.servers[0].checked = now() - 4.0;
    for (check, (up, seconds)) in snapshot.servers[0].checks.iter_mut().zip([(true, 0.002), (false, 3.0), (false, 3.0)])
    {
        (check.up, check.seconds) = (up, seconds);
    }
    snapshot.history = vec![
        change("nas.example", 3000.0, State::Healthy, State::Slow, None, &["/mnt/archive"], 1),
        change("nas.example", 2800.0, State::Slow, State::Healthy, None, &["/mnt/archive"], 1),
        change(
            "10.0.5.20",
            754.0,
            State::Healthy,
            State::Hung,
            Some(Cause::ServerUnreachable),
            &[&volume("uploads"), &volume("sessions"), &volume("cache")],
            3,
        ),
        change("10.0.5.21", 190.0, State::Healthy, State::Stale, Some(Cause::ExportGone), &[&volume("orders")], 1),
    ];
    snapshot.agent.workers_stuck = 1;
    count(&mut snapshot);
    snapshot
}

/// 1,000 mounts of 40 servers; one server of 300 mounts is dead, and three more.
pub(crate) fn crowd() -> Snapshot {
    let mut snapshot = base();
    let like = snapshot.mounts[0].clone();
    snapshot.mounts = (0..1000)
        .map(|index| {
            let path = format!("/var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/data-{index}/mount");
            let (server, state, cause, age) = match index {
                0..300 => ("10.0.9.9".to_owned(), State::Hung, Some(Cause::ServerUnreachable), 5000.0),
                300..303 => (format!("10.0.8.{index}"), State::Stale, Some(Cause::HandleInvalid), 400.0),
                _ => (format!("10.0.7.{}", index % 37), State::Healthy, None, 90_000.0),
            };
            let mut mount = mount(&like, &server, &format!("/exports/{index}"), &path, state, cause, age);
            for replica in 0..4 {
                pod(
                    &mut mount,
                    4 * index + replica,
                    &format!("team-{}", index % 9),
                    &format!("worker-{index}-{replica}"),
                );
            }
            mount
        })
        .collect();
    snapshot.history = (0..200)
        .map(|index| {
            change(
                &format!("10.0.7.{}", index % 37),
                3500.0 - 17.0 * f64::from(index),
                State::Healthy,
                State::Slow,
                None,
                &["/data-400"],
                1,
            )
        })
        .collect();
    count(&mut snapshot);
    snapshot
}

fn hostile() -> Snapshot {
    let mut snapshot = dead_server();
    let names = [
        "/mnt/<script>window.pwned=1</script><img src=x onerror=window.pwned=1>",
        "/mnt/\"><svg onload=window.pwned=1>'`&amp;",
        "/mnt/safe\u{202e}gnp.exe\u{200b}\u{1b}[31m\u{7}",
        "/mnt/a name with spaces, tabs\tand\nnew lines",
    ];
    let long = "/mnt/".to_owned() + &"verylongpathwithoutanyspace".repeat(20);
    for (index, mount) in snapshot.mounts.iter_mut().enumerate() {
        let name = names.get(index % 5).map_or(long.clone(), |name| (*name).to_owned());
        mount.mountpoint.clone_from(&name);
        mount.source.clone_from(&name);
        mount.origin.server = Some(name.clone());
        mount.paths = vec![name.clone(); 3];
        mount.path_count = 9;
        mount.evidence = format!("The server said: {name}");
        let facts = AdviceFacts { mountpoint: &name, server: Some(&name), export: None, port: None, fstype: "nfs4" };
        mount.advice = advice(mount.state, mount.cause.unwrap_or(Cause::Unknown), &facts);
        for user in &mut mount.users {
            user.pod = Some(name.clone());
            user.volume.clone_from(&name);
        }
    }
    for change in &mut snapshot.history {
        change.server = names[0].to_owned();
        change.mountpoints = vec![names[1].to_owned(), names[2].to_owned()];
    }
    snapshot.node = names[0].to_owned();
    snapshot
}

fn empty() -> Snapshot {
    let mut snapshot = base();
    snapshot.mounts.clear();
    count(&mut snapshot);
    snapshot
}
