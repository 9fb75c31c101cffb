//! Changes to an input: the usual ones, and lengths and words that decoders stumble over.

use fastrand::Rng;

/// Longest input.
const LONGEST: usize = 64 << 10;

const LENGTHS: [u32; 14] = [0, 1, 2, 3, 4, 64, 255, 256, 400, 1024, 0x7fff_ffff, 0x8000_0000, 0x8000_0004, u32::MAX];

/// A changed copy of `input`; `other` is another one to take parts of.
pub(crate) fn mutate(rng: &mut Rng, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + rng.usize(0..4) {
        once(rng, &mut bytes, other, words);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = rng.usize(0..=bytes.len());
    match rng.u8(0..12) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 | 3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(0..8);
            }
        }
        4 | 5 => {
            // A length of XDR, where words begin.
            let at = at / 4 * 4;
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&LENGTHS[rng.usize(0..LENGTHS.len())].to_be_bytes());
            }
        }
        6 => {
            let end = (at + rng.usize(0..64)).min(bytes.len());
            bytes.drain(at..end);
        }
        7 | 8 => {
            let from = rng.usize(0..=other.len());
            let part = &other[from..(from + rng.usize(0..256)).min(other.len())];
            splice(bytes, at, part);
        }
        9 if !words.is_empty() => splice(bytes, at, words[rng.usize(0..words.len())].as_bytes()),
        10 => {
            let number = match rng.u8(0..3) {
                0 => rng.u64(..).to_string(),
                1 => u64::MAX.to_string(),
                _ => "99999999999999999999999".to_owned(),
            };
            splice(bytes, at, number.as_bytes());
        }
        _ => {
            // The same once more, and more: what grows faster than its input shows here.
            let end = (at + rng.usize(1..64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let times = if rng.u8(0..16) == 0 { rng.usize(1..1000) } else { rng.usize(1..8) };
            splice(bytes, at, &part.repeat(times));
        }
    }
}

fn splice(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}
