//! A volume with an application's data on it, and an agent that writes a canary there.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mountwarden::canary::DIRECTORY;
use mountwarden::snapshot::{CanaryStatus, MountStatus};
use mountwarden::verdict::{Cause, State};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::agent::Agent;
use super::sandbox::Sandbox;

/// What an application has on the mount.
pub const DATA: &str = "the application's data";

/// A tmpfs with something on it; gone with the test's namespace.
pub struct Volume {
    /// Where it is mounted.
    pub directory: PathBuf,
}

impl Volume {
    /// An empty one.
    pub fn mount(sandbox: &Sandbox, options: &str) -> Volume {
        let directory = sandbox.dir("volume");
        mount(Some("volume"), &directory, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        Volume { directory }
    }

    /// One with a file of an application.
    pub fn with_data(sandbox: &Sandbox) -> Volume {
        let volume = Volume::mount(sandbox, "size=1m");
        std::fs::write(volume.directory.join("data"), DATA).unwrap();
        volume
    }

    /// Our directory on it.
    pub fn ours(&self) -> PathBuf {
        self.directory.join(DIRECTORY)
    }

    /// The files in our directory.
    pub fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.ours()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Nothing on it but the data and one small file of ours, if that.
    pub fn assert_clean(&self) {
        assert_eq!(std::fs::read_to_string(self.directory.join("data")).unwrap(), DATA);
        let mut names: Vec<_> =
            std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "data" && name != DIRECTORY);
        assert!(names.is_empty(), "{names:?}");
        let files = self.files();
        assert!(files.len() <= 1, "{files:?}");
        assert!(files.iter().all(|file| std::fs::metadata(file).unwrap().len() <= 8192));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

/// The configuration of an agent that watches the volumes of this sandbox and nothing else.
pub fn config(sandbox: &Sandbox, canary: &str) -> String {
    let path = sandbox.path().join("config.yaml");
    let mounts = format!("{}/*", sandbox.path().display());
    let text = format!(
        "interval: 1s\ntimeout: 500ms\nslow: 400ms\n\
         mounts: {{include_fstype: [tmpfs], include: [\"{mounts}\"]}}\n\
         canary: {{mounts: [\"{mounts}\"], interval: 1s{canary}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// An agent with that configuration.
pub fn start(sandbox: &Sandbox, canary: &str) -> Agent {
    Agent::start(&["--config", &config(sandbox, canary)])
}

/// The mount's canary.
pub fn canary(mount: &MountStatus) -> CanaryStatus {
    mount.canary.clone().unwrap_or_default()
}

/// The last canary ended so.
pub fn ended(result: &'static str) -> impl Fn(&MountStatus) -> bool {
    move |mount| canary(mount).result == result
}

/// The mount is in this state.
pub fn is(state: State, cause: Option<Cause>) -> impl Fn(&MountStatus) -> bool {
    move |mount| (mount.state, mount.cause) == (state, cause)
}
