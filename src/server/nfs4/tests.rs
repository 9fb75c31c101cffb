use proptest::prelude::*;

use super::super::fake::{self, Say, link, words};
use super::super::nfs::{Created, Fsid, MAX_HANDLE};
use super::super::xdr::{Reader, Writer};
use super::*;

const PUTFH_OK: [u32; 2] = [22, 0];
/// GETATTR with type, fsid 5.6 and a fileid.
fn attributes(fileid: u32) -> Vec<u32> {
    vec![9, 0, 2, 0x10_0102, 0, 28, 2, 0, 5, 0, 6, 0, fileid]
}

/// Results of a compound: its status, an empty tag, then those of the operations.
fn compound(status: u32, count: u32, results: &[&[u32]]) -> Vec<u8> {
    words(&[&[status, 0, count], results.concat().as_slice()].concat())
}

/// Asks for the attributes of a handle a server that answers so.
async fn getattr_from(results: Vec<u8>) -> Result<Attributes, Failure> {
    let address = fake::server(move |_| Say::Results(results.clone())).await;
    getattr(&mut link(address), b"handle").await
}

#[tokio::test]
async fn a_compound_is_what_the_standard_says() {
    let address = fake::server(|asked| {
        assert_eq!((asked.program, asked.version, asked.procedure, asked.flavour), (100_003, 4, 1, 1));
        // Tag, minor version, two operations: PUTFH of four bytes, GETATTR of two words of bits.
        assert_eq!(asked.arguments, words(&[0, 0, 2, 22, 4, 0x0102_0304, 9, 2, 0x10_0102, 0x4_0000]));
        Say::Results(compound(0, 2, &[&PUTFH_OK, &attributes(77)]))
    })
    .await;
    let expected = Attributes { directory: true, fileid: 77, fsid: Fsid(5, 6), links: None, created: None };
    assert_eq!(getattr(&mut link(address), &[1, 2, 3, 4]).await, Ok(expected));
}

#[tokio::test]
async fn the_time_of_making_is_read_where_the_server_knows_it() {
    let with_time = [9, 0, 2, 0x10_0102, 0x4_0000, 40, 2, 0, 5, 0, 6, 0, 77, 0xffff_ffff, 0xffff_fffe, 9];
    let answer = getattr_from(compound(0, 2, &[&PUTFH_OK, &with_time])).await.unwrap();
    assert_eq!(answer.created, Some(Created { seconds: -2, nanos: 9 }));
}

#[tokio::test]
async fn statuses_are_kept_wherever_they_stand() {
    let cases = [
        (compound(70, 1, &[&[22, 70]]), Status::STALE),
        (compound(10001, 1, &[&[22, 10001]]), Status::BADHANDLE),
        (compound(10008, 2, &[&PUTFH_OK, &[9, 10008]]), Status::DELAY),
        (compound(10021, 0, &[]), Status::MINOR_VERS_MISMATCH),
        (compound(4711, 1, &[&[22, 4711]]), Status(4711)),
    ];
    for (results, status) in cases {
        assert_eq!(getattr_from(results).await, Err(Failure::Status(status)));
    }
}

#[tokio::test]
async fn nonsense_is_garbage() {
    let more = [9, 0, 2, 0xffff_ffff, 0, 28, 2, 0, 5, 0, 6, 0, 77];
    let fewer = [9, 0, 1, 0x102, 20, 2, 0, 5, 0, 6];
    let cases = [
        compound(0, 2, &[&PUTFH_OK]),
        compound(0, 1, &[&PUTFH_OK]),
        compound(0, 0, &[]),
        compound(0, 2, &[&[24, 0], &attributes(7)]),
        compound(0, 2, &[&PUTFH_OK, &more]),
        compound(0, 2, &[&PUTFH_OK, &fewer]),
        compound(0, 2, &[&PUTFH_OK, &[9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]),
        compound(0, 2, &[&PUTFH_OK, &[9, 0, 2, 0x10_0102, 0, 0x7fff_fff0]]),
        words(&[0, 0x7fff_ffff]),
        Vec::new(),
    ];
    for results in cases {
        let answer = getattr_from(results.clone()).await;
        assert!(matches!(answer, Err(Failure::Garbage(_))), "{results:?}: {answer:?}");
    }
}

/// A server with this tree, whose handles are the depth.
async fn tree(depth: u32, end: u32) -> std::net::SocketAddr {
    fake::server(move |asked| {
        let mut at = 0;
        let mut reader = Reader::new(&asked.arguments);
        assert_eq!((reader.word(), reader.word()), (Some(0), Some(0)));
        let count = reader.word().unwrap();
        assert!(count <= 16, "{count} operations are more than an old nfsd takes");
        let mut results = Writer::default();
        for done in 1..=count {
            let op = reader.word().unwrap();
            results.word(op);
            match op {
                24 => results.word(0),
                22 => {
                    at = u32::from_be_bytes(reader.opaque(128).unwrap().try_into().unwrap());
                    results.word(0)
                }
                15 => {
                    assert_eq!(reader.opaque(255), Some(&b"dir"[..]));
                    at += 1;
                    if at > depth {
                        results.word(end);
                        let head = compound(end, done, &[]);
                        return Say::Results([head, results.finish()].concat());
                    }
                    results.word(0)
                }
                9 => {
                    reader.word().unwrap();
                    reader.hyper().unwrap();
                    results.raw(&words(&attributes(at)[1..]))
                }
                10 => results.word(0).opaque(&at.to_be_bytes()),
                other => panic!("operation {other}"),
            };
        }
        Say::Results([compound(0, count, &[]), results.finish()].concat())
    })
    .await
}

#[tokio::test]
async fn a_path_is_walked_in_steps_to_its_end_or_as_far_as_it_goes() {
    for components in [0_u32, 1, 4, 5, 6, 11, 64] {
        let path = "/dir".repeat(components as usize);
        let walk = walk(&mut link(tree(100, 2).await), path.as_bytes()).await.unwrap();
        let fileids: Vec<u64> = walk.met.iter().map(|met| met.fileid).collect();
        assert_eq!(fileids, (0..=u64::from(components)).collect::<Vec<_>>(), "{components} components");
        assert_eq!(walk.end().map(|end| end.fileid), Some(u64::from(components)));
        assert_eq!(walk.above().map(|above| above.fileid), u64::from(components).checked_sub(1));
    }
    for depth in [0, 3, 5, 6] {
        let walk = walk(&mut link(tree(depth, 2).await), "//dir/dir/dir/dir/dir/dir/dir/".as_bytes()).await.unwrap();
        assert_eq!((walk.stopped, walk.components, walk.end()), (Some(Status::NOENT), 7, None));
        assert_eq!(walk.above().map(|above| above.fileid), Some(u64::from(depth)));
    }
}

#[tokio::test]
async fn paths_without_end_are_not_walked_and_a_denied_root_is_a_failure() {
    let endless = "/dir".repeat(MAX_COMPONENTS + 1);
    let walked = walk(&mut link(tree(100, 2).await), endless.as_bytes()).await.unwrap();
    assert_eq!((walked.stopped, walked.met.len()), (Some(Status::NAMETOOLONG), 0));
    let address = fake::server(|_| Say::Results(compound(2, 1, &[&[24, 2]]))).await;
    assert_eq!(walk(&mut link(address), b"/a").await, Err(Failure::Status(Status::NOENT)));
}

#[tokio::test]
async fn the_grace_period_is_asked_for_with_a_lock_test_that_makes_no_state() {
    let cases = [
        (compound(10013, 2, &[&PUTFH_OK, &[13, 10013]]), Ok(Grace::In)),
        (compound(10022, 2, &[&PUTFH_OK, &[13, 10022]]), Ok(Grace::NotSeen(Status::STALE_CLIENTID))),
        (compound(21, 2, &[&PUTFH_OK, &[13, 21]]), Ok(Grace::NotSeen(Status::ISDIR))),
        (compound(70, 1, &[&[22, 70]]), Err(Failure::Status(Status::STALE))),
        (compound(10021, 0, &[]), Err(Failure::Status(Status::MINOR_VERS_MISMATCH))),
    ];
    for (results, expected) in cases {
        let address = fake::server(move |asked| {
            // PUTFH, then LOCKT (13; LOCK, which would make state, is 12): read lock, offset 0, length 1, client id, owner.
            let head = words(&[0, 0, 2, 22, 4, 0x0102_0304, 13, 1, 0, 0, 0, 1, 0x6d6f_756e, 0x7477_6172, 11]);
            assert_eq!(asked.arguments, [&head, b"mountwarden\0".as_slice()].concat());
            Say::Results(results.clone())
        })
        .await;
        assert_eq!(grace(&mut link(address), Some(&[1, 2, 3, 4])).await, expected);
    }
}

#[tokio::test]
async fn handles_of_no_and_of_two_hundred_bytes_are_no_way_on() {
    for length in [0, MAX_HANDLE + 1, 200] {
        let address = fake::server(move |_| {
            let mut results = Writer::default();
            results.raw(&words(&[24, 0])).raw(&words(&attributes(1))).raw(&words(&[10, 0])).opaque(&vec![7; length]);
            Say::Results([compound(0, 3, &[]), results.finish()].concat())
        })
        .await;
        let walked = walk(&mut link(address), b"/").await;
        // The root's attributes are there; an empty handle would only matter if the path went on.
        assert_eq!(walked.is_ok(), length == 0, "{length} bytes: {walked:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let ops = [Op::PutRoot, Op::Attributes, Op::Lookup(b"a"), Op::Attributes, Op::Handle];
        let _ = Compound(&ops).decode(&bytes);
    }

    // Small words behind the right operation numbers reach every branch.
    #[test]
    fn nearly_right_results_never_panic(tail in proptest::collection::vec(0_u32..12, 0..40), bits: u32) {
        let results = [&[0, 0, 3, 24, 0, 9, 0, 2, bits, 0x4_0000], tail.as_slice()].concat();
        let _ = Compound(&[Op::PutRoot, Op::Attributes, Op::Handle]).decode(&words(&results));
        let _ = super::super::nfs3::decode(&words(&tail));
    }
}
