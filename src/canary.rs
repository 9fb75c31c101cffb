//! Write canaries: what one node leaves on a mount to prove that it can write, and what the others read there. Pure;
//! the system calls are in [`crate::probe::canary`], the flow in the agent.

pub mod peers;
pub mod record;
pub mod switch;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use record::Record;
pub use switch::Switch;

/// The directory at the root of a mount, the only place where a canary writes.
pub const DIRECTORY: &str = ".mountwarden";

/// Whom a worker acts as on a mount. The server of a `sec=sys` mount sees exactly these numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups; a kernel sends the first 16 of them to a server.
    pub groups: Vec<u32>,
    /// Bits that a new file must not have.
    pub umask: u32,
}

impl Ids {
    /// Whether mode and owner of an entry let these ids in: read it, and enter it too if it is a directory. Access
    /// control lists are not looked at.
    #[must_use]
    pub fn pass(&self, mode: u32, uid: u32, gid: u32, directory: bool) -> bool {
        if self.uid == 0 {
            return true;
        }
        let wanted = if directory { 0o5 } else { 0o4 };
        let class = if self.uid == uid {
            mode >> 6
        } else if self.gid == gid || self.groups.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        class & wanted == wanted
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid={} gid={}", self.uid, self.gid)?;
        if !self.groups.is_empty() {
            let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
            write!(f, " groups={}", groups.join("+"))?;
        }
        write!(f, " umask={:03o}", self.umask)
    }
}

/// `uid=1000 gid=1000 groups=2000+3000 umask=027`; only `uid` must be said, `gid` is the same number otherwise.
impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Ids, String> {
        let mut ids = Ids { uid: 0, gid: 0, groups: Vec::new(), umask: 0o022 };
        let (mut uid, mut gid) = (None, None);
        let number = |word: &str, value: &str| value.parse::<u32>().map_err(|_| format!("{word}: {value:?} is no id"));
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("uid", value)) => uid = Some(number("uid", value)?),
                Some(("gid", value)) => gid = Some(number("gid", value)?),
                Some(("groups", value)) => {
                    ids.groups = value.split('+').map(|group| number("groups", group)).collect::<Result<_, _>>()?;
                    if ids.groups.len() > MOST_GROUPS {
                        return Err(format!("groups: at most {MOST_GROUPS}"));
                    }
                }
                Some(("umask", value)) => {
                    let umask = u32::from_str_radix(value, 8).ok().filter(|umask| *umask <= 0o777);
                    ids.umask = umask.ok_or_else(|| format!("umask: {value:?} is no octal number up to 777"))?;
                }
                _ => return Err(format!("{word:?} is not understood; write {EXAMPLE}")),
            }
        }
        ids.uid = uid.ok_or_else(|| format!("{text:?} names no uid; write {EXAMPLE}"))?;
        ids.gid = gid.unwrap_or(ids.uid);
        // setfsuid(2) takes the largest number for "do not change".
        if ids.uid == u32::MAX || ids.gid == u32::MAX {
            return Err("4294967295 is no id".to_owned());
        }
        Ok(ids)
    }
}

/// NGROUPS_MAX of Linux is 65536; nobody writes that down, and the kernel sends 16.
const MOST_GROUPS: usize = 64;

const EXAMPLE: &str = "uid=1000 gid=1000 groups=2000+3000 umask=027";

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        "uid=1000 gid=100 groups=2000+3000 umask=027".parse().unwrap()
    }

    #[test]
    fn an_identity_is_read_and_written_alike() {
        let ids = ids();
        assert_eq!((ids.uid, ids.gid, ids.umask), (1000, 100, 0o027));
        assert_eq!(ids.groups, [2000, 3000]);
        assert_eq!(ids.to_string().parse(), Ok(ids));
        let short: Ids = "uid=7".parse().unwrap();
        assert_eq!((short.uid, short.gid, short.umask), (7, 7, 0o022));
    }

    #[test]
    fn nonsense_is_no_identity() {
        for text in ["", "gid=1", "uid=-1", "uid=x", "uid=1 umask=9", "uid=1 umask=1777", "root", "uid=4294967295"] {
            assert!(text.parse::<Ids>().is_err(), "{text}");
        }
    }

    #[test]
    fn mode_and_owner_let_in_or_not() {
        let ids = ids();
        for (mode, uid, gid, directory, passes) in [
            (0o700, 1000, 0, true, true),
            (0o700, 0, 0, true, false),
            (0o750, 0, 2000, true, true),
            (0o740, 0, 2000, true, false),
            (0o640, 0, 100, false, true),
            (0o044, 1000, 100, false, false),
            (0o004, 0, 0, false, true),
            (0o004, 0, 0, true, false),
        ] {
            assert_eq!(ids.pass(mode, uid, gid, directory), passes, "{mode:o} {uid}:{gid}");
        }
        let root: Ids = "uid=0".parse().unwrap();
        assert!(root.pass(0, 1, 1, true));
    }
}
