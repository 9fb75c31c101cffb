//! `make demo`: the guest's script on this terminal.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::interrupt;
use crate::uml::{Console, End, Guest, Host};

/// The story takes a minute.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn run(agent: &Path) -> Result<()> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let out = std::env::temp_dir().join(format!("mwlab-demo-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let guest =
        Guest { name: "demo", script: "guest/demo.sh", out: &out, console: Console::Terminal, arguments: Vec::new() };
    let end = host.boot(&guest).and_then(|guest| guest.wait(LIMIT, || Ok(())));
    let complete = out.join("complete").exists();
    std::fs::remove_dir_all(&out)?;
    match end? {
        End::PoweredOff if complete => Ok(()),
        End::PoweredOff => bail!("the demo ended before its end"),
        End::Interrupted => bail!("interrupted"),
        End::TimedOut => bail!("the demo did not end"),
    }
}
