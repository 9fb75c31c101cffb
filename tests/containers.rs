//! What containers have mounted, on the real kernel: mount namespaces with processes in them, and FUSE. The control
//! groups are written, everything else of the proc tree is the kernel's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common {
    #![allow(
        dead_code,
        unreachable_pub,
        clippy::indexing_slicing,
        reason = "shared: each test crate uses its part of it"
    )]
    pub mod agent;
    pub mod apiserver;
    pub mod fusefs;
    pub mod namespace;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use std::path::{Path, PathBuf};

use common::agent::{Agent, Launch};
use common::apiserver::{ApiServer, objects};
use common::fusefs::FuseFs;
use common::namespace::{Namespace, Proc};
use common::sandbox::Sandbox;
use common::wait::PATIENCE;
use mountwarden::snapshot::MountStatus;
use mountwarden::verdict::{Finding, State};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const CONTAINER: &str = "4f1ad2c5b0e3a7968d1c0b9a8f7e6d5c4b3a29180716f5e4d3c2b1a09f8e7d6c";

fn cgroup(container: &str) -> String {
    let uid = UID.replace('-', "_");
    format!(
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice/cri-containerd-{container}.scope\n"
    )
}

/// A volume as the kubelet has it, on FUSE.
fn volume(sandbox: &Sandbox) -> (PathBuf, FuseFs) {
    let volume = sandbox.path().join(format!("pods/{UID}/volumes/kubernetes.io~csi/pv-1/mount"));
    std::fs::create_dir_all(&volume).unwrap();
    let fs = FuseFs::mount(&volume, &[]);
    (volume, fs)
}

fn start(sandbox: &Sandbox, proc: &Proc) -> Agent {
    start_with(sandbox, proc, &[])
}

fn start_with(sandbox: &Sandbox, proc: &Proc, flags: &[&str]) -> Agent {
    let config = sandbox.path().join("config.yaml");
    std::fs::write(&config, "interval: 1s\ntimeout: 500ms\nslow: 400ms\n").unwrap();
    let proc_root = proc.path().to_str().unwrap();
    Launch::new(&[&["--config", config.to_str().unwrap(), "--proc-root", proc_root], flags].concat()).start()
}

fn used_at(path: &str) -> impl Fn(&MountStatus) -> bool {
    let path = path.to_owned();
    move |mount| mount.users.iter().any(|user| user.path.as_deref() == Some(&path))
}

#[test]
fn a_container_is_named_with_its_pod_volume_and_path() {
    let Some(sandbox) = Sandbox::enter("a_container_is_named_with_its_pod_volume_and_path") else { return };
    let (volume, _fs) = volume(&sandbox);
    let (data, other) = (sandbox.dir("data"), sandbox.dir("held"));
    let container = Namespace::bind(&volume, &data);
    let session = Namespace::bind(&volume, &other);
    let proc = Proc::new(sandbox.path());
    proc.add(container.id(), &cgroup(CONTAINER));
    proc.add(session.id(), "0::/user.slice/user-0.slice/session-4.scope\n");
    let agent = start(&sandbox, &proc);
    let both = used_at(data.to_str().unwrap());
    let mount = agent.eventually(&volume, PATIENCE, |mount| both(mount) && !mount.holders.is_empty());
    assert_eq!((mount.state, mount.pod_count, mount.users.len()), (State::Healthy, 1, 1), "{:?}", mount.users);
    let user = &mount.users[0];
    assert_eq!((user.pod_uid.as_str(), user.volume.as_str()), (UID, "pv-1"));
    assert_eq!(user.container_id.as_deref(), Some(CONTAINER));
    assert_eq!(mount.holders.len(), 1, "a session is no pod: {:?}", mount.holders);
    assert_eq!(
        (mount.holders[0].who.as_str(), mount.holders[0].pid),
        ("session-4.scope", i32::try_from(session.id()).unwrap())
    );
    assert_eq!(mount.paths, [volume.to_str().unwrap()], "paths are the host's");
    let (text, _) = agent.scrape();
    assert!(text.contains("mountwarden_mount_pods{") && text.contains("} 1\n"), "{text}");

    // It ends: no error, and nobody uses the mount at that path any more.
    proc.remove(container.id());
    container.end();
    agent.eventually(&volume, PATIENCE, |mount| mount.users.iter().all(|user| user.path.is_none()));
    assert_eq!(agent.snapshot().mounts.len(), 1);
}

#[test]
fn a_mount_that_the_host_gave_up_lives_on_in_its_container() {
    let Some(sandbox) = Sandbox::enter("a_mount_that_the_host_gave_up_lives_on_in_its_container") else { return };
    let (volume, mut fs) = volume(&sandbox);
    let data = sandbox.dir("data");
    let container = Namespace::bind(&volume, &data);
    let proc = Proc::new(sandbox.path());
    proc.add(container.id(), &cgroup(CONTAINER));
    let agent = start(&sandbox, &proc);
    agent.eventually(&volume, PATIENCE, used_at(data.to_str().unwrap()));
    umount2(&volume, MntFlags::MNT_DETACH).unwrap();
    let fresh = FuseFs::mount(&volume, &[]);
    let two = |agent: &Agent| {
        let mounts = agent.snapshot().mounts;
        (mounts.len() == 2 && mounts.iter().all(|mount| mount.state == State::Healthy)).then_some(mounts)
    };
    let mounts = common::wait::eventually("both mounts are targets", PATIENCE, || two(&agent));
    let triples: std::collections::BTreeSet<_> =
        mounts.iter().map(|mount| (&mount.mountpoint, &mount.source)).collect();
    assert_eq!(triples.len(), 2, "series of their own");
    // Its daemon dies: the container's mount is dead, the host's is not.
    fs.kill();
    common::wait::eventually("the container's mount is lost", PATIENCE, || {
        let mounts = agent.snapshot().mounts;
        let lost = mounts.iter().find(|mount| mount.state == State::Lost)?;
        (mounts.len() == 2 && used_at(data.to_str().unwrap())(lost)).then_some(())
    });
    agent.eventually(&volume, PATIENCE, |mount| mount.state == State::Healthy);
    drop(fresh);
    assert!(Path::new(&format!("/proc/{}", container.id())).exists());
}

/// It takes three looks at the processes, and on a busy machine the agent spaces them by a hundred times what one took.
const SEVERAL_LOOKS: std::time::Duration = std::time::Duration::from_secs(180);

/// The cgroup of one of two pods, its UID, and the id of its container.
fn of_pod(index: usize) -> (String, String, String) {
    let uid = format!("{index}{}", &UID[1..]);
    let container = format!("{index}{}", &CONTAINER[1..]);
    (cgroup(&container).replace(&UID.replace('-', "_"), &uid.replace('-', "_")), uid, container)
}

#[test]
fn a_container_that_has_the_nodes_disk_where_another_has_the_share_is_named() {
    let name = "a_container_that_has_the_nodes_disk_where_another_has_the_share_is_named";
    let Some(sandbox) = Sandbox::enter(name) else { return };
    let (shared, data) = (sandbox.dir("shared"), sandbox.dir("data"));
    mount(Some("none"), &shared, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let api = ApiServer::start();
    api.put(objects::node("node-1"));
    api.put(objects::namespace("shop"));
    let proc = Proc::new(sandbox.path());
    for index in 0..2 {
        let (_, uid, container) = of_pod(index);
        let mut pod = objects::pod("shop", &format!("web-{index}"), &uid, "node-1");
        pod["spec"]["volumes"] = json!([{"name": "files", "hostPath": {"path": shared}}]);
        pod["spec"]["containers"] = json!([{"name": "app", "volumeMounts": [{"name": "files", "mountPath": data}]}]);
        let status =
            json!({"name": "app", "containerID": format!("containerd://{container}"), "state": {"running": {}}});
        pod["status"]["containerStatuses"] = json!([status]);
        api.put(pod);
    }
    // The first one is started before the host has mounted anything there, the second one after.
    let first = Namespace::bind(&shared, &data);
    let _fs = FuseFs::mount(&shared, &[]);
    let second = Namespace::bind(&shared, &data);
    proc.add(first.id(), &of_pod(0).0);
    proc.add(second.id(), &of_pod(1).0);
    let kubeconfig = api.kubeconfig(sandbox.path());
    let agent = start_with(&sandbox, &proc, &["--node-name", "node-1", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    let is_apart = |mount: &MountStatus| mount.findings.contains(&Finding::NotShared);
    let found = agent.eventually(&shared, SEVERAL_LOOKS, is_apart);
    let path = data.display();
    assert_eq!(
        found.finding_words(Finding::NotShared),
        format!(
            "shop/web-0 (app) has tmpfs of this node at {path}, where shop/web-1 (app) has this mount at {path}: \
             both mount hostPath {}",
            shared.display()
        )
    );
    assert_eq!(found.state, State::Healthy, "it is no state");

    // Started anew it has what the host has.
    proc.remove(first.id());
    first.end();
    let again = Namespace::bind(&shared, &data);
    proc.add(again.id(), &of_pod(0).0);
    agent.eventually(&shared, SEVERAL_LOOKS, |mount| !is_apart(mount) && mount.pod_count == 2);
}
