//! The rows below the `device` line of an NFS mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{ByteCounts, NfsStats, Op, Transport};
use crate::mounts::octal;

/// Reads one row into the mount. `None` where a known row is too short or holds no number where one belongs; unknown
/// rows (`opts:`, `caps:`, `fsc:`, whatever comes) are passed over.
pub(super) fn read(mount: &mut NfsStats, line: &[u8]) -> Option<()> {
    let row = line.trim_ascii();
    let Some(colon) = row.iter().position(|&byte| byte == b':') else { return Some(()) };
    let (name, rest) = (row.get(..colon)?, row.get(colon + 1..)?);
    match name {
        b"age" => mount.age_seconds = *numbers(rest)?.first()?,
        b"events" => mount.events = numbers(rest)?,
        b"bytes" => mount.bytes = Some(byte_counts(rest)?),
        b"xprt" => mount.transports.push(transport(rest)?),
        b"nfsv4" => mount.lease_expired = lease_expired(rest)?,
        b"opts" | b"caps" | b"sec" | b"fsc" | b"impl_id" | b"RPC iostats version" => {}
        _ if is_op(name) => mount.ops.push(op(name, rest)?),
        _ => {}
    }
    Some(())
}

/// Operations are upper case, or a bare number where the kernel has no name; every other row is lower case.
fn is_op(name: &[u8]) -> bool {
    let of_a_name = |&byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.iter().all(of_a_name)
}

fn op(name: &[u8], rest: &[u8]) -> Option<Op> {
    let all = numbers(rest)?;
    let &[ops, transmissions, timeouts, bytes_sent, bytes_recv, queue_ms, rtt_ms, execute_ms, ref more @ ..] = &all[..]
    else {
        return None;
    };
    Some(Op {
        name: text(name),
        ops,
        transmissions,
        timeouts,
        bytes_sent,
        bytes_recv,
        queue_ms,
        rtt_ms,
        execute_ms,
        errors: more.first().copied(),
    })
}

fn byte_counts(rest: &[u8]) -> Option<ByteCounts> {
    let all = numbers(rest)?;
    let [
        normal_read,
        normal_written,
        direct_read,
        direct_written,
        server_read,
        server_written,
        read_pages,
        written_pages,
        ..,
    ] = all[..]
    else {
        return None;
    };
    Some(ByteCounts {
        normal_read,
        normal_written,
        direct_read,
        direct_written,
        server_read,
        server_written,
        read_pages,
        written_pages,
    })
}

/// The columns differ by protocol: udp connects to nothing, local has no port.
fn transport(rest: &[u8]) -> Option<Transport> {
    let row = rest.trim_ascii();
    let end = row.iter().position(u8::is_ascii_whitespace)?;
    let (proto, rest) = row.split_at(end);
    let all = numbers(rest)?;
    let counters = match (proto, &all[..]) {
        (b"udp", [port, bind_count, sends, recvs, bad_xids, ..]) => Transport {
            port: *port,
            bind_count: *bind_count,
            sends: *sends,
            recvs: *recvs,
            bad_xids: *bad_xids,
            ..Transport::default()
        },
        (b"local", counters) => connected(0, counters)?,
        (b"tcp" | b"rdma", [port, counters @ ..]) => connected(*port, counters)?,
        _ => return None,
    };
    Some(Transport { proto: text(proto), ..counters })
}

fn connected(port: u64, counters: &[u64]) -> Option<Transport> {
    let &[bind_count, connect_count, connect_jiffies, idle_seconds, sends, recvs, bad_xids, ..] = counters else {
        return None;
    };
    let proto = String::new();
    Some(Transport { proto, port, bind_count, connect_count, connect_jiffies, idle_seconds, sends, recvs, bad_xids })
}

/// `bm0=0x...,acl=0x3,sessions,pnfs=not configured,lease_time=90,lease_expired=0`. `Some(None)`: not among them.
fn lease_expired(rest: &[u8]) -> Option<Option<u64>> {
    let value = rest.split(|&byte| byte == b',').find_map(|item| item.trim_ascii().strip_prefix(b"lease_expired="));
    match value {
        Some(value) => number(value).map(Some),
        None => Some(None),
    }
}

fn numbers(rest: &[u8]) -> Option<Vec<u64>> {
    rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(number).collect()
}

/// The kernel prints a few of them signed (`idle_seconds`); below zero means none.
fn number(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    text.parse().ok().or_else(|| text.parse::<i64>().ok().map(|_| 0))
}

fn text(bytes: &[u8]) -> String {
    octal::label(OsStr::from_bytes(bytes))
}
