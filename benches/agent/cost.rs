//! CPU time and memory of the agent and its workers, as the kernel counts them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::common::agent::Agent;
use crate::page::Row;
use crate::{INTERVAL, ROUNDS};

/// Goal: CPU time per target and interval.
const CPU_GOAL: Duration = Duration::from_micros(100);

/// CPU time and memory with so many healthy targets. Takes [`ROUNDS`] intervals.
pub(crate) fn rows(agent: &Agent, targets: usize, goal_mib: f64) -> Vec<Row> {
    // The first pass is over (the agent is ready), and what it has left to do: a thousand workers' ends, the first page.
    std::thread::sleep(INTERVAL / 3);
    let (before, threads_before, begin) = (Used::of(agent.id()), threads(agent.id()), Instant::now());
    std::thread::sleep(INTERVAL * ROUNDS);
    let (after, threads_after, took) = (Used::of(agent.id()), threads(agent.id()), begin.elapsed());

    let rounds = took.div_duration_f64(INTERVAL);
    let share = |time: Duration| time.div_f64(rounds * targets as f64);
    let micros = |time: Duration| format!("{:.0} us", share(time).as_secs_f64() * 1e6);
    let agent_time = after.agent - before.agent;
    let total = agent_time + after.workers().saturating_sub(before.workers());
    let thread = |name: &str| {
        let of = |list: &BTreeMap<String, Duration>| list.get(name).copied().unwrap_or_default();
        of(&threads_after).saturating_sub(of(&threads_before))
    };
    let render = thread("mw-render");
    let measured = format!(
        "{} (loop {}, rendering {}, workers {}), {:.2} % of a core",
        micros(total),
        micros(agent_time.saturating_sub(render)),
        micros(render),
        micros(total - agent_time),
        total.div_duration_f64(took) * 100.0,
    );
    let what = format!("CPU per target and interval, {targets} healthy targets");
    let memory = Memory::of(agent.id());
    let worker = children(agent.id()).into_iter().map(Memory::of).max_by(|a, b| a.rss.total_cmp(&b.rss));
    let worker = worker.map_or_else(String::new, |worker| {
        format!("; a worker {:.1} MB, {:.1} of it its own", worker.rss, worker.anonymous)
    });
    let own =
        format!("{:.1} MB, {:.1} of it its own, {:.1} at the peak{worker}", memory.rss, memory.anonymous, memory.peak);
    vec![
        Row::goal(what, measured, "at most 100 us", share(total) <= CPU_GOAL),
        Row::goal(
            format!("RSS of the agent, {targets} healthy targets"),
            own,
            &format!("below {goal_mib} MB"),
            memory.rss < goal_mib,
        ),
    ]
}

/// CPU time used so far.
struct Used {
    /// By the agent's threads, ended ones too.
    agent: Duration,
    /// By the workers that live.
    living: Duration,
    /// By those that were reaped. The kernel gives it in ticks of 10 ms.
    reaped: Duration,
}

impl Used {
    fn of(agent: u32) -> Used {
        Used { agent: cpu(agent), living: children(agent).into_iter().map(cpu).sum(), reaped: reaped(agent) }
    }

    fn workers(&self) -> Duration {
        self.living + self.reaped
    }
}

/// The clock of a process (clock_getcpuclockid(3)), exact to the nanosecond; nothing if it has just ended.
fn cpu(pid: u32) -> Duration {
    let pid = Pid::from_raw(pid.try_into().unwrap());
    clock_getcpuclockid(pid).and_then(|clock| clock.now()).map_or(Duration::ZERO, Duration::from)
}

/// `cutime` and `cstime` of proc_pid_stat(5).
fn reaped(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // The first field behind the name is number 3; 16 and 17 are wanted.
    let ticks: u64 = fields.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    let second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_secs_f64(ticks as f64 / second as f64)
}

/// CPU time of the threads by name, from `/proc/PID/task/TID/schedstat`; empty where the kernel does not count it.
fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        *times.entry(read("comm").trim().to_owned()).or_default() += Duration::from_nanos(nanos);
    }
    times
}

/// Child processes that are no zombies.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let state = fields.next();
        state != Some("Z") && fields.next() == Some(&pid.to_string())
    })
    .collect()
}

/// Memory of a process in MB (of 1024 * 1024 bytes), from proc_pid_status(5).
pub(crate) struct Memory {
    pub(crate) rss: f64,
    /// The part that is no file: code is shared between agent and workers.
    pub(crate) anonymous: f64,
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
        };
        Memory { rss: field("VmRSS"), anonymous: field("RssAnon"), peak: field("VmHWM") }
    }
}
