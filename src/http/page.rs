//! The status page: plain HTML for people, without scripts and without anything fetched from elsewhere.
//!
//! Everything that is shown comes from mount tables, which tenants write: all of it is escaped.

mod html;

use std::fmt::Write as _;

use html::{Escaped, advice_html, age};

use crate::snapshot::{MountStatus, Snapshot};
use crate::verdict::{Severity, State};

const STYLE: &str = include_str!("page/style.css");

/// Mounts shown in full; the rest is counted, and listed by the JSON.
const MAX_CARDS: usize = 200;

/// Healthy mounts listed by name.
const MAX_ROWS: usize = 500;

/// A snapshot older than this gets a warning: the agent's loop makes one every few seconds.
const OLD_SECONDS: f64 = 30.0;

/// The page of a snapshot; `now` in seconds since the epoch.
#[must_use]
pub fn render(snapshot: &Snapshot, now: f64) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a String cannot fail, here and below.
    let _ = write_page(&mut page, snapshot, now);
    page
}

/// The page before the first snapshot.
#[must_use]
pub fn starting() -> String {
    let mut page = String::new();
    let _ = head(&mut page, "starting");
    page.push_str("<header><h1>mountwarden</h1></header><p>The agent is starting: no mount has been read yet.</p></main></html>\n");
    page
}

fn head(page: &mut String, title: &str) -> std::fmt::Result {
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta http-equiv=\"refresh\" content=\"5\">\n\
         <title>{} - mountwarden</title>\n<style>{STYLE}</style></head><body><main>\n",
        Escaped(title)
    )
}

fn write_page(page: &mut String, snapshot: &Snapshot, now: f64) -> std::fmt::Result {
    let dead = count(snapshot, Severity::Dead);
    let title = if dead > 0 { format!("{dead} dead on {}", snapshot.node) } else { snapshot.node.clone() };
    head(page, &title)?;
    writeln!(
        page,
        "<header><h1>{}</h1><p>mountwarden {} &middot; as of {} ago</p></header>",
        Escaped(&snapshot.node),
        Escaped(&snapshot.version),
        age(now - snapshot.generated)
    )?;
    counts(page, snapshot)?;
    notes(page, snapshot, now)?;
    cards(page, snapshot, now)?;
    healthy(page, snapshot, now)?;
    autofs(page, snapshot)?;
    footer(page, snapshot)
}

fn count(snapshot: &Snapshot, severity: Severity) -> usize {
    snapshot.mounts.iter().filter(|mount| mount.severity() == severity).count()
}

fn notes(page: &mut String, snapshot: &Snapshot, now: f64) -> std::fmt::Result {
    if now - snapshot.generated > OLD_SECONDS {
        page.push_str("<p class=\"note\">This page is old: the agent has made no new snapshot. Check its log and <code>/healthz</code>.</p>\n");
    }
    if !snapshot.ready {
        page.push_str("<p class=\"note\">The first pass over all mounts is still under way.</p>\n");
    }
    if snapshot.agent.workers_stuck > 0 {
        let words = "Probe workers that were killed but are held by the kernel until their mounts answer";
        writeln!(page, "<p class=\"note\">{words}: {}.</p>", snapshot.agent.workers_stuck)?;
    }
    Ok(())
}

fn counts(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    page.push_str("<ul class=\"counts\">");
    for (severity, words) in [
        (Severity::Dead, "dead"),
        (Severity::Degraded, "degraded"),
        (Severity::Unknown, "unknown"),
        (Severity::Healthy, "healthy"),
    ] {
        let number = count(snapshot, severity);
        let empty = if number == 0 { " none" } else { "" };
        let states = State::ALL.iter().filter(|state| state.severity() == severity && state.as_str() != words);
        let by_state: Vec<String> = states
            .filter_map(|state| {
                snapshot.summary.get(state.as_str()).filter(|n| **n > 0).map(|n| format!("{n} {state}"))
            })
            .collect();
        write!(
            page,
            "<li class=\"{words}{empty}\"><b>{number}</b> {words}<small>{}</small></li>",
            by_state.join(", ")
        )?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

/// What is not healthy: the dead first, then by how long.
fn cards(page: &mut String, snapshot: &Snapshot, now: f64) -> std::fmt::Result {
    let mut mounts: Vec<&MountStatus> = snapshot.mounts.iter().filter(|mount| mount.state != State::Healthy).collect();
    if mounts.is_empty() && !snapshot.mounts.is_empty() {
        page.push_str("<p>Every mount answers.</p>\n");
    }
    if snapshot.mounts.is_empty() && snapshot.ready {
        page.push_str("<p>This node has no network mounts.</p>\n");
    }
    mounts.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.since.total_cmp(&b.since)));
    for mount in mounts.iter().take(MAX_CARDS) {
        card(page, mount, now)?;
    }
    more(page, mounts.len(), MAX_CARDS)
}

/// Inherited verdicts come after the ones they are inherited from.
fn rank(mount: &MountStatus) -> (u8, bool) {
    let severity = match mount.severity() {
        Severity::Dead => 0,
        Severity::Degraded => 1,
        Severity::Unknown => 2,
        Severity::Healthy => 3,
    };
    (severity, mount.inherited)
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Healthy => "healthy",
        Severity::Degraded => "degraded",
        Severity::Dead => "dead",
        Severity::Unknown => "unknown",
    }
}

fn card(page: &mut String, mount: &MountStatus, now: f64) -> std::fmt::Result {
    write!(
        page,
        "<article class=\"{}\"><h2><span class=\"state\">{}</span> {}</h2><p class=\"meta\">",
        severity_word(mount.severity()),
        mount.state,
        Escaped(&mount.mountpoint)
    )?;
    if let Some(cause) = mount.cause {
        write!(page, "<b>{cause}</b> &middot; ")?;
    }
    write!(
        page,
        "for {} &middot; {} &middot; {}",
        age(now - mount.since),
        Escaped(&mount.source),
        Escaped(&mount.fstype)
    )?;
    if let Some(version) = &mount.origin.version {
        write!(page, " {}", Escaped(version))?;
    }
    if mount.inherited {
        page.push_str(" &middot; inherited");
    }
    writeln!(page, "</p><p>{}</p>", Escaped(&mount.evidence))?;
    if !mount.advice.is_empty() {
        writeln!(page, "<p class=\"advice\">{}</p>", advice_html(&mount.advice))?;
    }
    facts(page, mount, now)?;
    page.push_str("</article>\n");
    Ok(())
}

fn facts(page: &mut String, mount: &MountStatus, now: f64) -> std::fmt::Result {
    let mut facts = Vec::new();
    for step in &mount.steps {
        let error = step.error.as_deref().map(|error| format!(" {error}")).unwrap_or_default();
        facts.push(format!("{} {}{error}", step.step, html::seconds(step.seconds)));
    }
    if mount.blocked_seconds > 0.0 {
        facts.push(format!("blocked for {}", age(mount.blocked_seconds)));
    }
    match mount.last_success {
        Some(time) => facts.push(format!("last answered {} ago", age(now - time))),
        None => facts.push("never answered".to_owned()),
    }
    facts.extend(mount.findings.iter().map(|finding| finding.means().to_owned()));
    if mount.path_count > 1 {
        facts.push(format!("{} paths share it", mount.path_count));
    }
    writeln!(page, "<p class=\"facts\">{}</p>", Escaped(&facts.join(" \u{b7} ")))
}

fn healthy(page: &mut String, snapshot: &Snapshot, now: f64) -> std::fmt::Result {
    let mounts: Vec<&MountStatus> = snapshot.mounts.iter().filter(|mount| mount.state == State::Healthy).collect();
    if mounts.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Healthy</h2>\n<table><thead><tr><th>mount</th><th>source</th><th>probed</th><th>took</th></tr></thead><tbody>\n");
    for mount in mounts.iter().take(MAX_ROWS) {
        let probed = mount.last_probe.map_or_else(|| "never".to_owned(), |time| format!("{} ago", age(now - time)));
        let took: f64 = mount.steps.iter().map(|step| step.seconds).sum();
        let findings: Vec<&str> = mount.findings.iter().map(|finding| finding.means()).collect();
        writeln!(
            page,
            "<tr><td>{}<small>{}</small></td><td>{} <small>{}</small></td><td>{probed}</td><td>{}</td></tr>",
            Escaped(&mount.mountpoint),
            Escaped(&findings.join("; ")),
            Escaped(&mount.source),
            Escaped(&mount.fstype),
            html::seconds(took)
        )?;
    }
    page.push_str("</tbody></table>\n");
    more(page, mounts.len(), MAX_ROWS)
}

fn more(page: &mut String, total: usize, shown: usize) -> std::fmt::Result {
    match total.checked_sub(shown) {
        Some(rest) if rest > 0 => writeln!(page, "<p>and {rest} more: see <a href=\"/api/v1/mounts\">the JSON</a></p>"),
        _ => Ok(()),
    }
}

fn autofs(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    if snapshot.autofs.is_empty() {
        return Ok(());
    }
    let triggers: Vec<String> = snapshot
        .autofs
        .iter()
        .take(MAX_ROWS)
        .map(|a| format!("{} ({})", Escaped(&a.mountpoint), Escaped(&a.source)))
        .collect();
    writeln!(page, "<h2>autofs, never touched</h2><p>{}</p>", triggers.join(", "))
}

fn footer(page: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    let agent = &snapshot.agent;
    writeln!(
        page,
        "<footer>probed every {}, deadline {} &middot; workers {} idle, {} busy, {} stuck &middot; \
         <a href=\"/api/v1/mounts\">JSON</a></footer></main></body></html>",
        age(snapshot.interval_seconds),
        age(snapshot.timeout_seconds),
        agent.workers_idle,
        agent.workers_busy,
        agent.workers_stuck
    )
}

#[cfg(test)]
mod tests;
