//! What is fuzzed, with what to begin with and how much each may allocate.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mountwarden::canary::record::{self, Contents, Record};
use mountwarden::mounts::efs::StateFiles;
use mountwarden::mounts::table::Table;
use mountwarden::mounts::{View, mountinfo, mountstats};
use mountwarden::passive::syslog::Tail;
use mountwarden::passive::{fuse, kernel_log, sunrpc};
use mountwarden::probe::trial::options::of_superblock;
use mountwarden::probe::wire::{self, Decoder, Message, Request};
use mountwarden::server::handle::RootHandle;
use mountwarden::server::{replies, rpc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Is told what came of an input; what that costs is not counted.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&dyn Debug);

/// One decoder.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8], Tell<'_>),
    /// Bytes that it may hold at a time: so many, and so many for each byte of its input.
    pub(crate) bound: (usize, usize),
    /// What to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Words of its language.
    pub(crate) words: &'static [&'static str],
}

impl Target {
    pub(crate) fn bound(&self, input: usize) -> usize {
        self.bound.0 + self.bound.1 * input
    }
}

#[rustfmt::skip]
pub(crate) const TARGETS: &[Target] = &[
    // One reply is at most 64 KiB, a list 1 MiB; both grow by doubling, and the results are copied once.
    Target { name: "rpc_record", run: rpc_record, bound: (160 << 10, 8), seeds: rpc_seeds, words: &[] },
    Target { name: "rpc_replies", run: rpc_replies, bound: (8 << 10, 64), seeds: result_seeds, words: &[] },
    Target { name: "nfs_handle", run: nfs_handle, bound: (1 << 10, 2), seeds: handle_seeds, words: &[] },
    Target { name: "mountinfo", run: mount_table, bound: (64 << 10, 128), seeds: mountinfo_seeds,
        words: &[" - nfs4 ", " - fuse.sshfs ", "vers=4.1", "addr=", "port=20173", "127.0.0.1:/", "\\040", "\\012", "shared:1 ", "0:45", "/mnt/a", ",softerr", "[fd00::1]:/"] },
    Target { name: "mountstats", run: mount_stats, bound: (64 << 10, 128), seeds: mountstats_seeds,
        words: &["device ", " mounted on ", " with fstype nfs4 statvers=1.1\n", "\txprt:\ttcp ", "\tper-op statistics\n", "GETATTR: ", "age:\t", "events:\t", "bytes:\t", "rdma ", "local "] },
    Target { name: "mount_options", run: mount_options, bound: (16 << 10, 128), seeds: option_seeds,
        words: &["vers=", "addr=", "proto=tcp6", "context=\"", "mountproto=", ",", "=", "\\054"] },
    Target { name: "kernel_log", run: kernel_lines, bound: (64 << 10, 32), seeds: kernel_log_seeds,
        words: &["nfs: server ", " not responding, still trying", " not responding, timed out", " OK", "\\x0a", "NFS: ", "fsid 0:26: expected fileid ", "<5>[    1.0]", "6,1,1,-;", " error: fileid changed", " failed on NFSv4 server ", ": lost 3 locks"] },
    Target { name: "kernel_files", run: kernel_files, bound: (4 << 10, 4), seeds: kernel_file_seeds,
        words: &["state=", "CONNECTED", "CONNECTING", " ", "\n"] },
    // serde takes at most 1 MiB in advance for each list that a frame announces, and lists lie in lists.
    Target { name: "worker_frames", run: worker_frames, bound: (8 << 20, 64), seeds: frame_seeds, words: &[] },
    // The block as it was read, and what the record says.
    Target { name: "canary_record", run: canary_record, bound: (24 << 10, 4), seeds: record_seeds,
        words: &["mountwarden canary 1\n", "id 0123456789abcdef\n", "node ", "boot ", "seq ", "interval ", "sum ", "18446744073709551616", "\n"] },
    Target { name: "efs_state", run: efs_state, bound: (64 << 10, 64), seeds: efs_seeds,
        words: &["fs-0123456789abcdef0.mnt.a.20173", "\"pid\": ", "\"mountpoint\": ", "\"region\": ", "{", "}", "[", "\"", "\\ud800", "~", "\0"] },
];

/// The bytes as they come from a socket, in pieces whose sizes the input chooses.
struct Socket<'a>(&'a [u8]);

impl AsyncRead for Socket<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let piece = usize::from(self.0.first().copied().unwrap_or(1)).max(1);
        let count = piece.min(self.0.len()).min(buffer.remaining());
        let (now, later) = self.0.split_at(count);
        buffer.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Such a socket never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a socket of bytes is always ready"),
    }
}

fn rpc_record(input: &[u8], tell: Tell<'_>) {
    let record = at_once(rpc::exchange_bytes(&mut Socket(input), b"call"));
    match &record {
        Ok(record) => {
            // A peer that wants to be understood repeats the id.
            let xid = record.first_chunk::<4>().map_or(0, |xid| u32::from_be_bytes(*xid));
            tell(&(
                rpc::decode_reply(record, xid).map(|reply| format!("{reply:?}").len().min(80)),
                rpc::decode_reply(record, !xid),
            ));
        }
        Err(error) => tell(error),
    }
    drop(record);
    tell(&at_once(rpc::exchange_list(&mut Socket(input), b"call")).map(|(bytes, cut)| (bytes.len(), cut)));
}

fn rpc_replies(input: &[u8], tell: Tell<'_>) {
    let Some((&kind, results)) = input.split_first() else { return };
    match kind % 6 {
        0 => tell(&replies::attributes3(results)),
        1 => tell(&replies::compound4(results)),
        2 => tell(&replies::exports(results, false, "/srv/data")),
        3 => tell(&replies::exports(results, true, "/")),
        4 => tell(&replies::mount(results)),
        _ => tell(&replies::port(results)),
    }
}

fn nfs_handle(input: &[u8], tell: Tell<'_>) {
    tell(&RootHandle::decode(input).map(|handle| handle.server.len()));
}

/// As any tenant may have written it, and once more with a checksum that holds, or little would get past it. The rest of the
/// block is zeros, which the corpus need not keep.
fn canary_record(input: &[u8], tell: Tell<'_>) {
    tell(&record::is_id(input));
    let mut block = input.to_vec();
    block.resize(record::SIZE.max(input.len()), 0);
    tell(&record::read(&block));
    mend_sum(&mut block);
    let contents = record::read(&block);
    tell(&contents);
    if let Contents::Record(read) = contents {
        // What was believed is written and read the same: nothing that a label or a terminal would mind got in.
        assert_eq!(record::read(&read.encode()), Contents::Record(read));
    }
}

/// FNV-1a over all but the line of the sum itself.
fn mend_sum(block: &mut Vec<u8>) {
    let Some(at) = block.windows(5).position(|window| window == b"\nsum ").map(|at| at + 1) else { return };
    let Some(end) = block.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n')) else { return };
    block.truncate(record::SIZE);
    let Some((head, rest)) = block.get(..at).zip(block.get(at + end + 1..)) else { return };
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = head.iter().chain(rest).fold(0xcbf2_9ce4_8422_2325, fold);
    let line = format!("sum {sum:016x}\n");
    let rest = rest.to_vec();
    block.truncate(at);
    block.extend_from_slice(line.as_bytes());
    block.extend_from_slice(&rest);
}

fn mount_table(input: &[u8], tell: Tell<'_>) {
    let (own, host) = input.split_at(input.iter().position(|&byte| byte == 0xff).unwrap_or(input.len()));
    let parsed = mountinfo::parse(own, View::Own);
    let kinds: Vec<_> = parsed.mounts.iter().map(|mount| (mount.kind, mount.read_only(), mount.origin.mode)).collect();
    tell(&(kinds, parsed.bad_count.min(3)));
    drop(parsed);
    let table = Table::of(own, Ok(host.to_vec()));
    tell(&(table.mounts.iter().filter(|mount| mount.hidden_by.is_some()).count(), table.bad_count.min(3)));
}

fn mount_stats(input: &[u8], tell: Tell<'_>) {
    let stats = mountstats::parse(input);
    let shapes = stats.nfs.iter().map(|mount| {
        (mount.counters(), mountstats::OpCounters::total(&mount.operations()).is_some(), mount.events.len())
    });
    tell(&(shapes.collect::<Vec<_>>(), stats.bad_lines.min(3)));
}

fn mount_options(input: &[u8], tell: Tell<'_>) {
    for address in [std::net::IpAddr::from([10, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] {
        let options = of_superblock(OsStr::from_bytes(input), address);
        // Numbers do not tell one kind from another: as many letters instead.
        tell(&options.iter().take(50).map(|option| option.value.is_some()).collect::<Vec<_>>());
    }
}

fn kernel_lines(input: &[u8], tell: Tell<'_>) {
    tell(&kernel_log::record(input));
    tell(&kernel_log::line(input));
    let (first, second) = input.split_at(input.len() / 2);
    let mut tail = Tail::default();
    tail.take(first);
    let (lines, lost) = tail.take(second);
    tell(&(lines.iter().map(|line| line.kind).collect::<Vec<_>>(), lost, tail.take(input).1));
}

fn kernel_files(input: &[u8], tell: Tell<'_>) {
    tell(&(sunrpc::link(input), sunrpc::address(input), fuse::waiting(input)));
}

fn worker_frames(input: &[u8], tell: Tell<'_>) {
    let mut decoder = Decoder::default();
    decoder.push(input);
    loop {
        match decoder.take::<Message>() {
            Ok(Some(message)) => tell(&message),
            end => {
                tell(&end);
                break;
            }
        }
    }
    let mut decoder = Decoder::default();
    for piece in input.chunks(7) {
        decoder.push(piece);
    }
    let request = decoder.take::<Request>();
    if let Ok(Some(request)) = &request {
        // What was understood is said again in the same way.
        assert!(wire::encode(request).is_ok());
    }
    tell(&request);
}

fn efs_state(input: &[u8], tell: Tell<'_>) {
    let files = input.split(|&byte| byte == 1).map(|file| {
        let (name, content) = file.split_at(file.iter().position(|&byte| byte == 0).unwrap_or(file.len()));
        (OsString::from_vec(name.to_vec()), content.get(1..).unwrap_or_default().to_vec())
    });
    let files = StateFiles::decode(files);
    let found = files.lookup(20173, Path::new("/mnt/a"));
    tell(&(files.len(), found.map(|mount| (mount.pid.is_some(), mount.region.is_some(), mount.mountpoint.is_some()))));
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn record(body: &[u32]) -> Vec<u8> {
    [words(&[u32::try_from(body.len() * 4).unwrap_or(0) | 1 << 31]), words(body)].concat()
}

fn rpc_seeds() -> Vec<Vec<u8>> {
    let accepted = record(&[7, 1, 0, 0, 0, 0, 1, 2, 3]);
    let fragments = [words(&[8, 7, 1]), record(&[0, 0, 0, 0])].concat();
    vec![
        accepted,
        fragments,
        record(&[7, 1, 0, 0, 0, 2, 3, 4]),
        record(&[7, 1, 1, 1, 5]),
        record(&[7, 1, 1, 0, 2, 2]),
        words(&[0, 0, 0, 0, 1 << 31]),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        words(&[u32::MAX, 1, 2, 3]),
    ]
}

fn result_seeds() -> Vec<Vec<u8>> {
    let list =
        [words(&[1, 9]), b"/srv/data\0\0\0".to_vec(), words(&[1, 1]), b"*\0\0\0".to_vec(), words(&[0, 0])].concat();
    let attributes4 = [2, 1 << 1 | 1 << 8 | 1 << 20, 0, 28, 2, 0, 5, 0, 6, 0, 7];
    let mut compound = vec![0, 0, 14, 24, 0, 9, 0];
    compound.extend(attributes4);
    for _ in 0..5 {
        compound.extend([15, 0, 9, 0]);
        compound.extend(attributes4);
    }
    compound.extend([10, 0, 4, 0x0102_0304, 13, 10_013]);
    let of = |kind: u8, body: Vec<u8>| [vec![kind], body].concat();
    vec![
        of(0, words(&[[0, 2, 0o755, 3].as_slice(), &[0; 17]].concat())),
        of(0, words(&[70])),
        of(1, words(&compound)),
        of(1, words(&[10_006, 0, 1, 24, 10_006])),
        of(2, list.clone()),
        of(3, list),
        of(4, words(&[0, 4, 0x0102_0304, 1, 1])),
        of(4, words(&[13])),
        of(5, words(&[20048])),
    ]
}

fn handle_seeds() -> Vec<Vec<u8>> {
    let mut handle = 8_i32.to_be_bytes().to_vec();
    for word in [0_u32, 77, libc_directory()] {
        handle.extend(word.to_ne_bytes());
    }
    handle.extend(16_u16.to_ne_bytes());
    handle.extend([9; 16]);
    handle.extend([0; 2]);
    vec![handle]
}

/// `S_IFDIR`.
fn libc_directory() -> u32 {
    0o040_000
}

fn fixtures(directory: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(directory);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}

fn mountinfo_seeds() -> Vec<Vec<u8>> {
    let files = fixtures("mountinfo");
    let line = |file: &Vec<u8>| file.split(|&byte| byte == b'\n').next_back().map(<[u8]>::to_vec);
    let lines: Vec<Vec<u8>> = files.iter().filter_map(line).collect();
    let two = files.windows(2).map(|pair| [&pair[0], [0xff].as_slice(), &pair[1]].concat());
    files.iter().cloned().chain(lines).chain(two).collect()
}

fn mountstats_seeds() -> Vec<Vec<u8>> {
    let mut seeds = fixtures("mountstats");
    for file in seeds.clone() {
        let text = String::from_utf8_lossy(&file).into_owned();
        seeds.extend(text.split("device ").map(|device| format!("device {device}").into_bytes()));
    }
    seeds
}

fn kernel_log_seeds() -> Vec<Vec<u8>> {
    let files = fixtures("kernel_log");
    let lines = files.iter().flat_map(|file| file.split(|&byte| byte == b'\n').map(<[u8]>::to_vec));
    let syslog = b"<5>[    1.0] nfs: server a OK\n<5>[    2.0][  T8] nfs: server b OK\n".to_vec();
    lines.chain(files.iter().cloned()).chain([syslog]).collect()
}

fn record_seeds() -> Vec<Vec<u8>> {
    let record = |node: &str, seq| Record {
        id: "0123456789abcdef".to_owned(),
        node: node.to_owned(),
        boot: "5c1a0f0e-9d5b-4f6e-8f57-2f1f36e5a8a1".to_owned(),
        seq,
        interval: 75,
    };
    let records = [record("node-1", 1), record("ip-10-0-0-1.eu-west-1.compute.internal", u64::MAX), record("", 0)];
    // Heads alone: with their whole padding none would be kept.
    let head = |record: &Record| {
        let mut block = record.encode();
        block.truncate(block.windows(5).position(|window| window == b"\nsum ").map_or(block.len(), |at| at + 22));
        block
    };
    records.iter().map(head).chain([vec![0; 64], b"something else".to_vec()]).collect()
}

fn kernel_file_seeds() -> Vec<Vec<u8>> {
    ["state=LOCKED CONNECTED BOUND\n", "10.0.1.1\n", "fd00::1\n", "17\n"].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn option_seeds() -> Vec<Vec<u8>> {
    let v3 =
        "ro,vers=3,rsize=65536,soft,nolock,proto=tcp,port=2049,timeo=50,mountaddr=10.0.1.1,mountproto=,addr=10.0.1.1";
    let v4 =
        r#"rw,vers=4.2,hard,noresvport,context="system_u:object_r:nfs_t:s0:c1,c2",clientaddr=10.0.0.1,addr=fd00::1"#;
    vec![v3.into(), v4.into()]
}

fn frame_seeds() -> Vec<Vec<u8>> {
    use mountwarden::mounts::Dev;
    use mountwarden::probe::scan::{MemberRow, ProcessRow, Scan, ScanJob, What};
    use mountwarden::probe::wire::{Answer, Job, Place, ProbeSpec, SignalsJob};
    use mountwarden::probe::{Identity, ProbeReport, Sentinel, Step, StepResult};
    let place = Place {
        root: b"/proc/1/root".to_vec(),
        path: b"/mnt/a".to_vec(),
        cached_only: true,
        mount_id: 77,
        dev: Dev { major: 0, minor: 45 },
    };
    let sentinel = Sentinel { name: b"f".to_vec(), mark: vec![1; 12] };
    let spec = ProbeSpec {
        own: Some(vec![2; 12]),
        place: place.clone(),
        device: Some(b"/sys/dev/block/8:1".to_vec()),
        statx_root: true,
        sentinels: vec![sentinel.clone(); 4],
        first: 1,
        statfs: true,
        learn: 4,
    };
    let identity = Identity { handle: vec![3; 36], ino: 2, unique_mount_id: Some(9) };
    let report = ProbeReport {
        steps: vec![StepResult { step: Step::StatxRoot, errno: Some(116), micros: 400 }],
        identity: Some(identity.clone()),
        learned: Some(vec![sentinel]),
        ..ProbeReport::default()
    };
    let jobs = [
        Job::Identify(vec![place; 3]),
        Job::Probe(spec),
        Job::Counters(b"/proc/self/mountstats".to_vec()),
        Job::Signals(SignalsJob { roots: vec![b"/sys".to_vec()], transports: true, connections: vec![45] }),
        Job::Processes(ScanJob { proc_root: b"/proc".to_vec(), known: vec![(1, 77), (900, 78)], again: vec![900] }),
    ];
    let member = MemberRow {
        entry: 900,
        start: 5,
        parent: 1,
        name: b"a".to_vec(),
        cgroup: 0,
        namespace: Some(4_026_532_000),
        ids: Some(0),
    };
    let answers = [
        Answer::Identities(vec![Some(identity), None]),
        Answer::Report(report),
        Answer::Files(vec![(b"fs-1.mnt.20173".to_vec(), b"{}".to_vec())]),
        Answer::Processes(Scan {
            rows: vec![ProcessRow { pid: 900, ino: 78, what: What::Member(member) }],
            cgroups: vec![b"0::/system.slice/a.service\n".to_vec()],
            host: Some(4_026_531_841),
            ..Scan::default()
        }),
        Answer::Failed { errno: 5 },
    ];
    let jobs = jobs.map(|job| wire::encode(&Request { seq: 3, job }));
    let answers = answers.map(|answer| wire::encode(&Message::Done { seq: 3, answer }));
    jobs.into_iter().chain(answers).chain([wire::encode(&Message::Ready)]).flatten().collect()
}

fn efs_seeds() -> Vec<Vec<u8>> {
    let content = r#"{"pid": 4711, "cmd": ["/usr/bin/efs-proxy"], "files": [], "mountpoint": "/mnt/a", "accessPoint": "fsap-0123456789abcdef0", "region": "eu-west-1", "az": null}"#;
    let file = format!("fs-0123456789abcdef0.mnt.a.20173\0{content}");
    vec![file.clone().into(), format!("{file}\x01~{file}\x01fs-00000000.x.20173\0{{").into()]
}
