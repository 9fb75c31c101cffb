//! A pod's volume on a disk, on the real kernel: an ext4 image on a loop device that the kernel turns read-only, and a
//! disk that sysfs no longer lists. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod sandbox;
    pub mod wait;
}

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::agent::Agent;
use common::sandbox::{Sandbox, skip};
use common::wait::PATIENCE;
use mountwarden::snapshot::MountStatus;
use mountwarden::verdict::{Cause, State};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the kubelet would mount a volume, below any directory.
const VOLUME: &str = "pods/0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11/volumes/kubernetes.io~csi/pvc-1/mount";

/// A small ext4 image that is mounted; unmounted, its loop device goes by itself.
struct Disk {
    directory: PathBuf,
    device: String,
}

impl Disk {
    /// `None` where the kernel has no loop devices; the test is skipped then.
    fn mount(test: &str, sandbox: &Sandbox) -> Option<Disk> {
        if !Path::new("/dev/loop-control").exists() {
            skip(test, "there is no /dev/loop-control");
            return None;
        }
        let image = sandbox.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let directory = sandbox.path().join(VOLUME);
        std::fs::create_dir_all(&directory).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image));
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(&directory));
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(VOLUME)).expect("it is mounted");
        let device = line.split(' ').find_map(|word| word.strip_prefix("/dev/")).expect("it has a device").to_owned();
        Some(Disk { directory, device })
    }

    /// The kernel meets an error: ext4 has a switch for the tests of just this.
    fn fail(&self) {
        std::fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device), "1").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn start(sandbox: &Sandbox) -> Agent {
    let config = sandbox.path().join("config.yaml");
    std::fs::write(&config, "interval: 1s\ntimeout: 500ms\nslow: 400ms\n").unwrap();
    Agent::start(&["--config", config.to_str().unwrap()])
}

fn is(state: State, cause: Option<Cause>) -> impl Fn(&MountStatus) -> bool {
    move |mount| (mount.state, mount.cause) == (state, cause)
}

#[test]
fn a_volume_that_the_kernel_turns_read_only_is_read_only() {
    let test = "a_volume_that_the_kernel_turns_read_only_is_read_only";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let Some(disk) = Disk::mount(test, &sandbox) else { return };
    let agent = start(&sandbox);
    agent.eventually(&disk.directory, PATIENCE, is(State::Healthy, None));
    disk.fail();
    let refused = std::fs::write(disk.directory.join("x"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    // One probe asks for the table, the next one is judged by it.
    let limit = Duration::from_secs(3) + PATIENCE / 4;
    let mount = agent.eventually(&disk.directory, limit, is(State::Readonly, Some(Cause::MountedReadonly)));
    assert!(mount.advice.contains("dmesg") && mount.advice.contains("fsck"), "{}", mount.advice);
}

#[test]
fn a_volume_whose_disk_is_gone_is_an_error_although_it_answers() {
    let test = "a_volume_whose_disk_is_gone_is_an_error_although_it_answers";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let Some(disk) = Disk::mount(test, &sandbox) else { return };
    let agent = start(&sandbox);
    agent.eventually(&disk.directory, PATIENCE, is(State::Healthy, None));
    // A loop device in use cannot be pulled out. Its workers see this namespace, in which sysfs lists no disk any more.
    let listed = Path::new("/sys/dev/block");
    mount(Some("none"), listed, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    std::fs::read_dir(&disk.directory).expect("the filesystem itself answers");
    let lost = is(State::Error, Some(Cause::DeviceLost));
    agent.eventually(&disk.directory, PATIENCE, lost);
    umount2(listed, MntFlags::empty()).unwrap();
    agent.eventually(&disk.directory, PATIENCE, is(State::Healthy, None));
}
