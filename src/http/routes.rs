//! Paths in, responses out.

use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::state::HttpState;
use super::{host, page};

/// Which of the two listeners a connection came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    Metrics,
    Ui,
}

const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's style, script and form are this listener's own, and nothing that stands in a page is ever run.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers a request; its body, if any, is never read.
pub(super) fn answer<B>(site: Site, state: &HttpState, request: &Request<B>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n".to_owned());
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    if site == Site::Ui && !host_allowed(state, request) {
        let words = "this name is not served: use the node's address, localhost or the node's name\n";
        return text(StatusCode::FORBIDDEN, words.to_owned());
    }
    match (site, request.uri().path()) {
        (Site::Metrics, "/metrics") => metrics(state),
        (Site::Metrics, "/readyz") => readyz(state),
        (Site::Ui, "/") => status_page(state, request.uri().query()),
        (Site::Ui, "/style.css") => respond(StatusCode::OK, CSS, page::STYLE.into()),
        (Site::Ui, "/page.js") => respond(StatusCode::OK, SCRIPT, page::SCRIPT.into()),
        (Site::Ui, "/api/v1/mounts") => mounts(state),
        (_, "/healthz") => healthz(state),
        (Site::Metrics, _) => not_found("/metrics /healthz /readyz"),
        (Site::Ui, _) => not_found("/ /api/v1/mounts /healthz"),
    }
}

fn host_allowed<B>(state: &HttpState, request: &Request<B>) -> bool {
    let rendered = state.rendered();
    let node = rendered.as_ref().map_or("", |rendered| rendered.snapshot.node.as_str());
    let line = request.uri().authority().map(|authority| authority.as_str());
    // HTTP/1.0 knows no Host; no browser speaks it.
    let named = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .all(|value| value.to_str().is_ok_and(|v| host::allowed(v, node)));
    named && line.is_none_or(|line| host::allowed(line, node))
}

fn metrics(state: &HttpState) -> Answer {
    match state.rendered() {
        Some(rendered) => respond(StatusCode::OK, METRICS_TEXT, rendered.metrics.clone()),
        None => not_yet(),
    }
}

fn mounts(state: &HttpState) -> Answer {
    match state.rendered() {
        Some(rendered) => match serde_json::to_vec(&*rendered.snapshot) {
            Ok(mut document) => {
                document.push(b'\n');
                respond(StatusCode::OK, JSON, document.into())
            }
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("the snapshot cannot be written as JSON: {error}\n"))
            }
        },
        None => not_yet(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the page says how long ago something was, from wall-clock times")]
fn status_page(state: &HttpState, query: Option<&str>) -> Answer {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    match state.rendered() {
        Some(rendered) => {
            let filter = page::Filter::of_query(query);
            respond(StatusCode::OK, HTML, page::render(&rendered.snapshot, &filter, now).into())
        }
        None => respond(StatusCode::SERVICE_UNAVAILABLE, HTML, page::starting().into()),
    }
}

fn healthz(state: &HttpState) -> Answer {
    match state.alive() {
        Ok(age) => text(StatusCode::OK, format!("ok: the loop's last beat was {:.1} s ago\n", age.as_secs_f64())),
        Err(age) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the agent's loop has not beaten for {:.1} s: it is starved or stuck\n", age.as_secs_f64()),
        ),
    }
}

fn readyz(state: &HttpState) -> Answer {
    if state.ready() {
        text(StatusCode::OK, "ready: every mount has been probed once\n".to_owned())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the first pass over all mounts is not done\n".to_owned())
    }
}

fn not_yet() -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, "no snapshot yet: the agent is starting, ask again in a second\n".to_owned())
}

pub(crate) fn not_found(endpoints: &str) -> Answer {
    text(StatusCode::NOT_FOUND, format!("not found; endpoints here: {endpoints}\n"))
}

pub(crate) fn text(status: StatusCode, words: String) -> Answer {
    respond(status, TEXT, words.into())
}

pub(crate) fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}
