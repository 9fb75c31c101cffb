//! A FUSE filesystem for tests that fails on request. No part of the product: `cargo build --release` leaves it out.
//!
//! It mounts one or many small read-only filesystems over raw `/dev/fuse` in the mount namespace that it is started
//! in, says `ready`, and then obeys one command a line on stdin, each answered with `ok` or `error: ...`:
//!
//! | command | from now on |
//! |---|---|
//! | `healthy` | answers; also what it has held back |
//! | `hang [OP]` | reads requests and answers none, but lets go of one whose caller was killed |
//! | `wedge [OP]` | the same, and a killed caller stays in D: nothing but the end of this process helps it |
//! | `errno NUMBER [OP]` | answers with this errno |
//! | `slow MILLISECONDS [OP]` | answers late |
//! | `held` | as before; the answer is `held N`, the number of requests that it holds back |
//! | `stop` | stops itself as SIGSTOP does: requests are not even read |
//! | `exit` | dies and leaves its mounts behind, which then say ENOTCONN |
//!
//! OP is one of `lookup getattr open read statfs opendir readdir`; without it all are meant. A number in front
//! (`3 hang`) addresses one mount of many. The end of stdin unmounts everything and ends the process.
#![expect(clippy::print_stdout, reason = "stdout is where the tests read its answers")]
#![expect(clippy::disallowed_methods, reason = "it is the filesystem: it opens /dev/fuse and sleeps on request")]

mod control;
mod serve;
mod wire;

use std::fs::File;
use std::io::BufRead;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, raise};

use control::{Command, Order};
use serve::Filesystem;

/// A FUSE filesystem for tests that fails on request.
#[derive(Debug, Parser)]
struct Options {
    /// Where to mount it; must exist
    dir: PathBuf,
    /// Make this many mounts, at DIR/0, DIR/1, ... (created), instead of one at DIR
    #[arg(long)]
    count: Option<usize>,
    /// Entries of the root directory: directories and files in turn
    #[arg(long, default_value_t = 8)]
    entries: u64,
    /// Filesystem type
    #[arg(long, default_value = "fuse.testfs")]
    fstype: String,
    /// Source; mount number N of many has `-N` appended
    #[arg(long, default_value = "testfs")]
    source: String,
    /// Let others than the owner in (root is such another one)
    #[arg(long)]
    allow_other: bool,
    /// Seconds for which the kernel may keep names and attributes
    #[arg(long, default_value_t = 0)]
    cache: u64,
    /// Owner of the mount
    #[arg(long, default_value_t = 0)]
    user_id: u32,
}

fn main() -> Result<()> {
    // A test that is killed while this process is stopped could not clean it up otherwise.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask to die with the test")?;
    let options = Options::parse();
    let mut mounts = Mounts::default();
    match options.count {
        None => mounts.add(&options, &options.dir, &options.source)?,
        Some(count) => {
            for number in 0..count {
                let dir = options.dir.join(number.to_string());
                std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
                mounts.add(&options, &dir, &format!("{}-{number}", options.source))?;
            }
        }
    }
    println!("ready");
    obey(&mounts)
}

/// Follows the commands on stdin until it ends.
fn obey(mounts: &Mounts) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        match line.context("cannot read stdin")?.parse::<Command>() {
            Err(error) => println!("error: {error}"),
            Ok(Command { mount: Some(number), .. }) if number >= mounts.filesystems.len() => {
                println!("error: there is no mount number {number}");
            }
            Ok(Command { order: Order::Exit, .. }) => std::process::exit(1),
            Ok(Command { order: Order::Stop, .. }) => {
                println!("ok");
                raise(Signal::SIGSTOP).context("cannot stop")?;
            }
            Ok(Command { mount, order: Order::Held }) => {
                let held: usize = mounts.addressed(mount).map(Filesystem::held).sum();
                println!("held {held}");
            }
            Ok(Command { mount, order: Order::Behave(behaviour) }) => {
                mounts.addressed(mount).for_each(|filesystem| filesystem.behave(behaviour));
                println!("ok");
            }
        }
    }
    Ok(())
}

/// Everything mounted so far. Dropping it unmounts, also when a later mount fails.
#[derive(Default)]
struct Mounts {
    dirs: Vec<PathBuf>,
    filesystems: Vec<Arc<Filesystem>>,
}

impl Mounts {
    /// The one with this number, or all.
    fn addressed(&self, number: Option<usize>) -> impl Iterator<Item = &Filesystem> {
        let numbered = self.filesystems.iter().enumerate();
        numbered.filter(move |(index, _)| number.is_none_or(|number| number == *index)).map(|(_, it)| it.as_ref())
    }

    fn add(&mut self, options: &Options, dir: &Path, source: &str) -> Result<()> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .context("cannot open /dev/fuse; `modprobe fuse` where it is missing")?;
        let owner = options.user_id;
        let allow_other = if options.allow_other { ",allow_other" } else { "" };
        let data = format!("fd={},rootmode=40000,user_id={owner},group_id={owner}{allow_other}", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(source), dir, Some(options.fstype.as_str()), flags, Some(data.as_str()))
            .with_context(|| format!("cannot mount {} of type {}", dir.display(), options.fstype))?;
        self.dirs.push(dir.to_owned());

        let filesystem = Arc::new(Filesystem::new(device, options.entries, owner, options.cache));
        filesystem.greet().with_context(|| format!("the kernel does not greet {}", dir.display()))?;
        self.filesystems.push(Arc::clone(&filesystem));
        thread::Builder::new().name(source.to_owned()).spawn(move || filesystem.serve())?;
        Ok(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            // Nothing can be done about an error; the namespace goes away with the test. The end of this process closes
            // the devices, which aborts the connections: no caller stays blocked.
            let _ = umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}
