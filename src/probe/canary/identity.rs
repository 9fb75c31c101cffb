//! Acting as somebody else on the mount. The process was started for this one canary, so nothing is put back.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getppid, setfsgid, setfsuid, setgroups};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::canary::Ids;

/// From now on every call on a filesystem is made with these ids and groups, and without any privilege of ours.
pub(super) fn assume(ids: &Ids) -> Result<(), Errno> {
    let parent = getppid();
    let mut sets = rustix::thread::capabilities(None)?;
    // An earlier identity took the effective ones away.
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    let groups: Vec<Gid> = ids.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    setgroups(&groups).map_err(errno)?;
    setfsgid(Gid::from_raw(ids.gid));
    setfsuid(Uid::from_raw(ids.uid));
    // Neither of the two reports a failure; asked with an id that is none they say what is in force.
    let (uid, gid) = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
    if (uid.as_raw(), gid.as_raw()) != (ids.uid, ids.gid) {
        return Err(Errno::PERM);
    }
    umask(Mode::from_bits_truncate(ids.umask));
    if ids.uid != 0 {
        // CAP_SYS_RESOURCE would let it pass quotas and reserved blocks; the kernel itself only takes CAP_DAC_* away.
        sets.effective = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets)?;
    }
    // The kernel forgets whom to follow into death when the ids change (commit_creds in kernel/cred.c).
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(errno)?;
    if getppid() == parent { Ok(()) } else { Err(Errno::SRCH) }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}
