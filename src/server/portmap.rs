//! The portmapper (rpcbind; RFC 1833, version 2): which port has a program?
//!
//! NFS itself is at 2049 whatever rpcbind says; it is asked for mountd, whose port is chosen anew at each start unless
//! somebody has fixed it.

use super::link::{Failure, Link, Query};
use super::rpc::Credential;
use super::xdr::{Reader, Writer};

/// Where it listens.
pub const PORT: u16 = 111;

const PROGRAM: u32 = 100_000;
const VERSION: u32 = 2;
const GETPORT: u32 = 3;
const TCP: u32 = 6;

/// TCP port of a program; `None` when it is not registered.
///
/// # Errors
/// [`Failure`].
pub async fn port_of(link: &mut Link, program: u32, version: u32) -> Result<Option<u16>, Failure> {
    let mut arguments = Writer::default();
    arguments.word(program).word(version).word(TCP).word(0);
    let arguments = arguments.finish();
    let query =
        Query { program: PROGRAM, version: VERSION, procedure: GETPORT, credential: Credential::None, arguments };
    decode(&link.call(&query).await?)
}

pub(super) fn decode(results: &[u8]) -> Result<Option<u16>, Failure> {
    let port = Reader::new(results).word().ok_or_else(|| Failure::garbage("the portmapper's reply has no port"))?;
    let port = u16::try_from(port).map_err(|_| Failure::Garbage(format!("the portmapper says port {port}")))?;
    Ok(Some(port).filter(|port| *port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_nonsense_is_not() {
        assert_eq!(decode(&[0, 0, 0x4e, 0x50]), Ok(Some(20048)));
        assert_eq!(decode(&[0; 4]), Ok(None), "not registered");
        assert!(matches!(decode(&[0, 1, 0, 0]), Err(Failure::Garbage(why)) if why.contains("65536")));
        assert!(matches!(decode(&[0, 1]), Err(Failure::Garbage(_))));
    }
}
