use proptest::prelude::*;

use super::*;

const XID: u32 = 0x1234_5678;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn fragment(last: bool, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let mut bytes = (length | if last { LAST_FRAGMENT } else { 0 }).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

async fn read(mut bytes: &[u8]) -> Result<Vec<u8>, RpcError> {
    read_record(&mut bytes).await
}

#[test]
fn a_null_call_is_the_forty_four_bytes_of_the_standard() {
    let bytes = Call { xid: XID, program: NFS_PROGRAM, version: 4, procedure: 0 }.encode();
    assert_eq!(bytes, words(&[0x8000_0028, XID, 0, 2, 100_003, 4, 0, 0, 0, 0, 0]));
    assert_eq!(bytes.len(), 44);
}

#[test]
fn every_kind_of_reply_is_understood() {
    let accepted = |status: &[u32]| words(&[&[XID, 1, 0, 0, 0], status].concat());
    let denied = |status: &[u32]| words(&[&[XID, 1, 1], status].concat());
    let cases = [
        (accepted(&[0]), Reply::Accepted(Accept::Success, &[])),
        (accepted(&[1]), Reply::Accepted(Accept::ProgramUnavailable, &[])),
        (accepted(&[2, 3, 4]), Reply::Accepted(Accept::ProgramMismatch { low: 3, high: 4 }, &[])),
        (accepted(&[3]), Reply::Accepted(Accept::ProcedureUnavailable, &[])),
        (accepted(&[4]), Reply::Accepted(Accept::GarbageArguments, &[])),
        (accepted(&[5]), Reply::Accepted(Accept::SystemError, &[])),
        (denied(&[0, 2, 2]), Reply::Denied(Denial::RpcMismatch { low: 2, high: 2 })),
        (denied(&[1, 5]), Reply::Denied(Denial::Auth(5))),
    ];
    for (record, reply) in cases {
        assert_eq!(decode_reply(&record, XID), Ok(reply));
    }
}

#[test]
fn a_verifier_with_padding_is_skipped_and_the_results_follow() {
    let mut record = words(&[XID, 1, 0, 6, 5]);
    record.extend_from_slice(b"abcde\0\0\0");
    record.extend_from_slice(&words(&[0, 77]));
    assert_eq!(decode_reply(&record, XID), Ok(Reply::Accepted(Accept::Success, &[0, 0, 0, 77])));
}

#[test]
fn a_reply_cut_anywhere_names_the_missing_field() {
    let record = words(&[XID, 1, 0, 0, 0, 2, 3, 4]);
    let fields = [
        Field::Xid,
        Field::MessageType,
        Field::ReplyStatus,
        Field::Verifier,
        Field::Verifier,
        Field::AcceptStatus,
        Field::Versions,
        Field::Versions,
    ];
    for length in 0..record.len() {
        let expected = DecodeError::Short { field: fields[length / 4] };
        assert_eq!(decode_reply(&record[..length], XID), Err(expected), "cut after {length} bytes");
    }
}

#[test]
fn a_reply_to_another_call_is_refused() {
    let error = decode_reply(&words(&[XID + 1, 1, 0, 0, 0, 0]), XID).unwrap_err();
    assert_eq!(error, DecodeError::WrongXid { want: XID, got: XID + 1 });
}

#[test]
fn values_outside_the_standard_are_refused_by_name() {
    let cases: [(&[u32], Field, u32); 5] = [
        (&[XID, 0], Field::MessageType, 0),
        (&[XID, 1, 2], Field::ReplyStatus, 2),
        (&[XID, 1, 0, 0, 401], Field::Verifier, 401),
        (&[XID, 1, 0, 0, 0, 6], Field::AcceptStatus, 6),
        (&[XID, 1, 1, 2], Field::RejectStatus, 2),
    ];
    for (record, field, value) in cases {
        assert_eq!(decode_reply(&words(record), XID), Err(DecodeError::BadValue { field, value }));
    }
}

#[tokio::test]
async fn fragments_are_put_together_and_what_follows_is_left() {
    let bytes = [fragment(false, b"ab"), fragment(false, b""), fragment(true, b"cd"), b"next".to_vec()].concat();
    assert_eq!(read(&bytes).await.unwrap(), b"abcd");
}

#[tokio::test]
async fn a_reply_may_have_the_longest_length_and_not_one_byte_more() {
    let half = vec![7; MAX_REPLY / 2];
    let longest = [fragment(false, &half), fragment(true, &half)].concat();
    assert_eq!(read(&longest).await.unwrap().len(), MAX_REPLY);

    let longer = [fragment(false, &half), fragment(false, &half), fragment(true, b"x")].concat();
    assert!(matches!(read(&longer).await, Err(RpcError::TooLong { announced }) if announced == MAX_REPLY + 1));
}

#[tokio::test]
async fn a_length_of_two_gigabytes_is_refused_before_it_is_allocated() {
    let error = read(&u32::MAX.to_be_bytes()).await.unwrap_err();
    assert!(matches!(error, RpcError::TooLong { announced: 0x7fff_ffff }), "{error}");
}

#[tokio::test]
async fn endless_empty_fragments_end_in_an_error() {
    let bytes = [0; 4].repeat(MAX_FRAGMENTS + 1);
    assert!(matches!(read(&bytes).await, Err(RpcError::TooManyFragments)));
}

#[tokio::test]
async fn the_end_of_the_stream_says_how_much_had_come() {
    for (bytes, expected) in [(Vec::new(), 0), (vec![0x80, 0], 0), ([fragment(false, b"abc"), vec![0]].concat(), 3)] {
        assert!(matches!(read(&bytes).await, Err(RpcError::Closed { received }) if received == expected));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..600), xid: u32) {
        let _ = decode_reply(&bytes, xid);
    }

    // Random bytes rarely get past the transaction id; small words behind the right one reach every branch.
    #[test]
    fn nearly_right_replies_never_panic_the_decoder(tail in proptest::collection::vec(0_u32..8, 0..16), cut in 0_usize..64) {
        let mut record = words(&[&[XID], tail.as_slice()].concat());
        record.truncate(cut);
        let _ = decode_reply(&record, XID);
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_record_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(record) = runtime.block_on(read(&bytes)) {
            prop_assert!(record.len() <= bytes.len());
        }
    }
}
