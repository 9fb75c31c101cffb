//! Set-ups: a guest each, in which faults are made one after the other. `asks`, `diagnoses` and `says` run them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use regex::Regex;

use crate::uml::{Console, End, Guest, Host};

/// What a guest is like unless its set-up says otherwise.
const USUAL: &str = "SUBPATH=/ LAYOUT=alone BACKING=dir MODE=hard OPTIONS=timeo=10,retrans=2";

/// One guest: a way to export and mount, and what is made in it.
pub(crate) struct Setup<Case: 'static> {
    pub(crate) name: &'static str,
    /// Lines of its `cell.env`, with blanks between them, where they differ from [`USUAL`].
    pub(crate) environment: &'static str,
    pub(crate) cases: &'static [Case],
}

/// Those whose name matches; all, if nothing is asked for.
pub(crate) fn chosen<'a, Case>(
    all: &'a [Setup<Case>],
    only: Option<&'a Regex>,
) -> impl Iterator<Item = &'a Setup<Case>> {
    all.iter().filter(move |setup| only.is_none_or(|only| only.is_match(setup.name)))
}

impl<Case> Setup<Case> {
    /// Boots the guest with `script`, which finds a `line` of each case in the file `cases`, and waits until it is
    /// finished. Its files are left in `out`; gives its log.
    pub(crate) fn run(
        &self,
        host: &Host,
        script: &str,
        out: &Path,
        limit: Duration,
        line: impl Fn(&Case) -> String,
    ) -> Result<String> {
        // Results of an earlier run prove nothing.
        let _ = std::fs::remove_dir_all(out);
        std::fs::create_dir_all(out)?;
        let environment = format!("{USUAL} {}", self.environment).replace(' ', "\n");
        std::fs::write(out.join("cell.env"), environment + "\n")?;
        std::fs::write(out.join("cases"), self.cases.iter().map(|case| line(case) + "\n").collect::<String>())?;
        let guest = Guest { name: self.name, script, out, console: Console::File, arguments: Vec::new() };
        let end = host.boot(&guest)?.wait(limit, || Ok(()))?;
        let log = std::fs::read_to_string(out.join("guest.log")).unwrap_or_default();
        match end {
            End::Interrupted => bail!("interrupted"),
            End::TimedOut => bail!("the guest {} did not end: {log}", self.name),
            End::PoweredOff if !out.join("finished").exists() => bail!("the guest {} ended early: {log}", self.name),
            End::PoweredOff => Ok(log),
        }
    }
}
