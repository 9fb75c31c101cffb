//! The status page: for a person who port-forwards at night. Complete without scripts; nothing is fetched from elsewhere.
//!
//! Incidents first (one for each server and fault, the dead above the degraded, the oldest first), then the healthy mounts,
//! the last hour, and what the agent would do. Everything that is shown comes from mount tables, which tenants write: the
//! templates have no way around the escaper ([`html::Text`]).

mod filter;
pub(crate) mod html;
mod incident;
mod view;

use askama::Template;

use crate::snapshot::Snapshot;
pub use filter::Filter;
use view::View;

/// The style sheet, `/style.css`.
pub const STYLE: &str = include_str!("page/style.css");

/// What makes it handier, `/page.js`: renews the page in place, filters while one types, keys.
pub const SCRIPT: &str = include_str!("page/page.js");

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    view: View<'a>,
}

#[derive(Template)]
#[template(path = "starting.html")]
struct Starting;

/// The page of a snapshot; `now` in seconds since the epoch.
#[must_use]
pub fn render(snapshot: &Snapshot, filter: &Filter, now: f64) -> String {
    let page = Page { view: View::new(snapshot, filter, now) };
    // Writing into a String cannot fail, and nothing in the templates does.
    page.render().unwrap_or_else(|error| format!("the page cannot be made: {error}"))
}

/// The page before the first snapshot.
#[must_use]
pub fn starting() -> String {
    Starting.render().unwrap_or_default()
}

#[cfg(test)]
mod tests;
