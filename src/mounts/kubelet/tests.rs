use super::*;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const STATIC: &str = "8d2d9a3d1b7e4c6f9a0b1c2d3e4f5061";

/// Path (`U`: a pod's UID, `S`: a static pod's), what it must be read as, and where the shape is from.
#[rustfmt::skip]
const SHAPES: &[(&str, &str, &str)] = &[
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~nfs/data", "volume U kubernetes.io/nfs data", "measured on Kubernetes 1.36; pkg/volume/nfs/nfs.go GetPath, kubelet_getters.go getPodVolumeDir"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~csi/pvc-8a1f/mount", "volume U kubernetes.io/csi pvc-8a1f", "pkg/volume/csi/csi_mounter.go GetCSIMounterPath"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~csi/pvc-8a1f/mount/in/side", "volume U kubernetes.io/csi pvc-8a1f below in/side", "a mount inside of one"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~azure-file/share", "volume U kubernetes.io/azure-file share", "pkg/volume/azure_file/azure_file.go GetPath (in-tree, removed since)"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~cephfs/pv-1", "volume U kubernetes.io/cephfs pv-1", "pkg/volume/cephfs/cephfs.go GetPath (in-tree, removed since)"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~glusterfs/pv-1", "volume U kubernetes.io/glusterfs pv-1", "pkg/volume/glusterfs/glusterfs.go GetPath (in-tree, removed since)"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~local-volume/pv-2", "volume U kubernetes.io/local-volume pv-2", "pkg/volume/local/local.go GetPath"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~empty-dir/cache", "volume U kubernetes.io/empty-dir cache", "pkg/volume/emptydir/empty_dir.go getPath"),
    ("/var/lib/kubelet/pods/U/volumes/kubernetes.io~projected/kube-api-access-x2", "volume U kubernetes.io/projected kube-api-access-x2", "pkg/volume/projected/projected.go getPath"),
    ("/var/lib/kubelet/pods/U/volumes/example.com~cifs/share", "volume U example.com/cifs share", "pkg/volume/flexvolume/volume.go GetPath: the driver's own name"),
    ("/var/lib/kubelet/pods/S/volumes/kubernetes.io~nfs/data", "volume S kubernetes.io/nfs data", "static pod: pkg/kubelet/config/common.go applyDefaults"),
    ("/var/lib/kubelet/pods/U/volume-subpaths/pv-1/app/0", "subpath U pv-1 app", "measured; pkg/volume/util/subpath/subpath_linux.go getSubpathBindTarget"),
    ("/var/lib/kubelet/pods/U/volumeDevices/kubernetes.io~csi/pvc-9", "device U pvc-9", "pkg/volume/csi/csi_block.go GetPodDeviceMapPath"),
    ("/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-9/U", "device U pvc-9", "pkg/volume/csi/csi_block.go getPublishPath (getPublishDir and the pod's UID)"),
    ("/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/staging/pvc-9", "staging kubernetes.io/csi pvc-9", "pkg/volume/csi/csi_block.go GetStagingPath"),
    ("/var/lib/kubelet/plugins/kubernetes.io/csi/efs.csi.aws.com/0a1b2c/globalmount", "staging efs.csi.aws.com 0a1b2c", "pkg/volume/csi/csi_attacher.go makeDeviceMountPath, since 1.24"),
    ("/var/lib/kubelet/plugins/kubernetes.io/csi/pv/pvc-8a1f/globalmount", "staging kubernetes.io/csi pvc-8a1f", "the same before 1.24"),
    ("/var/lib/kubelet/plugins/kubernetes.io/gce-pd/mounts/disk-1", "staging kubernetes.io/gce-pd disk-1", "pkg/volume/gcepd/gce_util.go makeGlobalPDName"),
    ("/var/lib/kubelet/plugins/kubernetes.io/aws-ebs/mounts/aws/eu-1a/vol-0a", "staging kubernetes.io/aws-ebs vol-0a", "pkg/volume/awsebs/aws_ebs.go makeGlobalPDPath"),
    ("/var/lib/k0s/kubelet/pods/U/volumes/kubernetes.io~nfs/data", "volume U kubernetes.io/nfs data", "k0s"),
    ("/var/snap/microk8s/common/var/lib/kubelet/pods/U/volumes/kubernetes.io~nfs/data", "volume U kubernetes.io/nfs data", "microk8s"),
    ("/mnt/pods/kubelet/pods/U/volumes/kubernetes.io~nfs/data", "volume U kubernetes.io/nfs data", "--root-dir below a directory named pods"),
    ("/pods/U/volumes/kubernetes.io~nfs/data", "volume U kubernetes.io/nfs data", "mountinfo root where /var/lib/kubelet is a disk"),
    ("/var/lib/kubelet/pods/U/etc-hosts", "-", "pkg/kubelet/kubelet_pods.go makeHostsMount"),
    ("/var/lib/kubelet/pods/U/containers/app/1a2b", "-", "pkg/kubelet/kubelet_getters.go getPodContainerDir"),
    ("/var/lib/kubelet/pods/U/volumes", "-", "no volume yet"),
    ("/var/lib/kubelet/pods/not-a-uid/volumes/kubernetes.io~nfs/data", "-", ""),
    ("/mnt/pods/short/volumes/x/y", "-", "a directory of that name"),
    ("/srv/data", "-", ""),
    ("/pods", "-", ""),
    ("/", "-", ""),
];

fn words(path: &KubeletPath) -> String {
    match path {
        KubeletPath::Volume { pod_uid, plugin, directory, below } if below.is_empty() => {
            format!("volume {pod_uid} {plugin} {directory}")
        }
        KubeletPath::Volume { pod_uid, plugin, directory, below } => {
            format!("volume {pod_uid} {plugin} {directory} below {below}")
        }
        KubeletPath::SubPath { pod_uid, directory, container } => format!("subpath {pod_uid} {directory} {container}"),
        KubeletPath::Device { pod_uid, directory } => format!("device {pod_uid} {directory}"),
        KubeletPath::Staging { plugin, volume } => format!("staging {plugin} {volume}"),
    }
}

#[test]
fn every_path_of_the_kubelet_is_read_as_what_it_is() {
    for (path, expected, from) in SHAPES {
        let fill = |text: &str| text.replace("/U", &format!("/{UID}")).replace("/S", &format!("/{STATIC}"));
        let expected = expected.replace(" U", &format!(" {UID}")).replace(" S ", &format!(" {STATIC} "));
        let read = KubeletPath::parse(Path::new(&fill(path)));
        assert_eq!(read.as_ref().map_or_else(|| "-".to_owned(), words), expected, "{path} ({from})");
    }
}

#[test]
fn only_plugins_that_mount_prove_that_a_mount_is_missing() {
    let has_to = |below: &str| {
        let path = format!("/var/lib/kubelet/pods/{UID}/volumes/{below}");
        KubeletPath::parse(Path::new(&path)).is_some_and(|path| path.has_to_be_mounted())
    };
    assert!(has_to("kubernetes.io~nfs/a") && has_to("kubernetes.io~csi/a/mount"));
    for below in ["kubernetes.io~empty-dir/a", "kubernetes.io~configmap/a", "kubernetes.io~host-path/a", "acme~x/a"] {
        assert!(!has_to(below), "{below}");
    }
}

#[test]
fn the_pod_of_a_path_is_that_of_its_volume() {
    for below in ["volumes/kubernetes.io~nfs/data", "volume-subpaths/data/app/0", "volumeDevices/kubernetes.io~csi/x"] {
        let path = format!("/var/lib/kubelet/pods/{UID}/{below}");
        assert_eq!(pod_uid(Path::new(&path)).as_deref(), Some(UID), "{path}");
    }
    for uid in ["", "0b2e7d6c", "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a1g", "--------------------------------"] {
        assert!(!is_pod_uid(uid), "{uid}");
    }
}
