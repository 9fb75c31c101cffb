//! What `--help` teaches, and what a mistyped command line is answered with.

use std::ffi::OsString;

use clap::error::ErrorKind;

use super::Exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  mountwarden check                     all network mounts of this host, as a table
  mountwarden check /mnt/data --json    the mount that holds /mnt/data, for programs
  mountwarden diagnose srv:/data        why a mount fails (\"exit status 32\"), step by step
  mountwarden run                       the agent, with /metrics on port 12049
  mountwarden status                    what the running agent knows

--help says what each state and exit code means.";

pub(super) const LONG: &str = "\
Examples:
  mountwarden check                          all network mounts of this host, as a table
  mountwarden check /mnt/data --json         the mount that holds /mnt/data, for programs
  mountwarden check --nagios --require       one line for a monitoring system; no mounts is not good
  mountwarden diagnose /mnt/data             what is the matter with one mount, and what to do
  mountwarden diagnose srv:/data             why an export cannot be mounted (\"exit status 32\")
  mountwarden run --interval 30s             the agent, with /metrics on port 12049
  mountwarden run --config /etc/mountwarden.yaml
  mountwarden status                         what the running agent knows
  mountwarden status --plan                  what would be done about pods on dead mounts
  kubectl exec ds/mountwarden -- mountwarden status

States:
  healthy    every probe step answered in time
  slow       answers, but most recent probes took longer than the slow threshold
  hung       does not answer: the server is silent or down, or the client is stuck
  stale      the server answers, but the mount's root is gone or no longer exported
  lost       what users expect under the path is no longer there
  readonly   wants to write, cannot
  denied     permission refused
  full       no space, inodes or quota left
  corrupt    what was written reads back differently
  error      another error, which is named
  unknown    not probed yet, or could not be probed, and why

Exit codes of check, diagnose and status (as a Nagios plugin; the first that applies):
  2   dead: a mount is hung, stale, lost, corrupt or in error
  1   degraded: a mount is slow, readonly, denied or full
  3   could not tell: unknown, a PATH that is no monitored mount, no agent, usage or config error
  0   all healthy, or no network mounts (3 with --require)

Exit codes of run, coordinate and cleanup:
  0   ended by SIGTERM or SIGINT; all is removed
  1   could not run, such as a port in use; something could not be removed
  64  the command line cannot be understood
  78  the configuration is not valid

Every flag has an environment twin: --log-level is MOUNTWARDEN_LOG_LEVEL.";

pub(super) const RUN: &str = "\
SIGHUP reads the configuration again and keeps the old one if the new is bad.
SIGTERM ends the agent within a second.
Exits 0 on SIGTERM and SIGINT, 1 when it cannot run, 64 usage, 78 configuration.";

pub(super) const COORDINATE: &str = "\
Touches no mount. Of several coordinators one leads, by a Lease. With remedy.mode observe, the
default, it evicts nobody. /metrics, /healthz and /readyz are on --listen, /api/v1/decisions is on
--listen-ui. See docs/remedy.md. The file may be the one of the agents: of it the coordinator uses
remedy and unstick, and what has a flag here.
Exits 0 on SIGTERM and SIGINT, 1 when it cannot run, 64 usage, 78 configuration.";

pub(super) const CHECK: &str = "\
Exits 0 all healthy, 1 degraded, 2 dead, 3 could not tell.
PATH is taken by name: symbolic links are not followed, because that would touch the mount.

Examples:
  mountwarden check
  mountwarden check /mnt/data --json
  mountwarden check --nagios --require --exclude-mount '/mnt/scratch*'";

pub(super) const DIAGNOSE: &str = "\
What is asked depends on what is named:
  PATH             its mount: table, options, probe in a worker, server, who waits, who uses it
  SERVER:/EXPORT   nothing has to be mounted: name, connection, NFS service, path, a trial mount
  fs-...[:/DIR]    the same of an EFS file system, by its region (--region)
--write writes one small file to .mountwarden/ in the root of a mounted PATH, reads it back, and
takes it away again.
The trial mount takes root; it has no path, nobody sees it, and it is gone when the program ends.
Each step has the deadline --timeout, and nothing that hangs keeps it from the next one.

Exits 0 well, 1 degraded, 2 dead or cannot be mounted, 3 could not tell.

Examples:
  mountwarden diagnose /var/lib/kubelet/pods/UID/volumes/kubernetes.io~nfs/data
  mountwarden diagnose --write='uid=1000 gid=2000' /mnt/data
  mountwarden diagnose 10.0.0.5:/srv/data -o vers=4.1,noresvport
  mountwarden diagnose '[fd00::5]:/data' --no-mount --json
  mountwarden diagnose fs-0123456789abcdef0:/app --region eu-west-1";

pub(super) const STATUS: &str = "\
Exits 0 all healthy, 1 degraded, 2 dead, 3 could not tell (no agent answers).

Examples:
  mountwarden status
  mountwarden status --address 192.0.2.7:12050 --json
  kubectl exec ds/mountwarden -- mountwarden status";

pub(super) const CLEANUP: &str = "\
For after the DaemonSet is gone: agents that still run write both again.
Exits 0 when all is removed, 1 when something could not be, 64 usage, 78 configuration.

Examples:
  mountwarden cleanup --kubeconfig ~/.kube/config --dry-run
  mountwarden cleanup --kubeconfig ~/.kube/config";

pub(super) const COMPLETIONS: &str = "\
Paths of mounts are not completed: your shell would have to look into them, and hang in a dead one.

Examples:
  mountwarden completions bash > /usr/share/bash-completion/completions/mountwarden
  mountwarden completions zsh > /usr/local/share/zsh/site-functions/_mountwarden
  mountwarden completions fish > /usr/share/fish/vendor_completions.d/mountwarden.fish";

/// Prints what clap has to say: help and version on standard output, complaints on standard error.
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    // Nobody reads it: nothing to be done about it, and no reason for another exit code.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Healthy,
        _ if is_plugin(arguments) => Exit::Unknown,
        _ => Exit::Usage,
    }
}

/// Whether the command is one whose exit codes are those of a Nagios plugin: 64 would mean nothing there.
fn is_plugin(arguments: &[OsString]) -> bool {
    let command = arguments.iter().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    command.is_some_and(|command| command == "check" || command == "diagnose" || command == "status")
}
