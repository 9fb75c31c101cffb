//! What a shell and man(1) know of the command line: made from it, so that no flag is described twice.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Exit;
use super::output::{complain, print};

/// Prints the script that completes commands and flags.
pub(super) fn completions(shell: Shell, command: Command) -> Exit {
    print(&script(shell, command));
    Exit::Healthy
}

fn script(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, env!("CARGO_PKG_NAME"), &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        // Where the script offers nothing bash would offer files, and look into the very mount that does not answer.
        Shell::Bash => script.replace(" -o bashdefault -o default", ""),
        _ => script,
    }
}

/// Writes `mountwarden.1` and a page for each command that `--help` lists into a directory.
pub(super) fn man_pages(directory: &Path, command: Command) -> Exit {
    match write_pages(directory, command) {
        Ok(()) => Exit::Healthy,
        Err(error) => {
            let directory = directory.display();
            complain(&format!("cannot write the manual pages into {directory}: {error}; name a directory that exists"));
            Exit::Runtime
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "writes where the person who calls it says, in no agent")]
fn write_pages(directory: &Path, mut command: Command) -> io::Result<()> {
    command.build();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    for command in std::iter::once(&command).chain(commands) {
        let page = Man::new(command.clone()).source(concat!("mountwarden ", env!("CARGO_PKG_VERSION")));
        let mut roff = Vec::new();
        page.render(&mut roff)?;
        // clap_mangen's heading for the words below the flags.
        let roff = String::from_utf8_lossy(&roff).replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
        std::fs::write(directory.join(page.get_filename()), roff)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_shell_looks_into_a_mount_to_complete_its_path() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, Cli::command());
            assert!(script.contains("diagnose") && script.contains("nagios"), "{shell} does not know the command line");
            let registered: Vec<_> = script.lines().filter(|line| line.contains("complete -F")).collect();
            assert_eq!(registered.len(), if shell == Shell::Bash { 2 } else { 0 });
            assert!(
                registered.iter().all(|line| !line.contains("default")),
                "bash falls back to files: {registered:?}"
            );
            let paths = script.lines().find(|line| line.contains("Paths to check"));
            assert!(paths.is_none_or(|line| !line.contains("_files")), "{shell}: {paths:?}");
        }
    }
}
