//! The frames of `/dev/fuse` (`include/uapi/linux/fuse.h`, version 7.31): host byte order, 8-byte alignment.

/// Operations, as the kernel numbers them.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
}

/// Largest write that INIT allows; the buffer for requests must be larger.
pub(crate) const MAX_WRITE: u32 = 64 * 1024;

/// Node id of the root directory (`FUSE_ROOT_ID`).
pub(crate) const ROOT: u64 = 1;

/// One request: `struct fuse_in_header` and what follows it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// `None` when it is shorter than its header, which the kernel never sends.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Request {
            opcode: word(bytes, 4)?,
            unique: long(bytes, 8)?,
            node: long(bytes, 16)?,
            body: bytes.get(40..)?.to_vec(),
        })
    }

    /// LOOKUP: the name.
    pub(crate) fn name(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// READ, READDIR: offset and size (`struct fuse_read_in`).
    pub(crate) fn range(&self) -> (u64, usize) {
        let size = word(&self.body, 16).and_then(|size| usize::try_from(size).ok());
        (long(&self.body, 8).unwrap_or(0), size.unwrap_or(0))
    }

    /// INTERRUPT: the `unique` of the request whose caller got a signal.
    pub(crate) fn interrupted(&self) -> Option<u64> {
        long(&self.body, 0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}

/// The body of a reply, put together field by field.
#[derive(Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn longs(mut self, values: &[u64]) -> Self {
        self.0.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
        self
    }

    pub(crate) fn words(mut self, values: &[u32]) -> Self {
        self.0.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `struct fuse_init_out`.
    pub(crate) fn init() -> Self {
        // Two u16 each share a word: max_background and congestion_threshold, max_pages and map_alignment.
        Body::default().words(&[7, 31, 64 * 1024, 0, 0, MAX_WRITE, 1, 0]).words(&[0; 8])
    }

    /// `struct fuse_kstatfs` of a filesystem of 4 GiB, half of it free.
    pub(crate) fn statfs() -> Self {
        let (block, name_max) = (4096, 255);
        Body::default()
            .longs(&[1 << 20, 1 << 19, 1 << 19, 1000, 500])
            .words(&[block, name_max, block, 0])
            .words(&[0; 6])
    }

    /// `struct fuse_attr_out`, valid for so many seconds: with none the kernel asks again every time.
    pub(crate) fn attr_out(attr: Attr, valid: u64) -> Self {
        Body::default().longs(&[valid]).words(&[0, 0]).attr(attr)
    }

    /// `struct fuse_entry_out`, name and attributes valid for so many seconds.
    pub(crate) fn entry_out(attr: Attr, valid: u64) -> Self {
        let generation = 0;
        Body::default().longs(&[attr.node, generation, valid, valid]).words(&[0, 0]).attr(attr)
    }

    /// `struct fuse_open_out`: handles are not used.
    pub(crate) fn open_out() -> Self {
        Body::default().longs(&[0]).words(&[0, 0])
    }

    /// Appends a `struct fuse_dirent`, unless the body would grow over `limit`.
    pub(crate) fn dirent(self, limit: usize, next: u64, attr: Attr, name: &[u8]) -> Result<Self, Self> {
        const HEADER: usize = 24;
        let padded = name.len().next_multiple_of(8);
        if self.0.len() + HEADER + padded > limit {
            return Err(self);
        }
        let length = u32::try_from(name.len()).unwrap_or(0);
        let kind = attr.mode >> 12;
        let padding = [0; 8];
        let body = self.longs(&[attr.node, next]).words(&[length, kind]).bytes(name);
        Ok(body.bytes(padding.get(..padded - name.len()).unwrap_or_default()))
    }

    fn attr(self, attr: Attr) -> Self {
        let blocks = attr.size.div_ceil(512);
        let (time, nanoseconds) = (1_700_000_000, 0);
        self.longs(&[attr.node, attr.size, blocks, time, time, time])
            .words(&[nanoseconds, nanoseconds, nanoseconds])
            .words(&[attr.mode, attr.links, attr.owner, attr.owner, 0, 4096, 0])
    }

    /// The whole frame with `struct fuse_out_header` in front.
    pub(crate) fn frame(self, unique: u64) -> Vec<u8> {
        frame(unique, 0, &self.0)
    }
}

/// An error as a whole frame.
pub(crate) fn error_frame(unique: u64, errno: i32) -> Vec<u8> {
    frame(unique, -errno, &[])
}

fn frame(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&error.to_ne_bytes());
    bytes.extend_from_slice(&unique.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// What `struct fuse_attr` says of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    pub(crate) node: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) owner: u32,
}
