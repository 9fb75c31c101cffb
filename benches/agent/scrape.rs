//! `/metrics`, scraped again and again; the same client for the agent and for what it is compared with.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::agent::Agent;
use crate::cost::Memory;
use crate::page::Row;

/// Scrapes in a row.
const SCRAPES: usize = 200;
/// Goal for the slowest but one percent of them.
const GOAL: Duration = Duration::from_millis(10);

/// The agent with all mounts healthy.
pub(crate) fn healthy(agent: &Agent) -> Row {
    let (times, bytes) = times(agent);
    Row::fact("`/metrics`, 1,000 healthy mounts", describe(times, bytes))
}

/// The agent with half of the mounts dead.
pub(crate) fn half_dead(agent: &Agent) -> Vec<Row> {
    let (times, bytes) = times(agent);
    let kept = p99(&times) < GOAL;
    let memory = Memory::of(agent.id());
    vec![
        Row::goal("`/metrics`, 1,000 mounts of which 500 hang", describe(times, bytes), "p99 below 10 ms", kept),
        Row::fact(
            "RSS of the agent, 1,000 targets of which 500 hang",
            format!("{:.1} MB, {:.1} at the peak", memory.rss, memory.peak),
        ),
    ]
}

fn times(agent: &Agent) -> (Vec<Duration>, usize) {
    let mut bytes = 0;
    let times = (0..SCRAPES).map(|_| {
        let (body, took) = agent.scrape();
        bytes = body.len();
        took
    });
    (times.collect(), bytes)
}

/// p99, median and maximum in words.
pub(crate) fn describe(mut times: Vec<Duration>, bytes: usize) -> String {
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    format!(
        "p99 {:.1} ms of {} scrapes (median {:.1}, max {:.1}), {} kB",
        millis(p99(&times)),
        times.len(),
        millis(median(&times)),
        millis(times.last().copied().unwrap_or_default()),
        bytes / 1000
    )
}

/// The time that 99 of 100 do not exceed.
pub(crate) fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// The middle one.
pub(crate) fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A GET that is given up after `limit`, whoever is slow.
pub(crate) fn get(address: SocketAddr, path: &str, limit: Duration) -> std::io::Result<(String, Duration)> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let left = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()).ok_or(ErrorKind::TimedOut)?;
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            count => text.extend(chunk.iter().take(count)),
        }
    }
    let took = begin.elapsed();
    let text = String::from_utf8(text).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    if text.starts_with("HTTP/1.1 200") { Ok((text, took)) } else { Err(Error::other(text)) }
}
