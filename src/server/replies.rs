//! The decoders of replies apart from their sockets: what a hostile server's bytes meet first. For `tests/fuzz`.

use super::link::Failure;
use super::mountd::{self, Exports};
use super::nfs::Attributes;
use super::{nfs3, nfs4, portmap};

/// Results of NFSv3's GETATTR.
///
/// # Errors
/// As [`nfs3::getattr`].
pub fn attributes3(results: &[u8]) -> Result<Attributes, Failure> {
    nfs3::decode(results)
}

/// Results of the longest NFSv4 compound that is sent; gives how many operations were understood.
///
/// # Errors
/// As [`nfs4::walk`].
pub fn compound4(results: &[u8]) -> Result<usize, Failure> {
    nfs4::decode_longest(results)
}

/// Results of mountd's EXPORT, as far as they were read; `cut`: there was more.
///
/// # Errors
/// As [`mountd::exports`].
pub fn exports(results: &[u8], cut: bool, path: &str) -> Result<Exports, Failure> {
    mountd::decode_exports(results, cut, path)
}

/// Results of mountd's MNT.
///
/// # Errors
/// As [`mountd::may_mount`].
pub fn mount(results: &[u8]) -> Result<(), Failure> {
    mountd::decode_mount(results)
}

/// Results of the portmapper's GETPORT.
///
/// # Errors
/// As [`portmap::port_of`].
pub fn port(results: &[u8]) -> Result<Option<u16>, Failure> {
    portmap::decode(results)
}
