//! Connections: how many, how long, and how they end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::routes::{self, Site};
use super::state::HttpState;

/// Connections open at a time per listener; fewer where the process may open few descriptors.
pub(super) const MAX_CONNECTIONS: u64 = 64;

/// A client has this long to send its request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection lives at most this long, so that a slow reader cannot pin a body: time for the headers and as long again
/// as Prometheus waits for a scrape by default (10 s). There is no keep-alive, so one limit covers everything.
pub(super) const LIFETIME: Duration = Duration::from_secs(15);

/// What open responses get when the agent ends; all of a shutdown stays below 300 ms.
const DRAIN: Duration = Duration::from_millis(200);

/// Pause after an accept(2) that failed for want of descriptors or memory: it fails again at once until somebody closes one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// hyper's smallest is 8 KiB; Prometheus sends about 300 bytes of headers.
const READ_BUFFER: usize = 16 * 1024;

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 42\r\nconnection: close\r\n\r\ntoo many connections; try again in a while";

/// What a listener serves.
pub(crate) trait Pages: Send + Sync + 'static {
    /// Answers from memory, at once.
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>>;

    /// A connection was refused because too many were open.
    fn count_refused(&self);
}

/// The agent's pages of one listener.
struct AgentPages {
    site: Site,
    state: Arc<HttpState>,
}

impl Pages for AgentPages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        routes::answer(self.site, &self.state, request)
    }

    fn count_refused(&self) {
        self.state.count_refused();
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown` says true or its sender is gone.
pub async fn serve_metrics(listener: TcpListener, state: Arc<HttpState>, shutdown: watch::Receiver<bool>) {
    serve(listener, Arc::new(AgentPages { site: Site::Metrics, state }), shutdown).await;
}

/// Serves the status page, its JSON and `/healthz` until `shutdown` says true or its sender is gone.
pub async fn serve_ui(listener: TcpListener, state: Arc<HttpState>, shutdown: watch::Receiver<bool>) {
    serve(listener, Arc::new(AgentPages { site: Site::Ui, state }), shutdown).await;
}

/// Serves pages until `shutdown` says true or its sender is gone.
pub(crate) async fn serve<P: Pages>(listener: TcpListener, pages: Arc<P>, mut shutdown: watch::Receiver<bool>) {
    let limit = connection_limit();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < limit => {
                    connections.spawn(connection(stream, Arc::clone(&pages), shutdown.clone()));
                }
                Ok((stream, _)) => refuse(&stream, &*pages),
                Err(error) => accept_failed(&error, &*pages).await,
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        connections.shutdown().await;
    }
}

/// A sixteenth of the descriptors that the process may open: probe workers need them more than clients do.
fn connection_limit() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from((descriptors / 16).clamp(4, MAX_CONNECTIONS)).unwrap_or(4)
}

/// Returns when the agent ends.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Says why, as far as the socket takes it without waiting, and closes.
fn refuse(stream: &TcpStream, pages: &impl Pages) {
    pages.count_refused();
    let _ = stream.try_write(BUSY);
}

async fn accept_failed(error: &io::Error, pages: &impl Pages) {
    // The others (ECONNABORTED, EPROTO ...) belong to one connection that never came to be: accept(2).
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        pages.count_refused();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection<P: Pages>(stream: TcpStream, pages: Arc<P>, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let answer = pages.answer(&request);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            // `nc -N` and others close their half once they have asked.
            .half_close(true)
            // Bodies are shared between scrapes: hand them to the socket, never copy them into a buffer.
            .writev(true)
            .max_buf_size(READ_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut lifetime = pin!(tokio::time::sleep(LIFETIME));
    // How a client leaves is nothing to log: a scanner could fill the log with it.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = lifetime.as_mut() => return,
        () = stopped(&mut shutdown) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = lifetime => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_its_own_length() {
        let text = std::str::from_utf8(BUSY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} bytes", body.len());
    }

    #[test]
    fn the_limit_leaves_descriptors_to_the_workers() {
        let limit = connection_limit();
        assert!((4..=64).contains(&limit), "{limit}");
    }
}
