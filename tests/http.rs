//! The listeners as clients meet them: raw bytes over loopback, well behaved and not.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mountwarden::http::{HttpState, serve_metrics, serve_ui};
use mountwarden::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a loaded machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

fn snapshot() -> Arc<Snapshot> {
    Arc::new(serde_json::from_str(include_str!("fixtures/golden/snapshot.json")).expect("fixture"))
}

/// Both listeners on free ports, in the runtime of the test.
struct Served {
    state: Arc<HttpState>,
    metrics: SocketAddr,
    ui: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Served {
    async fn start() -> Served {
        let state = HttpState::new().expect("thread");
        let (stop, shutdown) = watch::channel(false);
        let (one, metrics) = bound().await;
        let (two, ui) = bound().await;
        let tasks = vec![
            tokio::spawn(serve_metrics(one, Arc::clone(&state), shutdown.clone())),
            tokio::spawn(serve_ui(two, Arc::clone(&state), shutdown)),
        ];
        Served { state, metrics, ui, stop, tasks }
    }

    async fn with_snapshot() -> Served {
        let served = Served::start().await;
        served.publish(snapshot()).await;
        served
    }

    async fn publish(&self, snapshot: Arc<Snapshot>) {
        let generated = format!("mountwarden_snapshot_timestamp_seconds {}\n", snapshot.generated);
        self.state.publish(snapshot);
        eventually(async || get(self.metrics, "/metrics").await.body.contains(&generated)).await;
    }

    /// Ends both listeners and says how long that took.
    async fn stop(self) -> Duration {
        let begin = Instant::now();
        self.stop.send(true).expect("listeners run");
        for task in self.tasks {
            task.await.expect("no panic");
        }
        begin.elapsed()
    }
}

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// Waits for a condition, not for a time.
async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "the condition never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes as they are, reads to the end.
async fn raw(address: SocketAddr, request: &str) -> String {
    patiently(async {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut bytes = Vec::new();
        // A server may reset a connection whose request it did not read to the end: what came before still counts.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).expect("text")
    })
    .await
}

async fn ask(address: SocketAddr, request: &str) -> Reply {
    let text = raw(address, request).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).expect("status").parse().expect("a number");
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

#[tokio::test]
async fn a_scrape_gets_the_text_format_with_its_length() {
    let served = Served::with_snapshot().await;
    let reply = get(served.metrics, "/metrics?x=1").await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    assert!(reply.head.contains(&format!("content-length: {}", reply.body.len())));
    assert!(
        reply.body.contains("mountwarden_mount_up{mountpoint=\"/mnt/gone\",")
            && reply.body.contains("process_open_fds ")
    );
    assert!(reply.body.ends_with('\n'));
}

#[tokio::test]
async fn before_the_first_snapshot_everything_says_not_yet_and_the_loop_is_alive() {
    let served = Served::start().await;
    for (address, path) in
        [(served.metrics, "/metrics"), (served.metrics, "/readyz"), (served.ui, "/"), (served.ui, "/api/v1/mounts")]
    {
        let reply = get(address, path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(!reply.body.is_empty(), "{path} gives no reason");
    }
    for address in [served.metrics, served.ui] {
        assert_eq!(get(address, "/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn ready_follows_the_first_pass() {
    let served = Served::start().await;
    let mut first = (*snapshot()).clone();
    first.ready = false;
    first.generated -= 1.0;
    served.publish(Arc::new(first)).await;
    assert_eq!(get(served.metrics, "/readyz").await.status, 503);
    served.publish(snapshot()).await;
    assert_eq!(get(served.metrics, "/readyz").await.status, 200);
    assert!(served.state.ready());
}

#[tokio::test]
async fn of_many_snapshots_the_newest_is_shown() {
    let served = Served::start().await;
    let mut newest = snapshot();
    for second in 1..200_u32 {
        let mut next = (*newest).clone();
        next.generated = 1_790_000_000.0 + f64::from(second);
        newest = Arc::new(next);
        served.state.publish(Arc::clone(&newest));
    }
    let line = format!("mountwarden_snapshot_timestamp_seconds {}\n", newest.generated);
    eventually(async || get(served.metrics, "/metrics").await.body.contains(&line)).await;
}

#[tokio::test]
async fn the_json_is_the_snapshot() {
    let served = Served::with_snapshot().await;
    let reply = get(served.ui, "/api/v1/mounts").await;
    assert!(reply.head.contains("content-type: application/json"));
    assert_eq!(serde_json::from_str::<Snapshot>(&reply.body).expect("the document"), *snapshot());
}

#[tokio::test]
async fn the_page_is_locked_down() {
    let served = Served::with_snapshot().await;
    let reply = get(served.ui, "/").await;
    assert_eq!(reply.status, 200);
    for header in [
        "x-content-type-options: nosniff",
        "default-src 'none'",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(reply.head.contains(header), "{header} is missing in {}", reply.head);
    }
    assert!(reply.body.starts_with("<!doctype html>") && reply.body.contains("/mnt/gone"));
    assert!(!reply.head.contains("unsafe"), "nothing inline is allowed: {}", reply.head);
    for (path, kind) in [("/style.css", "text/css"), ("/page.js", "text/javascript")] {
        let reply = get(served.ui, path).await;
        assert_eq!(reply.status, 200);
        assert!(reply.head.contains(&format!("content-type: {kind}")) && reply.body.len() > 1000, "{path}");
        assert_eq!(get(served.metrics, path).await.status, 404);
    }
}

#[tokio::test]
async fn the_page_is_filtered_by_its_query() {
    let served = Served::with_snapshot().await;
    let reply = get(served.ui, "/?state=stale&q=shop%2Fweb-0").await;
    assert!(reply.status == 200 && reply.body.contains("handle_invalid") && !reply.body.contains("/mnt/data"));
}

#[tokio::test]
async fn the_page_is_not_served_under_a_foreign_name() {
    let served = Served::with_snapshot().await;
    for host in ["evil.example", "127.0.0.1.evil.example:12050"] {
        let reply = ask(served.ui, &format!("GET /api/v1/mounts HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 403, "{host}");
    }
    let both = "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(served.ui, both).await.status, 403);
    for host in ["localhost:12050", "node-7", "[::1]"] {
        let reply = ask(served.ui, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

#[tokio::test]
async fn metrics_and_pages_do_not_mix() {
    let served = Served::with_snapshot().await;
    for (address, path, listed) in [
        (served.metrics, "/", "/metrics"),
        (served.metrics, "/api/v1/mounts", "/readyz"),
        (served.ui, "/metrics", "/api/v1/mounts"),
    ] {
        let reply = get(address, path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.body.contains(listed), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn head_says_the_length_and_sends_no_body() {
    let served = Served::with_snapshot().await;
    let reply = ask(served.ui, "HEAD /api/v1/mounts HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let length = get(served.ui, "/api/v1/mounts").await.body.len();
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert!(reply.head.contains(&format!("content-length: {length}")), "{}", reply.head);
}

#[tokio::test]
async fn other_methods_are_refused_and_their_bodies_ignored() {
    let served = Served::with_snapshot().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhello");
        let reply = ask(served.metrics, &request).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("allow: get, head"));
    }
    assert_eq!(get(served.metrics, "/metrics").await.status, 200);
}

#[tokio::test]
async fn a_get_with_a_body_is_answered_all_the_same() {
    let served = Served::with_snapshot().await;
    let reply = ask(served.metrics, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let served = Served::with_snapshot().await;
    for garbage in [
        "\u{16}\u{3}\u{1}\u{2}nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\n\r\n\u{0}\u{0}\r\n\r\n",
    ] {
        let text = raw(served.metrics, garbage).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{garbage:?} got {text:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let text = raw(served.metrics, &long).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{:?}", text.get(..80));
    assert_eq!(get(served.metrics, "/metrics").await.status, 200);
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_its_answer() {
    let served = Served::with_snapshot().await;
    let mut stream = TcpStream::connect(served.metrics).await.expect("connect");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("send");
    stream.shutdown().await.expect("half close");
    let mut text = String::new();
    patiently(stream.read_to_string(&mut text)).await.expect("read");
    assert!(text.contains("mountwarden_build_info"), "{text:?}");
}

#[tokio::test]
async fn half_a_request_is_dropped_after_the_header_timeout() {
    let served = Served::with_snapshot().await;
    let mut stream = TcpStream::connect(served.metrics).await.expect("connect");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.expect("send");
    let begin = Instant::now();
    let mut rest = Vec::new();
    let _ = patiently(stream.read_to_end(&mut rest)).await;
    assert!(begin.elapsed() >= Duration::from_secs(4), "dropped too early: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(12), "dropped too late: {:?}", begin.elapsed());
}

/// A snapshot whose exposition no socket buffer holds.
fn large() -> Arc<Snapshot> {
    let mut snapshot = (*snapshot()).clone();
    let pattern = snapshot.mounts[1].clone();
    snapshot.mounts = (0..2000)
        .map(|index| {
            let mut mount = pattern.clone();
            mount.mountpoint = format!("/mnt/{}/{index}", "long".repeat(200));
            mount
        })
        .collect();
    snapshot.generated += 1.0;
    Arc::new(snapshot)
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off_and_delays_nobody() {
    let served = Served::start().await;
    served.publish(large()).await;
    let mut slow = TcpStream::connect(served.metrics).await.expect("connect");
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("send");
    slow.readable().await.expect("the response begins");
    let begin = Instant::now();
    assert_eq!(get(served.metrics, "/healthz").await.status, 200);
    assert!(begin.elapsed() < Duration::from_secs(2), "another client waited {:?}", begin.elapsed());
    // It does not read; the server must end the connection by itself. Writing shows that without reading.
    eventually(async || slow.write_all(b"x").await.is_err()).await;
}

#[tokio::test]
async fn beyond_the_cap_connections_are_refused_at_once_and_counted() {
    let served = Served::with_snapshot().await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..80 {
        let mut stream = TcpStream::connect(served.metrics).await.expect("connect");
        // A connection that is kept says nothing until it is asked; a refused one ends.
        let mut byte = [0; 1];
        match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await {
            Err(_) => held.push(stream),
            Ok(_) => refused += 1,
        }
    }
    assert!(held.len() <= 64 && held.len() >= 4, "{} were kept", held.len());
    assert_eq!(served.state.refused_total(), refused);
    assert_eq!(get(served.ui, "/healthz").await.status, 200, "the other listener has a cap of its own");
    let text = raw(served.metrics, "").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text:?}");
    drop(held);
    eventually(async || {
        raw(served.metrics, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn shutdown_takes_no_longer_than_its_limit_with_clients_that_hold_on() {
    let served = Served::start().await;
    served.publish(large()).await;
    let (metrics, ui) = (served.metrics, served.ui);
    let mut clients = Vec::new();
    for request in ["", "GET /metrics HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        for address in [metrics, ui] {
            let mut stream = TcpStream::connect(address).await.expect("connect");
            stream.write_all(request.as_bytes()).await.expect("send");
            clients.push(stream);
        }
    }
    get(metrics, "/healthz").await;
    let took = served.stop().await;
    assert!(took < Duration::from_millis(300), "shutdown took {took:?}");
    assert!(TcpStream::connect(metrics).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn shutdown_without_clients_is_immediate() {
    let served = Served::with_snapshot().await;
    let took = served.stop().await;
    assert!(took < Duration::from_millis(200), "shutdown took {took:?}");
}
