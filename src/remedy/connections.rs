//! Whether this node still has a connection to a server that could carry a write there.
//!
//! What a client has sent and the server has not read yet lies in the sockets of both: as long as the connection stands,
//! it may still arrive. The kernel's own NFS connections are in `/proc/net/tcp` like any other (proc_net(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A TCP connection by its far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Whom it leads to.
    pub remote: SocketAddr,
    /// State by number (include/net/tcp_states.h).
    pub state: u8,
}

/// States in which nothing that was written can arrive any more: it is not there yet (SYN_SENT, SYN_RECV), or both ends
/// are closed (TIME_WAIT, CLOSE). In all others data may still be on the way.
const CLOSED: [u8; 4] = [2, 3, 6, 7];

impl Connection {
    /// What was written may still arrive by it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !CLOSED.contains(&self.state)
    }
}

/// Reads `/proc/PID/net/tcp` or `tcp6`. A line that cannot be read makes the whole unreadable: it may be the one.
///
/// # Errors
/// The line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Connection>, String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    lines.map(|line| connection(line).ok_or_else(|| format!("no connection: {line:?}"))).collect()
}

/// `sl local_address rem_address st ...`
fn connection(line: &str) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Connection { remote: SocketAddr::new(ip(address)?, port), state })
}

/// Addresses are written as words of the machine's own byte order.
fn ip(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok().filter(|word| word.len() == 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(sixteen).to_canonical())
}

/// Whether a connection to `server` stands: to this port, or to any where its port is not known.
#[must_use]
pub fn connected(connections: &[Connection], server: IpAddr, port: Option<u16>) -> bool {
    let same = |remote: SocketAddr| {
        remote.ip().to_canonical() == server.to_canonical() && port.is_none_or(|port| port == remote.port())
    };
    connections.iter().any(|connection| same(connection.remote) && connection.is_up())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn to(connections: &[Connection], server: &str) -> bool {
        let server: SocketAddr = server.parse().unwrap();
        let port = Some(server.port()).filter(|port| *port != 0);
        connected(connections, server.ip(), port)
    }

    fn table(remote: &str, state: &str) -> Vec<u8> {
        format!(
            "{HEAD}   0: 0101A8C0:03E1 {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_connection_of_the_client_is_found_by_its_far_end() {
        // As a little-endian machine writes 10.0.1.1:2049.
        let connections = parse(&table("0101000A:0801", "01")).unwrap();
        assert_eq!(connections, [Connection { remote: "10.0.1.1:2049".parse().unwrap(), state: 1 }]);
        assert!(to(&connections, "10.0.1.1:2049"));
        assert!(to(&connections, "10.0.1.1:0"), "any port");
        assert!(!to(&connections, "10.0.1.1:111"));
        assert!(!to(&connections, "10.0.1.2:2049"));
    }

    #[test]
    fn addresses_of_version_6_and_mapped_ones_are_the_same_server() {
        let mapped = parse(&table("0000000000000000FFFF00000101000A:0801", "08")).unwrap();
        assert!(to(&mapped, "10.0.1.1:2049"));
        let six = parse(&table("B80D0120000000000000000001000000:0801", "01")).unwrap();
        assert!(to(&six, "[2001:db8::1]:2049"));
    }

    #[test]
    fn what_is_not_there_yet_or_over_carries_nothing() {
        let server = "10.0.1.1:2049";
        for state in 1..=12_u8 {
            let connections = parse(&table("0101000A:0801", &format!("{state:02X}"))).unwrap();
            assert_eq!(to(&connections, server), !matches!(state, 2 | 3 | 6 | 7), "{state}");
        }
        assert!(!to(&parse(HEAD.as_bytes()).unwrap(), server));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_no_absence() {
        for line in ["x", "0: a b c", "0: 0101A8C0:03E1 0101000A:0801", "0: 0101A8C0:03E1 01:0801 01"] {
            assert!(parse(format!("{HEAD}{line}\n").as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn this_machines_own_tables_are_read() {
        let (listener, dial) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), std::net::TcpStream::connect);
        let address = listener.local_addr().unwrap();
        let stream = dial(address).unwrap();
        let read = || parse(&crate::localfs::read_kernel_file("/proc/self/net/tcp".as_ref()).unwrap()).unwrap();
        assert!(connected(&read(), address.ip(), Some(address.port())));
        drop((stream, listener));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
