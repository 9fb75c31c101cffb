//! Connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answers::Answer;
use super::faults::Way;
use super::{Asked, Shared, rights, routes, watching};

/// A piece of a body.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// The connection is cut here.
    Reset,
}

/// Where the pieces of a body go.
pub(super) type Pieces = mpsc::Sender<Piece>;

/// A body that comes in pieces.
struct Pieced(mpsc::Receiver<Piece>, Arc<OwnedFd>);

#[derive(Debug)]
struct CutHere;

impl std::fmt::Display for CutHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for CutHere {}

impl Body for Pieced {
    type Data = Bytes;
    type Error = CutHere;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutHere>>> {
        self.0.poll_recv(cx).map(|piece| match piece? {
            Piece::Bytes(bytes) => Some(Ok(Frame::data(bytes.into()))),
            Piece::Reset => {
                hard_close(&self.1);
                Some(Err(CutHere))
            }
        })
    }
}

/// The close that follows is a reset (RST).
fn hard_close(socket: &Arc<OwnedFd>) {
    let _ = setsockopt(&**socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

enum Command {
    Up(bool, std_mpsc::Sender<()>),
    End,
}

/// The server's thread.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(shared: Arc<Shared>) -> Listener {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (commands, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(listener, address, shared, receiver));
            runtime.shutdown_background();
        });
        Listener { address, commands, thread: Some(thread) }
    }

    pub(super) fn set_up(&self, up: bool) {
        let (done, is_done) = std_mpsc::channel();
        self.commands.send(Command::Up(up, done)).unwrap();
        is_done.recv().unwrap();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    listener: std::net::TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut listener = Some(TcpListener::from_std(listener).unwrap());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Up(up, done)) => {
                    listener = None;
                    if up {
                        listener = Some(TcpListener::bind(address).await.unwrap());
                    } else {
                        connections.shutdown().await;
                    }
                    let _ = done.send(());
                }
                Some(Command::End) | None => return,
            },
            Ok((stream, _)) = accept(listener.as_ref()) => {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    use std::os::fd::AsFd;
    let socket = Arc::new(stream.as_fd().try_clone_to_owned().unwrap());
    let service = service_fn(|request| {
        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
        async move { Ok::<_, Infallible>(handle(request, shared, socket).await) }
    });
    // What it fails with is what the test asked for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    let _ = nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&*socket), nix::sys::socket::Shutdown::Both);
}

async fn handle(request: Request<Incoming>, shared: Arc<Shared>, socket: Arc<OwnedFd>) -> Response<Pieced> {
    let asked = read(request).await;
    let way = shared.faults.lock().unwrap().hit(&asked);
    let way = way.or_else(|| rights::refuses(&shared, &asked).map(|answer| Way::Answer(answer, None)));
    let (pieces, receiver) = mpsc::channel(64);
    let body = Pieced(receiver, socket);
    if let Some(Way::Slow(time)) = &way {
        tokio::time::sleep(*time).await;
    }
    let noted = |status| {
        let asked = Asked { status, ..asked.clone() };
        shared.asked.lock().unwrap().push(asked);
    };
    match way {
        None | Some(Way::Slow(_)) if asked.is_watch() && watchable(&shared, &asked) => {
            noted(200);
            tokio::spawn(watching::serve(Arc::clone(&shared), asked, pieces));
            respond(&shared, 200, "application/json", None, body)
        }
        None | Some(Way::Slow(_)) => {
            let (code, document) = routes::answer(&shared, &asked);
            noted(code);
            document_of(&shared, (code, document), None, pieces, body)
        }
        Some(Way::Answer(answer, retry_after)) => {
            noted(answer.0);
            document_of(&shared, answer, retry_after, pieces, body)
        }
        Some(Way::Page(code, text)) => {
            noted(code);
            let _ = pieces.try_send(Piece::Bytes(text.as_bytes().to_vec()));
            respond(&shared, code, "text/html", None, body)
        }
        Some(Way::Cut) => {
            noted(200);
            let half = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceV"#;
            let _ = pieces.try_send(Piece::Bytes(half.to_vec()));
            tokio::spawn(async move {
                // The first half arrives before the reset throws away what is not sent yet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = pieces.send(Piece::Reset).await;
            });
            respond(&shared, 200, "application/json", None, body)
        }
        Some(Way::Mute) if asked.is_watch() => {
            noted(200);
            tokio::spawn(async move { pieces.closed().await });
            respond(&shared, 200, "application/json", None, body)
        }
        Some(Way::Silent | Way::Mute) => {
            noted(0);
            std::future::pending().await
        }
        Some(Way::Reset) => {
            noted(0);
            hard_close(&body.1);
            let _ =
                nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&*body.1), nix::sys::socket::Shutdown::Both);
            std::future::pending().await
        }
    }
}

fn watchable(shared: &Shared, asked: &Asked) -> bool {
    super::resources::place(&asked.path).is_some_and(|place| !place.resource.custom || shared.store().crds_installed)
}

async fn read(request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Asked {
        at: Instant::now(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        content_type,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        status: 0,
    }
}

fn document_of(
    shared: &Shared,
    (code, document): Answer,
    retry_after: Option<u64>,
    pieces: Pieces,
    body: Pieced,
) -> Response<Pieced> {
    let _ = pieces.try_send(Piece::Bytes(document.to_string().into_bytes()));
    respond(shared, code, "application/json", retry_after, body)
}

fn respond(shared: &Shared, code: u16, kind: &str, retry_after: Option<u64>, body: Pieced) -> Response<Pieced> {
    let date = httpdate(shared.now());
    let response = Response::builder().status(code).header("content-type", kind).header("date", date);
    let response = response.header("cache-control", "no-cache, private").header("audit-id", "fake");
    let response = match retry_after {
        Some(seconds) => response.header("retry-after", seconds.to_string()),
        None => response,
    };
    response.body(body).unwrap()
}

/// RFC 7231's date, without its weekday being right: nobody reads that.
fn httpdate(at: std::time::SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let month: usize = text[5..7].parse().unwrap();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    format!("Mon, {} {} {} {} GMT", &text[8..10], months[month - 1], &text[0..4], &text[11..19])
}
