//! `asks`: what a real server answers when it is asked without the mount, fault by fault, and what that proves. The table
//! that comes out is what the rules of `server::conclude` rest on; a wrong cause fails it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mountwarden::mounts::View;
use mountwarden::mounts::table::Table;
use mountwarden::probe::steps;
use mountwarden::server::NfsVersion;
use mountwarden::server::conclude::{Baseline, Seen, Symptom, cause, conclude};
use mountwarden::server::dns::Resolver;
use mountwarden::server::examine::{Check, Examination, Question, examine};
use mountwarden::server::nfs4::Grace;
use mountwarden::verdict::Cause;
use rustix::fs::{CWD, Mode, OFlags};

use crate::interrupt;
use crate::setups::{Setup, chosen};
use crate::uml::Host;

/// Boot, mount, and a few faults with their repairs.
const LIMIT: Duration = Duration::from_secs(180);
/// For each question; long enough for a guest on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1500);
/// What the root's attributes were while all was well; within a guest.
const BASELINE: &str = "/run/baseline.json";

/// The faults of each guest. What is expected stands behind each: the symptom that the mount has, the cause that must be
/// proven (`-`: none), and the one that must be proven before anything is mounted.
#[rustfmt::skip]
const SETUPS: &[Setup<&str>] = &[
    Setup { name: "v3", environment: "VERS=3", cases: &[
        "none:hung:client_stuck:-",
        "refused:hung:server_refused:server_refused",
        "drop:hung:server_unreachable:server_unreachable",
        "mountd_stopped:hung:server_unresponsive:server_unresponsive",
        "unexport:refused:export_gone:export_gone",
        "swap_dir:refused:handle_invalid:-",
    ] },
    Setup { name: "v3-beside", environment: "VERS=3 SUBPATH=/data LAYOUT=beside", cases: &[
        "unexport_beside:refused:export_gone:export_gone",
    ] },
    Setup { name: "v3-sub", environment: "VERS=3 SUBPATH=/d", cases: &[
        "rmsub:refused:handle_invalid:export_gone",
        "resub:refused:handle_invalid:-",
    ] },
    // No handles on NFSv4.0: less is proven.
    Setup { name: "v4.0", environment: "VERS=4.0", cases: &[
        "none:hung:-:-",
        "refused:hung:server_refused:server_refused",
        "mountd_stopped:hung:server_unresponsive:server_unresponsive",
        "unexport:refused:export_gone:export_gone",
    ] },
    Setup { name: "v4.1", environment: "VERS=4.1", cases: &[
        "none:hung:client_stuck:-",
        "refused:hung:server_refused:server_refused",
        "process_stopped:hung:server_unresponsive:server_unresponsive",
        "drop:hung:server_unreachable:server_unreachable",
        "mountd_stopped:hung:server_unresponsive:server_unresponsive",
        "unexport:refused:export_gone:export_gone",
        "swap_dir:refused:handle_invalid:-",
    ] },
    Setup { name: "v4.1-grace", environment: "VERS=4.1 BACKING=tmpfs LEASE=20", cases: &[
        "restart:hung:server_recovering:-",
    ] },
    Setup { name: "v4.1-beside", environment: "VERS=4.1 SUBPATH=/data LAYOUT=beside", cases: &[
        "unexport_beside:refused:export_gone:-",
    ] },
    Setup { name: "v4.1-sub", environment: "VERS=4.1 SUBPATH=/d", cases: &[
        "rmsub:refused:handle_invalid:export_gone",
        "resub:refused:handle_invalid:-",
    ] },
    // Without fsid=0: the server makes the way from its root to the exports up.
    Setup { name: "v4.2-pseudo", environment: "VERS=4.2 SUBPATH=/exp PSEUDO=yes", cases: &[
        "none:hung:client_stuck:-",
        "unexport:refused:export_gone:export_gone",
    ] },
    Setup { name: "v4.2-pseudo-sub", environment: "VERS=4.2 SUBPATH=/exp/d PSEUDO=yes", cases: &[
        "rmsub:refused:handle_invalid:export_gone",
        "resub:refused:handle_invalid:-",
        "unexport:refused:export_gone:export_gone",
    ] },
    // Without the right to a privileged port: refused where the kernel is not, and that must prove nothing.
    Setup { name: "v3-ordinary", environment: "VERS=3 ORDINARY=yes", cases: &[
        "none:refused:-:-",
    ] },
    Setup { name: "v4.1-ordinary", environment: "VERS=4.1 ORDINARY=yes", cases: &[
        "none:refused:-:-",
    ] },
    // An empty filesystem behind the same handle: this server gives nothing by which it could be told.
    Setup { name: "v4.1-tmpfs", environment: "VERS=4.1 BACKING=tmpfs", cases: &[
        "swap_tmpfs:emptied:-:-",
    ] },
];

/// On the host: boots the guests one after the other and prints the table; whether every cause was the right one.
pub(crate) fn run(agent: &Path, only: Option<&regex::Regex>) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let mut passed = true;
    println!("{HEAD}");
    for setup in chosen(SETUPS, only) {
        let out = std::env::temp_dir().join(format!("mwlab-asks-{}-{}", std::process::id(), setup.name));
        let log = setup.run(&host, "guest/asks.sh", &out, LIMIT, ToString::to_string);
        let rows = std::fs::read_to_string(out.join("rows")).unwrap_or_default();
        std::fs::remove_dir_all(&out)?;
        let log = log?;
        for row in rows.lines() {
            println!("| {} {row}", setup.name);
        }
        if rows.lines().count() != setup.cases.len() {
            bail!("the guest {} left too few rows: {log}", setup.name);
        }
        if rows.contains("WRONG") {
            passed = false;
            eprintln!("{log}");
        }
    }
    Ok(passed)
}

const HEAD: &str = "| mount | fault | TCP | NULL v3 / v4 | own handle | path | grace | EXPORT | MNT | proven | candidates | before mounting |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|";

/// In the guest: asks about the mount. Without a fault it remembers what it heard; with one it prints a row.
pub(crate) fn ask(mountpoint: &Path, fault: Option<&str>) -> Result<()> {
    let (question, before) = questions(mountpoint)?;
    let examination = answers(&question)?;
    let Some(fault) = fault else {
        return Ok(std::fs::write(BASELINE, serde_json::to_vec(&Baseline::of(&examination))?)?);
    };
    let baseline: Option<Baseline> = serde_json::from_slice(&std::fs::read(BASELINE)?)?;
    let parts: Vec<&str> = fault.split(':').collect();
    let [name, symptom, expected, expected_before] = parts.as_slice() else { bail!("{fault} is no fault") };
    let symptom: Symptom = serde_json::from_value((*symptom).into())?;
    let seen = Seen { root_hangs: true, baseline, answered_while_hung: 1, ..Seen::new(symptom) };
    let conclusion = conclude(&examination, &seen);
    let before = answers(&before)?;
    let proven = held_against(conclusion.cause, expected);
    let proven_before = held_against(cause(&before, &Seen::new(Symptom::NotMounted)), expected_before);
    let candidates: Vec<&str> = conclusion.candidates.iter().map(|cause| cause.as_str()).collect();
    let cells = cells(&examination).join(" | ");
    println!("| {name} | {cells} | {proven} | {} | {proven_before} |", candidates.join(" "));
    eprintln!("{name}: {}", serde_json::to_string(&(&examination, baseline, conclusion, before))?);
    Ok(())
}

fn held_against(cause: Option<Cause>, expected: &str) -> String {
    let proven = cause.map_or("-", Cause::as_str);
    if proven == expected { proven.to_owned() } else { format!("WRONG: {proven}, not {expected}") }
}

/// What to ask about the mount, and about its export as if nothing were mounted.
fn questions(mountpoint: &Path) -> Result<(Question, Question)> {
    let table = Table::read(Path::new("/proc"))?;
    let mount = table.mounts.iter().rfind(|mount| mount.mountpoint == mountpoint && mount.view == View::Own);
    let mount = mount.with_context(|| format!("{} is not mounted", mountpoint.display()))?;
    // Both calls never block on NFS.
    let root = rustix::fs::openat(CWD, mountpoint, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let handle = steps::handle(std::os::fd::AsFd::as_fd(&root)).unwrap_or_default();
    let mounted = Question::of(mount, &handle, None).context("this mount cannot be asked about")?;
    let server = mount.origin.server.as_deref().unwrap_or_default();
    let export = mount.origin.export.as_deref().unwrap_or_default();
    let version = NfsVersion::from_option(mount.origin.version.as_deref().unwrap_or("4"));
    let before = Question::unmounted(server, export, version.context("a mount without a version")?);
    Ok((mounted, before))
}

fn answers(question: &Question) -> Result<Examination> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(examine(question, &Resolver::default(), Path::new("/proc"), DEADLINE)))
}

fn cells(e: &Examination) -> Vec<String> {
    let nulls = BTreeMap::from([("v3", &e.v3), ("v4", &e.v4)]);
    let nulls: Vec<String> = nulls.values().map(|null| words(null.as_ref(), |()| "ok".to_owned())).collect();
    let privileged = if e.privileged == Some(true) { "" } else { " (ordinary port)" };
    vec![
        words(e.connect.as_ref(), |()| format!("ok{privileged}")),
        nulls.join(" / "),
        words(e.root.as_ref(), |root| {
            let client = e.fileid.unwrap_or_default();
            let created = root.created.map_or("unknown".to_owned(), |created| created.seconds.to_string());
            format!(
                "fileid {} (client {client}), fsid {:x}.{:x}, made {created}",
                root.fileid, root.fsid.0, root.fsid.1
            )
        }),
        words(e.path.as_ref(), |walk| match walk.stopped {
            Some(status) => format!("{} of {}, then {status}", walk.met.len() - 1, walk.components),
            None => format!("ok, {} below the root", walk.components),
        }),
        words(e.grace.as_ref(), |grace| match grace {
            Grace::In => "yes".to_owned(),
            Grace::NotSeen(status) => format!("not seen ({})", status.name().unwrap_or("?")),
        }),
        words(e.exports.as_ref(), |exports| {
            format!("{}, {}", exports.count, exports.holder.as_deref().unwrap_or("path missing"))
        }),
        words(e.may_mount.as_ref(), |()| "ok".to_owned()),
    ]
}

fn words<T>(check: Option<&Check<T>>, ok: impl Fn(&T) -> String) -> String {
    check.map_or("".to_owned(), |check| match &check.answer {
        Ok(answer) => ok(answer),
        Err(failure) => failure.to_string(),
    })
}
