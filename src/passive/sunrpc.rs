//! `/sys/kernel/sunrpc/xprt-switches/*/xprt-*/`: the connections of the NFS client (Linux 5.14 and later).
//!
//! `dstaddr` holds an address, `xprt_state` the words of `rpc_sysfs_xprt_state_show` (net/sunrpc/sysfs.c).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the kernel says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Link {
    /// Established, as far as this side knows: a server that vanished leaves it so until TCP gives up.
    Connected,
    /// Being established.
    Connecting,
    /// Neither: refused, closed, or not needed.
    NotConnected,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Connected => "established",
            Link::Connecting => "being made",
            Link::NotConnected => "not established",
        })
    }
}

/// Reads `xprt_state`: `state=CONNECTED BOUND`, with whatever words a kernel has. `None`: not of that form.
#[must_use]
pub fn link(bytes: &[u8]) -> Option<Link> {
    let words = bytes.trim_ascii().strip_prefix(b"state=")?;
    let has = |wanted: &[u8]| words.split(u8::is_ascii_whitespace).any(|word| word == wanted);
    Some(if has(b"CONNECTED") {
        Link::Connected
    } else if has(b"CONNECTING") {
        Link::Connecting
    } else {
        Link::NotConnected
    })
}

/// Reads `dstaddr`. `None`: no address (`AF_LOCAL`, a transport that is going away).
#[must_use]
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(bytes.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_states_of_the_atlas_are_told_apart() {
        for (text, expected) in [
            ("state= CONNECTED   BOUND\n", Some(Link::Connected)),
            ("state=LOCKED CONNECTED BOUND WRITE_SPACE\n", Some(Link::Connected)),
            ("state=LOCKED  CONNECTING  BOUND\n", Some(Link::Connecting)),
            ("state=   BOUND  \n", Some(Link::NotConnected)),
            ("state=CLOSED\n", Some(Link::NotConnected)),
            ("state=", Some(Link::NotConnected)),
            ("state=DISCONNECTED\n", Some(Link::NotConnected)),
            ("<closed>\n", None),
            ("", None),
        ] {
            assert_eq!(link(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_read_and_names_are_not() {
        assert_eq!(address(b"10.0.1.1\n"), Some(IpAddr::from([10, 0, 1, 1])));
        assert_eq!(address(b"fd00::1\n"), "fd00::1".parse().ok());
        assert_eq!((address(b"localhost\n"), address(b"\xff"), address(b"")), (None, None, None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (link(&bytes), address(&bytes));
        }
    }
}
