//! `/sys/fs/fuse/connections/N/waiting`: requests that the daemon of a FUSE filesystem has not answered. N is the minor
//! number of `st_dev` (Documentation/filesystems/fuse.rst).

/// Reads `waiting`. `None`: no number.
#[must_use]
pub fn waiting(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_read_and_nothing_else() {
        assert_eq!(waiting(b"9\n"), Some(9));
        assert_eq!((waiting(b""), waiting(b"-1\n"), waiting(b"9 9\n")), (None, None, None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = waiting(&bytes);
        }
    }
}
