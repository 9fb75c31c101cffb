//! The server's file handle, out of the one that the kernel's client gives to user space.
//!
//! name_to_handle_at(2) on an NFS mount never blocks (measured) and wraps what the server gave out (`nfs_encode_fh` in
//! fs/nfs/export.c), in words of the machine's own byte order:
//!
//! | bytes | |
//! |---|---|
//! | 0..4, 4..8 | fileid, upper and lower half |
//! | 8..12 | type of the file (`S_IFMT`) |
//! | 12..14, 14.. | `struct nfs_fh`: size, then the server's handle |
//! | last word | padding |
//!
//! The type of such a handle is its length in words. NFSv4.0 mounts have no handles at all.

use serde::{Deserialize, Serialize};

use super::nfs::MAX_HANDLE;

/// Where the server's handle begins.
const EMBEDDED: usize = 14;

/// What the kernel's client holds of a mount's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootHandle {
    /// The server's handle: opaque, of 1 to [`MAX_HANDLE`] bytes.
    pub server: Vec<u8>,
    /// Inode number that the root had when the client first saw it.
    pub fileid: u64,
}

impl RootHandle {
    /// Reads the bytes of [`probe::steps::handle`](crate::probe::steps::handle): the handle's type, big endian, then the
    /// handle. `None` for anything that is no directory's handle of the NFS client.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<RootHandle> {
        let (kind, handle) = bytes.split_first_chunk::<4>()?;
        let words = usize::try_from(i32::from_be_bytes(*kind)).ok()?;
        if handle.len() != words.checked_mul(4)? {
            return None;
        }
        let (high, rest) = handle.split_first_chunk::<4>()?;
        let (low, rest) = rest.split_first_chunk::<4>()?;
        let (mode, rest) = rest.split_first_chunk::<4>()?;
        if u32::from_ne_bytes(*mode) & libc::S_IFMT != libc::S_IFDIR {
            return None;
        }
        let (size, rest) = rest.split_first_chunk::<2>()?;
        let size = usize::from(u16::from_ne_bytes(*size));
        // The whole is no longer than what it holds needs: a local filesystem's handle hardly passes for this.
        let needed = (EMBEDDED + size).next_multiple_of(4);
        if size == 0 || size > MAX_HANDLE || handle.len() != needed {
            return None;
        }
        let fileid = u64::from(u32::from_ne_bytes(*high)) << 32 | u64::from(u32::from_ne_bytes(*low));
        Some(RootHandle { server: rest.get(..size)?.to_vec(), fileid })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel makes it, in this machine's byte order.
    fn wrapped(fileid: u64, mode: u32, server: &[u8]) -> Vec<u8> {
        let mut handle = Vec::new();
        for word in [(fileid >> 32) as u32, (fileid & 0xffff_ffff) as u32, mode] {
            handle.extend_from_slice(&word.to_ne_bytes());
        }
        handle.extend_from_slice(&u16::try_from(server.len()).unwrap().to_ne_bytes());
        handle.extend_from_slice(server);
        handle.resize(handle.len().next_multiple_of(4), 0);
        let kind = i32::try_from(handle.len() / 4).unwrap();
        [&kind.to_be_bytes(), handle.as_slice()].concat()
    }

    #[test]
    fn handles_of_every_length_come_out_again() {
        for length in 1..=MAX_HANDLE {
            let server: Vec<u8> = (0..length).map(|byte| u8::try_from(byte).unwrap()).collect();
            let decoded = RootHandle::decode(&wrapped(0x1_0000_0002, libc::S_IFDIR, &server)).unwrap();
            assert_eq!(decoded, RootHandle { server, fileid: 0x1_0000_0002 }, "{length} bytes");
        }
    }

    /// As a client of Linux 6.1 gave them for directories of an nfsd of Linux 6.1: a sub-directory of an export with
    /// `fsid=0` (NFSv3 and 4.1 alike: number of the export, generation, inode number), and the root of one with `fsid=5`.
    #[test]
    #[cfg(target_endian = "little")]
    fn recorded_handles_are_understood() {
        let sub = "00000009000000000b00000000400000140001000101000000004eb8ceeb0b000000000000000000";
        let root = "00000006000000000a00000000400000080001000100050000000000";
        let decode = |hex: &str| {
            let digits: Vec<u8> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
            let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            RootHandle::decode(&bytes).unwrap()
        };
        let server = vec![1, 0, 1, 1, 0, 0, 0, 0, 0x4e, 0xb8, 0xce, 0xeb, 0x0b, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(sub), RootHandle { server, fileid: 11 });
        assert_eq!(decode(root), RootHandle { server: vec![1, 0, 1, 0, 5, 0, 0, 0], fileid: 10 });
    }

    #[test]
    fn handles_of_no_and_of_two_hundred_bytes_are_refused() {
        assert_eq!(RootHandle::decode(&wrapped(2, libc::S_IFDIR, &[])), None);
        assert_eq!(RootHandle::decode(&wrapped(2, libc::S_IFDIR, &[7; 200])), None);
    }

    #[test]
    fn what_is_no_directory_of_nfs_is_refused() {
        assert_eq!(RootHandle::decode(&wrapped(2, libc::S_IFREG, &[7; 28])), None, "a file");
        let good = wrapped(2, libc::S_IFDIR, &[7; 28]);
        for length in 0..good.len() {
            assert_eq!(RootHandle::decode(&good[..length]), None, "cut after {length} bytes");
        }
        assert_eq!(RootHandle::decode(&[good.as_slice(), &[0; 4]].concat()), None, "longer than its type says");
        // tmpfs: type 1 (FILEID_INO32_GEN), inode and generation.
        assert_eq!(RootHandle::decode(&[0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 9, 9]), None);
        assert_eq!(RootHandle::decode(&(-1_i32).to_be_bytes()), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in -2_i32..40) {
            let _ = RootHandle::decode(&bytes);
            let _ = RootHandle::decode(&[&kind.to_be_bytes(), bytes.as_slice()].concat());
        }
    }
}
