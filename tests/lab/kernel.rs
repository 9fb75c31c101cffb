//! The kernel's own opinion of a mount, without the agent: a statx that must ask the server, in a process that may hang.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// `guest statx PATH`: prints `ok` or the error, and the seconds it took. The mask has to go beyond type and inode,
/// which need no call.
pub(crate) fn statx_and_print(path: &Path) {
    let mask = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::NLINK | StatxFlags::INO;
    let begin = Instant::now();
    let result = match statx(CWD, path, AtFlags::STATX_FORCE_SYNC, mask) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    println!("{result} {:.6}", begin.elapsed().as_secs_f64());
}

/// Whether the NFS client has a connection to a server: an ESTABLISHED (01) line with the remote port 2049 (0801).
pub(crate) fn connected() -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(":0801")) && fields.next() == Some("01")
    })
}

/// A statx under way.
pub(crate) struct Asked {
    child: Child,
}

/// What came of it.
pub(crate) struct Answer {
    pub(crate) result: String,
    pub(crate) took: Duration,
}

impl Asked {
    pub(crate) fn start(path: &str) -> Result<Asked> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guest", "statx", path]).current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Asked { child: command.spawn().context("start a statx")? })
    }

    /// The answer, if there is one by now.
    pub(crate) fn poll(&mut self) -> Result<Option<Answer>> {
        if self.child.try_wait()?.is_none() {
            return Ok(None);
        }
        let mut line = String::new();
        if let Some(pipe) = self.child.stdout.as_mut() {
            std::io::Read::read_to_string(pipe, &mut line)?;
        }
        let (result, seconds) = line.trim().rsplit_once(' ').context("a statx that says nothing")?;
        Ok(Some(Answer { result: result.to_owned(), took: Duration::from_secs_f64(seconds.parse()?) }))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Waiting for NFS can be killed; reaping it is left to the end of the guest.
        let _ = self.child.kill();
    }
}

/// `guest tarpit PORT`: the kernel completes connections that nobody will ever accept, as for a stopped process.
pub(crate) fn tarpit(port: u16) -> Result<()> {
    let _listener = std::net::TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("listen on port {port}"))?;
    println!("listening");
    loop {
        std::thread::park();
    }
}

/// How much a user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Limit {
    /// What he has.
    Full,
    /// Anything.
    Free,
}

/// `guest quota DEVICE USER LIMIT`: sets the hard limit of blocks by quotactl(2).
#[expect(unsafe_code, reason = "no library in use has quotactl(2)")]
pub(crate) fn quota(device: &Path, user: u32, limit: Limit) -> Result<()> {
    // include/uapi/linux/quota.h: commands are shifted by eight bits, USRQUOTA is 0; limits count blocks of 1 KiB.
    const SHIFT: i32 = 8;
    const BLOCK: u64 = 1024;
    let special = std::ffi::CString::new(device.as_os_str().as_encoded_bytes())?;
    // SAFETY: a structure of integers, for which zero is a value.
    let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
    let mut call = |command: i32| -> Result<u64> {
        // SAFETY: the path ends with a zero byte, and `quota` is what both commands take; both live across the call.
        let done =
            unsafe { libc::quotactl(command << SHIFT, special.as_ptr(), user.try_into()?, (&raw mut quota).cast()) };
        anyhow::ensure!(done == 0, "quotactl of {}: {}", device.display(), std::io::Error::last_os_error());
        let used = quota.dqb_curspace.div_ceil(BLOCK);
        quota.dqb_bhardlimit = if limit == Limit::Full { used } else { 0 };
        quota.dqb_valid = libc::QIF_BLIMITS;
        Ok(used)
    };
    let used = call(libc::Q_GETQUOTA)?;
    call(libc::Q_SETQUOTA)?;
    println!("user {user} has {used} KiB and may have {limit:?}");
    Ok(())
}
