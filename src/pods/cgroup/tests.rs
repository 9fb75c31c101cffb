use proptest::prelude::*;

use super::*;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const SLICE_UID: &str = "0b2e7d6c_9f0c_4c29_8a40_6d7a1f7e5a11";
const STATIC: &str = "8d2d9a3d1b7e4c6f9a0b1c2d3e4f5061";
const ID: &str = "4f1c0a9be5d24c7f8e3b6a5d9c0f1e2d3a4b5c6d7e8f90112233445566778899";

/// The file (`U`, `V`: a UID with dashes and with underscores, `S`: a static pod's, `C`: a container id), what it must be
/// read as, and where the shape is from.
#[rustfmt::skip]
const SHAPES: &[(&str, &str, &str)] = &[
    // cgroup v2, systemd driver.
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/cri-containerd-C.scope", "pod U C besteffort containerd", "KUBELET.md 4, measured"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "KUBELET.md 4, measured"),
    ("0::/kubepods.slice/kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "KUBELET.md 4, measured"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-C.scope", "pod U C burstable crio", "CRI-O internal/config/cgmgr/systemd.go"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-C.scope/container", "pod U C burstable crio", "crun with run.oci.systemd.subgroup"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-conmon-C.scope", "pod U - burstable -", "CRI-O's monitor: no container"),
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/docker-C.scope", "pod U C besteffort docker", "cri-dockerd, Docker's systemd driver"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podS.slice/cri-containerd-C.scope", "pod S C burstable containerd", "static pod: its UID is a hash without dashes"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice", "pod U - burstable -", "the pod's own cgroup"),
    ("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "kind: --cgroup-root=/kubelet"),
    ("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "kind"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope/init.scope", "pod U C burstable containerd", "systemd as PID 1 of a container"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope/system.slice/nginx.service", "pod U C burstable containerd", "a service in there"),
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/cri-containerd-C.scope/docker/C", "pod U C besteffort containerd", "docker in docker: the outer container"),
    ("0::/system.slice/containerd.service/kubepods-burstable-podV.slice:cri-containerd:C", "pod U C burstable containerd", "containerd without SystemdCgroup, containerd issue 4900"),
    // cgroup v2, cgroupfs driver.
    ("0::/kubepods/besteffort/podU/C", "pod U C besteffort -", "KUBELET.md 4; k3s"),
    ("0::/kubepods/burstable/podU/C", "pod U C burstable -", "k3s"),
    ("0::/kubepods/podU/C", "pod U C guaranteed -", "KUBELET.md 4"),
    ("0::/kubepods/burstable/podU/crio-C", "pod U C burstable crio", "CRI-O cgroupfs manager"),
    ("0::/kubepods/burstable/podU/kata_C", "pod U C burstable -", "Kata Containers"),
    ("0::/kubepods/burstable/podS/C", "pod S C burstable -", "static pod, cgroupfs"),
    ("0::/k8s.io/kubepods/besteffort/podU/C", "pod U C besteffort -", "a cgroup root of its own"),
    // cgroup v1 and hybrid.
    ("12:pids:/\n11:memory:/kubepods/burstable/podU/C\n1:name=systemd:/kubepods/burstable/podU/C\n", "pod U C burstable -", "cgroup v1, cgroupfs"),
    ("4:memory:/kubepods.slice/kubepods-podV.slice/docker-C.scope\n1:name=systemd:/kubepods.slice/kubepods-podV.slice/docker-C.scope\n0::/\n", "pod U C guaranteed docker", "hybrid, Docker"),
    ("9:cpuset:/\n8:memory:/system.slice/kubelet.service\n3:cpu,cpuacct:/kubepods/besteffort/podU/C\n", "pod U C besteffort -", "only some hierarchies are the pod's"),
    // From within a private cgroup namespace.
    ("0::/../../kubepods-besteffort-podV.slice/cri-containerd-C.scope", "pod U C besteffort containerd", "another pod of the same class"),
    ("0::/../../../kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "a pod of another class"),
    ("0::/../../../kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "a Guaranteed pod"),
    ("0::/../../podU/C", "pod U C ? -", "cgroupfs, same class: the class is cut off"),
    ("0::/../../../burstable/podU/C", "pod U C burstable -", "cgroupfs, another class"),
    ("0::/../cri-containerd-C.scope", "container C containerd", "another container of the agent's own pod"),
    ("0::/../../../../system.slice/sshd.service", "unit sshd.service", "a service"),
    ("0::/", "other", "the agent itself"),
    // No pods.
    ("0::/system.slice/docker-C.scope", "container C docker", "Docker, systemd driver"),
    ("0::/docker/C", "container C docker", "Docker, cgroupfs driver"),
    ("10:memory:/docker/C\n0::/system.slice/containerd.service\n", "container C docker", "Docker on cgroup v1"),
    ("0::/machine.slice/libpod-C.scope/container", "container C podman", "Podman"),
    ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-C.scope/container", "container C podman", "rootless Podman"),
    ("0::/system.slice/nerdctl-C.scope", "container C -", "nerdctl"),
    ("0::/ecs/0123456789abcdef0123456789abcdef/C", "container C -", "Amazon ECS"),
    ("0::/lxc.payload.web/system.slice/nginx.service", "lxc web", "LXC 4, Incus"),
    ("0::/lxc/db/init.scope", "lxc db", "LXC 3"),
    ("0::/machine.slice/machine-build.scope/payload", "machine machine-build.scope", "systemd-nspawn"),
    ("0::/system.slice/systemd-udevd.service/udev", "unit systemd-udevd.service", "KUBELET.md 4: holds copies"),
    ("0::/user.slice/user-1000.slice/session-3.scope", "unit session-3.scope", "a login"),
    ("0::/init.scope", "unit init.scope", "PID 1"),
    ("0::/system.slice/run-u12.service", "unit run-u12.service", "systemd-run"),
    ("0::/system.slice/kubepods-helper.service", "unit kubepods-helper.service", "a name that looks like one"),
    ("0::/podinfo/C", "container C -", "a directory that only begins like a pod"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podnonsense.slice/x", "other", "no UID"),
    ("", "other", "a zombie's file can be empty"),
];

fn words(owner: &Owner) -> String {
    let class = |qos: &Option<Qos>| qos.map_or("?".to_owned(), |qos| format!("{qos:?}").to_lowercase());
    let runtime = |runtime: &Option<Runtime>| runtime.map_or("-".to_owned(), |it| format!("{it:?}").to_lowercase());
    match owner {
        Owner::Pod { uid, container, qos, runtime: by } => {
            format!("pod {uid} {} {} {}", container.as_deref().unwrap_or("-"), class(qos), runtime(by))
        }
        Owner::Container { id, runtime: by } => format!("container {id} {}", runtime(by)),
        Owner::Lxc(name) => format!("lxc {name}"),
        Owner::Machine(name) => format!("machine {name}"),
        Owner::Unit(name) => format!("unit {name}"),
        Owner::Other(_) => "other".to_owned(),
    }
}

/// Puts the ids in the place of their letters, which stand alone or behind a name that does not end with a capital.
fn fill(text: &str) -> String {
    let mut out = String::new();
    let letters: Vec<char> = text.chars().collect();
    for (index, letter) in letters.iter().enumerate() {
        let next = letters.get(index + 1).copied().unwrap_or(' ');
        let whole = !next.is_ascii_alphanumeric();
        match letter {
            'U' if whole => out.push_str(UID),
            'V' if whole => out.push_str(SLICE_UID),
            'S' if whole => out.push_str(STATIC),
            'C' if whole => out.push_str(ID),
            other => out.push(*other),
        }
    }
    out
}

#[test]
fn every_shape_is_read_as_what_it_is() {
    assert!(SHAPES.len() >= 40);
    for (file, expected, from) in SHAPES {
        assert_eq!(words(&Owner::parse(fill(file).as_bytes())), fill(expected), "{file} ({from})");
    }
}

#[test]
fn holders_are_named_as_people_know_them() {
    let said = |file: &str| Owner::parse(fill(file).as_bytes()).words();
    assert_eq!(said("0::/system.slice/systemd-udevd.service"), "systemd-udevd.service");
    assert_eq!(said("0::/docker/C"), "container 4f1c0a9be5d2");
    assert_eq!(said("0::/"), "a process");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Owner::parse(&bytes).words();
    }
}
