//! `/proc/PID/mountstats`: what the NFS client counted per mount.
//!
//! The rows are those of `nfs_show_stats` (fs/nfs/super.c), `rpc_clnt_show_stats` (net/sunrpc/stats.c) and the
//! `print_stats` of each transport (net/sunrpc/xprtsock.c, xprtrdma/transport.c). They grew over time and may grow
//! again: further columns and unknown rows are passed over, rows that are too short are counted and left out, and the
//! rest of the file is read all the same.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::octal;

mod operations;
mod rows;
mod trend;

pub use operations::{OpCounters, Operation};
pub use trend::TransportTrend;

/// The NFS mounts of one mount namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountStats {
    /// In the order of the file. Mounts of one server share transports and, with one superblock, all counters.
    pub nfs: Vec<NfsStats>,
    /// Rows that were too short, held no number where one belongs, or stated an unknown version.
    pub bad_lines: u64,
}

/// What the client counted for one NFS mount since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NfsStats {
    /// Source (`srv:/export`).
    pub source: OsString,
    /// Where it is mounted, in the namespace of the process.
    pub mountpoint: OsString,
    /// `nfs` or `nfs4`.
    pub fstype: String,
    /// Version of the statistics (`1.1`).
    pub statvers: String,
    /// Seconds since the superblock was mounted.
    pub age_seconds: u64,
    /// Counters of `enum nfs_stat_eventcounters` (include/linux/nfs_iostat.h) in its order, as many as the kernel has.
    pub events: Vec<u64>,
    /// Bytes and pages that were moved.
    pub bytes: Option<ByteCounts>,
    /// Every connection: several with `nconnect` and trunking.
    pub transports: Vec<Transport>,
    /// Every operation that the protocol version has, in the order of the file; most are never used.
    pub ops: Vec<Op>,
    /// NFSv4: seconds that the lease is over its time; 0 while it is valid, absent on v3 and old kernels.
    pub lease_expired: Option<u64>,
}

/// The row `bytes:`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteCounts {
    /// Bytes read by applications through the page cache.
    pub normal_read: u64,
    /// Bytes written by applications through the page cache.
    pub normal_written: u64,
    /// Bytes read with O_DIRECT.
    pub direct_read: u64,
    /// Bytes written with O_DIRECT.
    pub direct_written: u64,
    /// Bytes read from the server.
    pub server_read: u64,
    /// Bytes written to the server.
    pub server_written: u64,
    /// Pages read.
    pub read_pages: u64,
    /// Pages written.
    pub written_pages: u64,
}

/// One row `xprt:`: a connection to the server. Counters that its protocol does not have are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// `tcp`, `udp`, `rdma` or `local`.
    pub proto: String,
    /// Port on this side; 0 if none is bound.
    pub port: u64,
    /// Times a port was asked of the portmapper.
    pub bind_count: u64,
    /// Times a connection was attempted. A connection that stays has a constant one.
    pub connect_count: u64,
    /// Jiffies spent connecting.
    pub connect_jiffies: u64,
    /// Seconds since the last traffic.
    pub idle_seconds: u64,
    /// Requests sent.
    pub sends: u64,
    /// Replies received.
    pub recvs: u64,
    /// Replies that matched no request.
    pub bad_xids: u64,
}

/// One row of `per-op statistics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Name (`GETATTR`); a number for operations that the kernel has no name for.
    pub name: String,
    /// Calls.
    pub ops: u64,
    /// Transmissions: more than calls where they were retransmitted.
    pub transmissions: u64,
    /// Major timeouts (`timeo` x `retrans` passed).
    pub timeouts: u64,
    /// Bytes sent, RPC headers included.
    pub bytes_sent: u64,
    /// Bytes received, RPC headers included.
    pub bytes_recv: u64,
    /// Milliseconds that calls waited to be sent.
    pub queue_ms: u64,
    /// Milliseconds between sending and reply.
    pub rtt_ms: u64,
    /// Milliseconds from start to end of the calls.
    pub execute_ms: u64,
    /// Calls that ended with an error, also killed ones; absent before Linux 5.3.
    pub errors: Option<u64>,
}

/// Sums over the transports of a mount: what says that a server was reconnected to, or answers again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportCounters {
    /// Connection attempts.
    pub connects: u64,
    /// Requests sent.
    pub sends: u64,
    /// Replies received.
    pub recvs: u64,
}

impl NfsStats {
    /// The sums over all transports.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        TransportCounters { connects: self.connects(), sends: self.sends(), recvs: self.recvs() }
    }

    /// Connection attempts over all transports.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.sum(|transport| transport.connect_count)
    }

    /// Requests sent over all transports.
    #[must_use]
    pub fn sends(&self) -> u64 {
        self.sum(|transport| transport.sends)
    }

    /// Replies received over all transports.
    #[must_use]
    pub fn recvs(&self) -> u64 {
        self.sum(|transport| transport.recvs)
    }

    /// The statistics of one operation, by the kernel's name for it.
    #[must_use]
    pub fn op(&self, name: &str) -> Option<&Op> {
        self.ops.iter().find(|op| op.name == name)
    }

    fn sum(&self, counter: impl Fn(&Transport) -> u64) -> u64 {
        self.transports.iter().map(counter).fold(0, u64::saturating_add)
    }
}

/// Reads a whole mountstats file. Mounts of other types have no statistics and are passed over.
#[must_use]
pub fn parse(bytes: &[u8]) -> MountStats {
    let mut stats = MountStats::default();
    // The NFS mount whose rows are being read; `None` below the line of another filesystem.
    let mut current: Option<NfsStats> = None;
    for line in bytes.split(|&byte| byte == b'\n') {
        if line.starts_with(b"device ") || line.starts_with(b"no device ") {
            stats.nfs.extend(current.take());
            current = stats.begin(line);
        } else if let Some(mount) = &mut current
            && rows::read(mount, line).is_none()
        {
            stats.bad_lines += 1;
        }
    }
    stats.nfs.extend(current);
    stats
}

impl MountStats {
    /// `device SOURCE mounted on PATH with fstype TYPE [statvers=V]`; neither name holds a bare space.
    fn begin(&mut self, line: &[u8]) -> Option<NfsStats> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let [b"device", source, b"mounted", b"on", mountpoint, b"with", b"fstype", fstype, rest @ ..] =
            fields.as_slice()
        else {
            // A line that was cut off, or the kernel's `no device mounted on ...`.
            self.bad_lines += u64::from(!line.starts_with(b"no device "));
            return None;
        };
        if !matches!(*fstype, b"nfs" | b"nfs4") {
            return None;
        }
        let statvers = rest.iter().find_map(|field| field.strip_prefix(b"statvers=")).unwrap_or_default();
        self.bad_lines += u64::from(!matches!(statvers, b"1.0" | b"1.1"));
        Some(NfsStats {
            source: octal::unescape(source),
            mountpoint: octal::unescape(mountpoint),
            fstype: octal::label(&octal::unescape(fstype)),
            statvers: octal::label(&octal::unescape(statvers)),
            ..NfsStats::default()
        })
    }
}

#[cfg(test)]
mod tests;
