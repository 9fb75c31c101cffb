//! XDR (RFC 4506): big-endian words, opaque bytes padded to four.
//!
//! Reading never fails otherwise than by `None`: the caller knows which field is missing. Nothing is allocated here.

/// The part of a message that is not read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(super) fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    pub(super) fn hyper(&mut self) -> Option<u64> {
        let (hyper, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*hyper))
    }

    /// Bytes with their length in front, which is at most `max`.
    pub(super) fn opaque(&mut self, max: usize) -> Option<&'a [u8]> {
        let length = self.word()?;
        if usize::try_from(length).ok()? > max {
            return None;
        }
        self.padded(length)
    }

    /// So many bytes; their padding goes too.
    pub(super) fn padded(&mut self, length: u32) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let bytes = self.0.get(..length)?;
        self.0 = self.0.get(length.checked_next_multiple_of(4)?..)?;
        Some(bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// A message in the making.
#[derive(Debug, Default, Clone)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn word(&mut self, word: u32) -> &mut Self {
        self.raw(&word.to_be_bytes())
    }

    pub(super) fn hyper(&mut self, hyper: u64) -> &mut Self {
        self.raw(&hyper.to_be_bytes())
    }

    /// Bytes with their length in front and their padding behind.
    pub(super) fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        // What we send are paths and handles, far shorter than four gigabytes.
        self.word(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).raw(bytes);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
        self
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.word(7).hyper(1 << 40).opaque(b"abcde").opaque(b"").raw(&[0, 0, 0, 9]);
        let bytes = writer.finish();
        assert_eq!(bytes.len(), 4 + 8 + 4 + 8 + 4 + 4);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.word(), reader.hyper()), (Some(7), Some(1 << 40)));
        assert_eq!((reader.opaque(5), reader.opaque(0)), (Some(&b"abcde"[..]), Some(&b""[..])));
        assert_eq!(reader.rest(), [0, 0, 0, 9]);
    }

    #[test]
    fn bytes_that_are_missing_or_too_many_are_not_read() {
        assert_eq!(Reader::new(&[0, 0, 0]).word(), None);
        assert_eq!(Reader::new(&[0; 7]).hyper(), None);
        assert_eq!(Reader::new(&[0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]).opaque(4), None, "longer than allowed");
        assert_eq!(Reader::new(&[0, 0, 0, 5, 1, 2, 3, 4, 5]).opaque(5), None, "the padding is missing");
        assert_eq!(Reader::new(&[0xff; 8]).opaque(usize::MAX), None);
    }
}
