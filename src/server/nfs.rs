//! What both versions of NFS share: status numbers and the attributes that tell one directory from another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest file handle: of NFSv3 64 bytes (RFC 1813), of NFSv4 128 (RFC 7530).
pub const MAX_HANDLE: usize = 128;

/// `nfsstat3`, `nfsstat4`, `mountstat3`: the numbers mean the same in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($name:ident = $number:literal, $words:literal;)*) => {
        impl Status {
            $(#[doc = $words] pub const $name: Status = Status($number);)*

            /// The name of the standards, without prefix; `None` for numbers that they do not know or that never come here.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self { $(Status::$name => Some(stringify!($name)),)* _ => None }
            }

            fn words(self) -> Option<&'static str> {
                match self { $(Status::$name => Some($words),)* _ => None }
            }
        }
    };
}

statuses! {
    OK = 0, "no error";
    PERM = 1, "not permitted (a server may want a source port below 1024)";
    NOENT = 2, "no such file or directory";
    IO = 5, "input/output error on the server";
    NXIO = 6, "no such device on the server";
    ACCES = 13, "access denied";
    NOTDIR = 20, "not a directory";
    ISDIR = 21, "is a directory";
    INVAL = 22, "invalid argument";
    NAMETOOLONG = 63, "name too long";
    STALE = 70, "stale file handle";
    BADHANDLE = 10001, "malformed file handle";
    NOTSUPP = 10004, "not supported";
    SERVERFAULT = 10006, "an error of the server that has no number";
    DELAY = 10008, "busy, try again later";
    EXPIRED = 10011, "the lease has expired";
    GRACE = 10013, "in its grace period after a restart";
    FHEXPIRED = 10014, "the file handle has expired";
    WRONGSEC = 10016, "another security flavour is wanted";
    RESOURCE = 10018, "out of resources";
    MOVED = 10019, "moved to another server";
    NOFILEHANDLE = 10020, "nothing is exported to this client";
    MINOR_VERS_MISMATCH = 10021, "this minor version of NFSv4 is switched off";
    STALE_CLIENTID = 10022, "unknown client id";
    BADXDR = 10036, "could not read our arguments";
    OP_ILLEGAL = 10044, "unknown operation";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.words()) {
            (Some(name), Some(words)) => write!(f, "{name}: {words}"),
            _ => write!(f, "error number {}", self.0),
        }
    }
}

/// Number of a filesystem as its server gives it: two words in NFSv4; in NFSv3 one, here with a zero behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fsid(pub u64, pub u64);

/// When a file was made, by the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Created {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: u32,
}

/// What tells one directory from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// It is a directory.
    pub directory: bool,
    /// Inode number on the server.
    pub fileid: u64,
    /// Its filesystem.
    pub fsid: Fsid,
    /// Number of links, where it was asked for (NFSv3): 0 is a directory that was deleted and that the server still holds.
    pub links: Option<u32>,
    /// When it was made, where the server says (NFSv4). Linux 6.1's nfsd lists the attribute as supported and gives it for
    /// neither ext4 nor tmpfs (measured).
    pub created: Option<Created>,
}
