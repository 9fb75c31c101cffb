//! The agent process itself: the `process_*` series, read from `<proc-root>/self` (proc_pid_stat(5), proc_pid_limits(5)).

use std::io;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use procfs::FromRead;
use procfs::process::{LimitValue, Limits, Stat};

use crate::localfs;

/// What `process_*` shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessStats {
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: f64,
    /// Virtual memory in bytes.
    pub virtual_bytes: f64,
    /// Open file descriptors.
    pub open_fds: f64,
    /// Soft limit of open file descriptors; `None` when unlimited.
    pub max_fds: Option<f64>,
    /// When the process started, in seconds since the epoch.
    pub start_seconds: f64,
}

/// Why the numbers of the own process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file is missing or unreadable.
    #[error("cannot read {file} under the proc root: {source}; check --proc-root")]
    Read {
        /// Path below the proc root.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file does not have the form that its man page gives it.
    #[error("cannot understand {file} under the proc root; check that --proc-root is a procfs")]
    Form {
        /// Path below the proc root.
        file: &'static str,
    },
}

/// Ticks per second and bytes per page: constants of the running kernel.
#[derive(Debug, Clone, Copy)]
struct Units {
    ticks: f64,
    page: f64,
}

impl Units {
    fn of_this_kernel() -> Self {
        // Both values fit f64 exactly. The fallbacks are what every supported kernel has.
        let number = |var, fallback: f64| match sysconf(var) {
            Ok(Some(value)) => i32::try_from(value).map_or(fallback, f64::from),
            _ => fallback,
        };
        Units { ticks: number(SysconfVar::CLK_TCK, 100.0), page: number(SysconfVar::PAGE_SIZE, 4096.0) }
    }
}

/// Reads the own process's numbers.
///
/// # Errors
/// When a file under `proc_root` cannot be read or understood.
pub fn read(proc_root: &Path) -> Result<ProcessStats, ProcessError> {
    let stat = bytes(proc_root, "self/stat")?;
    let boot = bytes(proc_root, "stat")?;
    let limits = bytes(proc_root, "self/limits")?;
    let open = localfs::count_kernel_dir(&proc_root.join("self/fd"))
        .map_err(|source| ProcessError::Read { file: "self/fd", source })?;

    let mut stats = parse_stat(&stat, Units::of_this_kernel()).ok_or(ProcessError::Form { file: "self/stat" })?;
    stats.start_seconds += parse_boot_time(&boot).ok_or(ProcessError::Form { file: "stat" })?;
    stats.max_fds = parse_max_fds(&limits).ok_or(ProcessError::Form { file: "self/limits" })?;
    // The descriptor that lists the directory is one of the entries.
    stats.open_fds = u32::try_from(open.saturating_sub(1)).map_or(f64::INFINITY, f64::from);
    Ok(stats)
}

fn bytes(proc_root: &Path, file: &'static str) -> Result<Vec<u8>, ProcessError> {
    localfs::read_kernel_file(&proc_root.join(file)).map_err(|source| ProcessError::Read { file, source })
}

/// `start_seconds` is left relative to boot.
fn parse_stat(stat: &[u8], units: Units) -> Option<ProcessStats> {
    let stat = Stat::from_read(stat).ok()?;
    // Metrics are f64; none of these numbers comes near 2^53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let number = |value: u64| value as f64;
    Some(ProcessStats {
        cpu_seconds: number(stat.utime + stat.stime) / units.ticks,
        start_seconds: number(stat.starttime) / units.ticks,
        virtual_bytes: number(stat.vsize),
        resident_bytes: number(stat.rss) * units.page,
        ..ProcessStats::default()
    })
}

fn parse_boot_time(stat: &[u8]) -> Option<f64> {
    String::from_utf8_lossy(stat).lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn parse_max_fds(limits: &[u8]) -> Option<Option<f64>> {
    match Limits::from_read(limits).ok()?.max_open_files.soft_limit {
        LimitValue::Unlimited => Some(None),
        // A limit of more than 2^32 files is as good as none.
        LimitValue::Value(limit) => Some(Some(u32::try_from(limit).map_or(f64::INFINITY, f64::from))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: Units = Units { ticks: 100.0, page: 4096.0 };

    #[test]
    fn reads_its_own_process() {
        let stats = read(Path::new("/proc")).expect("procfs");
        assert!(stats.resident_bytes > 100_000.0, "{stats:?}");
        assert!(stats.open_fds >= 3.0 && stats.start_seconds > 1.0e9, "{stats:?}");
        assert!(stats.max_fds.is_none_or(|max| max >= stats.open_fds), "{stats:?}");
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let tail = "S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 300 8192000 1000 18446744073709551615 1 1 0 0 0 0 0 4096 17642 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
        let stats = parse_stat(format!("7 (a) b (c)) {tail}").as_bytes(), UNITS).expect("stat");
        assert_eq!((stats.cpu_seconds, stats.start_seconds), (3.0, 3.0));
        assert_eq!((stats.virtual_bytes, stats.resident_bytes), (8_192_000.0, 4_096_000.0));
    }

    #[test]
    fn an_unlimited_number_of_files_is_no_number() {
        let real = String::from_utf8(localfs::read_kernel_file(Path::new("/proc/self/limits")).unwrap()).unwrap();
        let with = |files: &str| -> String {
            let line = |line: &str| if line.starts_with("Max open files") { files.to_owned() } else { line.to_owned() };
            real.lines().map(|text| line(text) + "\n").collect()
        };
        let unlimited = with("Max open files            unlimited            unlimited            files     ");
        let some = with("Max open files            1024                 524288               files     ");
        assert_eq!(parse_max_fds(unlimited.as_bytes()), Some(None));
        assert_eq!(parse_max_fds(some.as_bytes()), Some(Some(1024.0)));
        assert_eq!(parse_max_fds(b"Max cpu time unlimited\n"), None);
    }

    #[test]
    fn a_proc_root_without_proc_is_an_error_that_names_the_file() {
        let error = read(Path::new("/nonexistent-proc")).expect_err("no such directory");
        assert!(error.to_string().contains("self/stat"), "{error}");
    }
}
