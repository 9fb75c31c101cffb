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
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/cri-containerd-C.scope", "pod U C besteffort containerd", "measured on Kubernetes 1.36; kubernetes pkg/kubelet/cm/cgroup_manager_linux.go CgroupName.ToSystemd; containerd internal/cri/server/helpers.go getCgroupsPath"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "measured; pkg/kubelet/cm/pod_container_manager_linux.go GetPodContainerName; opencontainers/cgroups systemd/common.go getUnitName"),
    ("0::/kubepods.slice/kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "measured; pkg/kubelet/cm/pod_container_manager_linux.go GetPodContainerName (Guaranteed: no class in the path)"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-C.scope", "pod U C burstable crio", "cri-o internal/config/cgmgr/systemd_linux.go ContainerCgroupAbsolutePath"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-C.scope/container", "pod U C burstable crio", "cri-o internal/config/cgmgr/cgmgr_linux.go crunContainerCgroupManager (crun)"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/crio-conmon-C.scope", "pod U - burstable -", "cri-o internal/config/cgmgr/systemd_linux.go MoveConmonToCgroup: the monitor, no container"),
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/docker-C.scope", "pod U C besteffort docker", "moby daemon/oci_linux.go WithCgroups with the pod's slice as CgroupParent; paths in vishvananda/netns netns_linux.go getPidForContainer"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podS.slice/cri-containerd-C.scope", "pod S C burstable containerd", "kubernetes pkg/kubelet/config/common.go applyDefaults: the UID is the hex of an MD5"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice", "pod U - burstable -", "pkg/kubelet/cm/pod_container_manager_linux.go GetPodContainerName: the pod's own cgroup"),
    ("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "kind --cgroup-root=/kubelet: opencontainers/cgroups systemd/common.go ExpandSlice joins the prefixes"),
    ("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "the same for Guaranteed"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope/init.scope", "pod U C burstable containerd", "systemd as PID 1 of a container: org.freedesktop.systemd1 puts itself into init.scope (systemd src/core/unit.c, special.h)"),
    ("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope/system.slice/nginx.service", "pod U C burstable containerd", "a service of it: system.slice is its default slice (systemd.special(7))"),
    ("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podV.slice/cri-containerd-C.scope/docker/C", "pod U C besteffort containerd", "moby daemon/oci_linux.go WithCgroups inside of a container: the outer one counts"),
    ("0::/system.slice/containerd.service/kubepods-burstable-podV.slice:cri-containerd:C", "pod U C burstable containerd", "containerd internal/cri/server/helpers.go getCgroupsPath gives slice:cri-containerd:ID, which runc without SystemdCgroup takes as a path below its own (containerd issue 4900)"),
    // cgroup v2, cgroupfs driver.
    ("0::/kubepods/besteffort/podU/C", "pod U C besteffort -", "measured; kubernetes pkg/kubelet/cm/cgroup_manager_linux.go CgroupName.ToCgroupfs; containerd internal/cri/server/helpers.go getCgroupsPath"),
    ("0::/kubepods/burstable/podU/C", "pod U C burstable -", "kubernetes pkg/kubelet/cm/cgroup_manager_linux.go CgroupName.ToCgroupfs"),
    ("0::/kubepods/podU/C", "pod U C guaranteed -", "measured; pkg/kubelet/cm/pod_container_manager_linux.go GetPodContainerName"),
    ("0::/kubepods/burstable/podU/crio-C", "pod U C burstable crio", "cri-o internal/config/cgmgr/cgroupfs_linux.go ContainerCgroupPath (crio-ID below the pod)"),
    ("0::/kubepods/burstable/podU/crio-conmon-C", "pod U - burstable -", "cri-o internal/config/cgmgr/cgroupfs_linux.go MoveConmonToCgroup"),
    ("0::/kubepods/burstable/podU/kata_C", "pod U C burstable -", "kata-containers resourcecontrol RenameCgroupPath: kata_ before the last part"),
    ("0::/kubepods/burstable/podS/C", "pod S C burstable -", "kubernetes pkg/kubelet/config/common.go applyDefaults, cgroupfs"),
    ("0::/k8s.io/kubepods/besteffort/podU/C", "pod U C besteffort -", "--cgroup-root=/k8s.io: NewContainerManager puts kubepods below it (pkg/kubelet/cm/container_manager_linux.go)"),
    // cgroup v1 and hybrid.
    ("12:pids:/\n11:memory:/kubepods/burstable/podU/C\n1:name=systemd:/kubepods/burstable/podU/C\n", "pod U C burstable -", "cgroups(7): one line per hierarchy; the paths of ToCgroupfs"),
    ("4:memory:/kubepods.slice/kubepods-podV.slice/docker-C.scope\n1:name=systemd:/kubepods.slice/kubepods-podV.slice/docker-C.scope\n0::/\n", "pod U C guaranteed docker", "hybrid (cgroups(7)): moby daemon/oci_linux.go WithCgroups"),
    ("9:cpuset:/\n8:memory:/system.slice/kubelet.service\n3:cpu,cpuacct:/kubepods/besteffort/podU/C\n", "pod U C besteffort -", "cgroups(7), opencontainers/cgroups fs.go: what is not delegated stays where the parent is"),
    // From within a private cgroup namespace.
    ("0::/../../kubepods-besteffort-podV.slice/cri-containerd-C.scope", "pod U C besteffort containerd", "cgroup_namespaces(7): paths outside the root begin with /.."),
    ("0::/../../../kubepods-burstable.slice/kubepods-burstable-podV.slice/cri-containerd-C.scope", "pod U C burstable containerd", "cgroup_namespaces(7)"),
    ("0::/../../../kubepods-podV.slice/cri-containerd-C.scope", "pod U C guaranteed containerd", "cgroup_namespaces(7)"),
    ("0::/../../podU/C", "pod U C ? -", "cgroup_namespaces(7), cgroupfs: the class is cut off"),
    ("0::/../../../burstable/podU/C", "pod U C burstable -", "cgroup_namespaces(7), cgroupfs"),
    ("0::/../cri-containerd-C.scope", "container C containerd", "cgroup_namespaces(7): another container of the agent's own pod"),
    ("0::/../../../../system.slice/sshd.service", "unit sshd.service", "cgroup_namespaces(7): a service"),
    ("0::/", "other", "cgroup_namespaces(7): the agent itself"),
    // No pods.
    ("0::/system.slice/docker-C.scope", "container C docker", "moby daemon/oci_linux.go WithCgroups: parent system.slice, scopePrefix docker"),
    ("0::/docker/C", "container C docker", "moby daemon/oci_linux.go WithCgroups: parent /docker"),
    ("10:memory:/docker/C\n0::/system.slice/containerd.service\n", "container C docker", "moby daemon/oci_linux.go WithCgroups, cgroup v1"),
    ("0::/machine.slice/libpod-C.scope/container", "container C podman", "podman libpod/container_internal createUnitName; crun makes container below"),
    ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-C.scope/container", "container C podman", "podman libpod/container.go CGroupPath: user-UID.slice/user@UID.service/user.slice"),
    ("0::/system.slice/nerdctl-C.scope", "container C -", "nerdctl generateCgroupPath: scopePrefix :nerdctl:"),
    ("0::/ecs/0123456789abcdef0123456789abcdef/C", "container C -", "amazon-ecs-agent agent/api/task/task_linux.go BuildCgroupRoot: DefaultTaskCgroupPrefix /ecs"),
    ("0::/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-C.scope", "container C docker", "amazon-ecs-agent with the systemd driver: a slice per task as CgroupParent of Docker"),
    ("0::/lxc.payload.web/system.slice/nginx.service", "lxc web", "lxc src/lxc/cgroups/cgfsng.c: lxc.payload.NAME"),
    ("0::/lxc/db/init.scope", "lxc db", "lxc before 4.0: lxc/NAME"),
    ("0::/machine.slice/machine-build.scope/payload", "machine machine-build.scope", "systemd-machined(8), systemd.special(7): machine.slice"),
    ("0::/system.slice/systemd-udevd.service/udev", "unit systemd-udevd.service", "measured: it holds copies of mounts"),
    ("0::/user.slice/user-1000.slice/session-3.scope", "unit session-3.scope", "systemd-logind(8)"),
    ("0::/init.scope", "unit init.scope", "systemd.special(7)"),
    ("0::/system.slice/run-u12.service", "unit run-u12.service", "systemd-run(1)"),
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
