//! `/metrics`, `/healthz`, `/readyz` and `/api/v1/decisions`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::board::Board;
use crate::http::routes::{JSON, METRICS_TEXT, not_found, respond, text};
use crate::http::serve::Pages;

/// Everything but the decisions, which name pods: `--listen`.
pub(super) struct Public(pub(super) Arc<Board>);

/// The decisions: `--listen-ui`.
pub(super) struct Private(pub(super) Arc<Board>);

impl Pages for Public {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (reads(request), request.uri().path()) {
            (false, _) => only_reading(),
            (true, "/metrics") => respond(StatusCode::OK, METRICS_TEXT, self.0.metrics().into()),
            (true, "/healthz") => healthz(&self.0),
            (true, "/readyz") if self.0.ready() => text(StatusCode::OK, "ready\n".to_owned()),
            (true, "/readyz") => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the nodes' reports are not read yet\n".to_owned())
            }
            _ => not_found("/metrics /healthz /readyz"),
        }
    }

    fn count_refused(&self) {
        self.0.count_refused();
    }
}

impl Pages for Private {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // A page of a browser can name this address whatever it likes, and would then read what names pods.
        let host = request.headers().get(hyper::header::HOST).map(|host| host.to_str().unwrap_or_default());
        if host.is_some_and(|host| !crate::http::host::allowed(host, "")) {
            return text(StatusCode::FORBIDDEN, "this name is not served: use an address, or localhost\n".to_owned());
        }
        match (reads(request), request.uri().path()) {
            (false, _) => only_reading(),
            (true, "/api/v1/decisions") => respond(StatusCode::OK, JSON, self.0.decisions().into()),
            (true, "/healthz") => healthz(&self.0),
            _ => not_found("/api/v1/decisions /healthz"),
        }
    }

    fn count_refused(&self) {
        self.0.count_refused();
    }
}

fn reads(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn only_reading() -> Response<Full<Bytes>> {
    text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n".to_owned())
}

fn healthz(board: &Board) -> Response<Full<Bytes>> {
    match board.alive() {
        Ok(age) => text(StatusCode::OK, format!("ok: the last round was {:.1} s ago\n", age.as_secs_f64())),
        Err(age) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no round for {:.1} s: the coordinator is stuck\n", age.as_secs_f64()),
        ),
    }
}
