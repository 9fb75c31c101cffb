//! The agent process itself: the `process_*` series, read from `<proc-root>/self` (proc_pid_stat(5), proc_pid_limits(5)).

use std::io;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

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
    let stat = text(proc_root, "self/stat")?;
    let boot = text(proc_root, "stat")?;
    let limits = text(proc_root, "self/limits")?;
    let open = localfs::count_kernel_dir(&proc_root.join("self/fd"))
        .map_err(|source| ProcessError::Read { file: "self/fd", source })?;

    let mut stats = parse_stat(&stat, Units::of_this_kernel()).ok_or(ProcessError::Form { file: "self/stat" })?;
    stats.start_seconds += parse_boot_time(&boot).ok_or(ProcessError::Form { file: "stat" })?;
    stats.max_fds = parse_max_fds(&limits).ok_or(ProcessError::Form { file: "self/limits" })?;
    // The descriptor that lists the directory is one of the entries.
    stats.open_fds = u32::try_from(open.saturating_sub(1)).map_or(f64::INFINITY, f64::from);
    Ok(stats)
}

fn text(proc_root: &Path, file: &'static str) -> Result<String, ProcessError> {
    let bytes =
        localfs::read_kernel_file(&proc_root.join(file)).map_err(|source| ProcessError::Read { file, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `start_seconds` is left relative to boot.
fn parse_stat(stat: &str, units: Units) -> Option<ProcessStats> {
    // The name in parentheses may itself hold spaces and parentheses: only the last one ends it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field numbers of proc_pid_stat(5); `state`, the first one after the name, is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(ProcessStats {
        cpu_seconds: (field(14)? + field(15)?) / units.ticks,
        start_seconds: field(22)? / units.ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * units.page,
        ..ProcessStats::default()
    })
}

fn parse_boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn parse_max_fds(limits: &str) -> Option<Option<f64>> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
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
        let tail = "S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 300 8192000 1000 18446744073709551615";
        let stats = parse_stat(&format!("7 (a) b (c)) {tail}"), UNITS).expect("stat");
        assert_eq!((stats.cpu_seconds, stats.start_seconds), (3.0, 3.0));
        assert_eq!((stats.virtual_bytes, stats.resident_bytes), (8_192_000.0, 4_096_000.0));
    }

    #[test]
    fn a_missing_limit_is_not_a_number() {
        assert_eq!(parse_max_fds("Max open files            unlimited  unlimited  files\n"), Some(None));
        assert_eq!(parse_max_fds("Max open files            1024  524288  files\n"), Some(Some(1024.0)));
        assert_eq!(parse_max_fds("Max cpu time unlimited\n"), None);
    }

    #[test]
    fn a_proc_root_without_proc_is_an_error_that_names_the_file() {
        let error = read(Path::new("/nonexistent-proc")).expect_err("no such directory");
        assert!(error.to_string().contains("self/stat"), "{error}");
    }
}
