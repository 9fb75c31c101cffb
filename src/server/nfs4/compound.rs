//! The few operations that are used, as bytes and back.

use crate::server::link::Failure;
use crate::server::nfs::{Attributes, Created, Fsid, MAX_HANDLE, Status};
use crate::server::xdr::{Reader, Writer};

/// COMPOUND.
pub(super) const PROCEDURE: u32 = 1;

const GETATTR: u32 = 9;
const GETFH: u32 = 10;
const LOCKT: u32 = 13;
const LOOKUP: u32 = 15;
const PUTFH: u32 = 22;
const PUTROOTFH: u32 = 24;

/// `nfs_ftype4`.
const NF4DIR: u32 = 2;

// Attributes by their numbers, in which order they also come.
const TYPE: u32 = 1;
const FSID: u32 = 8;
const FILEID: u32 = 20;
const TIME_CREATE: u32 = 50;
/// The attributes that are asked for.
const MASK: [u32; 2] = [1 << TYPE | 1 << FSID | 1 << FILEID, 1 << (TIME_CREATE - 32)];

/// Words of a bitmap that are read; the newest minor version has three.
const MAX_BITMAP: u32 = 8;
/// Bytes of attributes that are read; those asked for have 40.
const MAX_ATTRIBUTES: usize = 256;
/// A tag comes back as it was sent: empty.
const MAX_TAG: usize = 1024;

/// A client id that no server has given out: its first half would be the second at which the server started.
const NOBODY: u64 = 0x6d6f_756e_7477_6172;
const READ_LOCK: u32 = 1;

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op<'a> {
    /// PUTROOTFH.
    PutRoot,
    /// PUTFH.
    PutHandle(&'a [u8]),
    /// LOOKUP.
    Lookup(&'a [u8]),
    /// GETATTR.
    Attributes,
    /// GETFH.
    Handle,
    /// LOCKT by [`NOBODY`].
    TestLock,
}

impl Op<'_> {
    fn number(self) -> u32 {
        match self {
            Op::PutRoot => PUTROOTFH,
            Op::PutHandle(_) => PUTFH,
            Op::Lookup(_) => LOOKUP,
            Op::Attributes => GETATTR,
            Op::Handle => GETFH,
            Op::TestLock => LOCKT,
        }
    }

    fn write(self, to: &mut Writer) {
        to.word(self.number());
        match self {
            Op::PutRoot | Op::Handle => {}
            Op::PutHandle(bytes) | Op::Lookup(bytes) => {
                to.opaque(bytes);
            }
            Op::Attributes => {
                to.word(2).word(MASK[0]).word(MASK[1]);
            }
            Op::TestLock => {
                // Type, offset, length, owner: client id and name.
                to.word(READ_LOCK).hyper(0).hyper(1).hyper(NOBODY).opaque(b"mountwarden");
            }
        }
    }
}

/// What came of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) status: Status,
    pub(super) attributes: Option<Attributes>,
    pub(super) handle: Option<Vec<u8>>,
}

/// Operations that are made one after the other, up to the first that fails.
pub(super) struct Compound<'a>(pub(super) &'a [Op<'a>]);

impl Compound<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        // Tag, minor version.
        body.opaque(&[]).word(0).word(u32::try_from(self.0.len()).unwrap_or(0));
        for op in self.0 {
            op.write(&mut body);
        }
        body.finish()
    }

    /// Results in the order of the operations; fewer where one failed, which is the last one then.
    ///
    /// A compound that was refused as a whole is [`Failure::Status`].
    pub(super) fn decode(&self, results: &[u8]) -> Result<Vec<Done>, Failure> {
        let mut reader = Reader::new(results);
        let short = || Failure::garbage("the results of the compound are cut short");
        let status = reader.word().map(Status).ok_or_else(short)?;
        reader.opaque(MAX_TAG).ok_or_else(short)?;
        let count = reader.word().ok_or_else(short)?;
        let mut all = Vec::new();
        for op in self.0.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            let number = reader.word().ok_or_else(short)?;
            if number != op.number() {
                return Err(Failure::Garbage(format!(
                    "the result of operation {number} stands for that of {}",
                    op.number()
                )));
            }
            let done = decode_one(*op, &mut reader).ok_or_else(short)?;
            let failed = done.status != Status::OK;
            all.push(done);
            if failed {
                return Ok(all);
            }
        }
        match status {
            Status::OK if all.len() == self.0.len() => Ok(all),
            Status::OK => Err(short()),
            status => Err(Failure::Status(status)),
        }
    }
}

fn decode_one(op: Op<'_>, reader: &mut Reader<'_>) -> Option<Done> {
    let mut done = Done { status: Status(reader.word()?), attributes: None, handle: None };
    if done.status == Status::OK {
        match op {
            Op::Attributes => done.attributes = Some(attributes(reader)?),
            Op::Handle => done.handle = Some(reader.opaque(MAX_HANDLE)?.to_vec()),
            Op::PutRoot | Op::PutHandle(_) | Op::Lookup(_) | Op::TestLock => {}
        }
    }
    Some(done)
}

/// `fattr4`. A server leaves out what it does not support, and may add nothing.
fn attributes(reader: &mut Reader<'_>) -> Option<Attributes> {
    let words = reader.word().filter(|words| *words <= MAX_BITMAP)?;
    let mut mask = [0_u32; 2];
    for index in 0..words {
        let word = reader.word()?;
        match mask.get_mut(usize::try_from(index).ok()?) {
            Some(slot) => *slot = word,
            None if word == 0 => {}
            None => return None,
        }
    }
    if mask[0] & !MASK[0] != 0 || mask[1] & !MASK[1] != 0 {
        return None;
    }
    let mut values = Reader::new(reader.opaque(MAX_ATTRIBUTES)?);
    let has = |attribute: u32| mask.get(attribute as usize / 32).is_some_and(|word| word >> (attribute % 32) & 1 == 1);
    // The three are REQUIRED by RFC 7530, section 5.6.
    if !(has(TYPE) && has(FSID) && has(FILEID)) {
        return None;
    }
    let directory = values.word()? == NF4DIR;
    let fsid = Fsid(values.hyper()?, values.hyper()?);
    let fileid = values.hyper()?;
    let created = match has(TIME_CREATE) {
        true => Some(Created { seconds: values.hyper()?.cast_signed(), nanos: values.word()? }),
        false => None,
    };
    Some(Attributes { directory, fileid, fsid, links: None, created })
}
