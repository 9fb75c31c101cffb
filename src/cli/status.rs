//! `status`: asks the running agent.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::check::Form;
use super::settings::{Choice, Chosen};
use super::{Exit, run};
use crate::config::Config;
use crate::snapshot::{SCHEMA, Snapshot};

/// The whole exchange; the agent answers from memory, in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Largest document read: 10,000 mounts need about 20 MiB.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Why the agent did not tell.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error("listen_ui is off in this configuration, so the agent serves no status; name its address with --address")]
    Off,
    #[error(
        "no agent answers at {address} ({reason}). Is it running (systemctl status mountwarden, or kubectl get pods)? \
         It answers there on --listen-ui; name another address with --address. `mountwarden check` needs no agent"
    )]
    Connect { address: String, reason: io::Error },
    #[error("{address} is no address ({reason}); write 127.0.0.1:12050, or the address of --listen-ui on another host")]
    NoAddress { address: String, reason: io::Error },
    #[error(
        "{address} did not answer within {} seconds. If the agent runs there, look at its log; `mountwarden check` needs no agent",
        TIMEOUT.as_secs()
    )]
    Timeout { address: String },
    #[error("{address} broke off the answer: {reason}")]
    Broken { address: String, reason: String },
    #[error("{address} answers {status}: is it the address of --listen-ui (12050), not of --listen (12049)?")]
    Refused { address: String, status: StatusCode },
    #[error("{address} answers something else than {SCHEMA} ({reason}): is it a mountwarden agent of this version?")]
    Foreign { address: String, reason: String },
}

/// The command line of `status`.
#[derive(Args)]
pub(super) struct StatusArgs {
    #[arg(long, help = "Where its status page is [default: as --listen-ui]\n[env: MOUNTWARDEN_ADDRESS]")]
    #[arg(value_name = "ADDRESS", env = "MOUNTWARDEN_ADDRESS", hide_env = true)]
    address: Option<String>,
    /// What would be done about pods on dead mounts, or which guard says no.
    #[arg(long, conflicts_with = "nagios")]
    plan: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    settings: Chosen<Place>,
}

/// What says where the agent of this host listens.
enum Place {}

impl Choice for Place {
    const NAMES: &'static [&'static str] = &["listen_ui"];
}

/// Asks, and prints like `check`.
pub(super) fn status(arguments: &StatusArgs) -> Exit {
    match ask_agent(arguments) {
        Ok(snapshot) if arguments.plan => arguments.form.report_plan(&snapshot),
        Ok(snapshot) => arguments.form.report(&snapshot, &[]),
        Err(error) => arguments.form.could_not_tell(&format!("{error:#}")),
    }
}

fn ask_agent(arguments: &StatusArgs) -> anyhow::Result<Snapshot> {
    let address = match arguments.address.as_deref().filter(|address| !address.is_empty()) {
        Some(address) => address.to_owned(),
        None => address_of(&arguments.settings.load()?)?,
    };
    let runtime = run::runtime()?;
    let result = runtime.block_on(async {
        let timeout = || StatusError::Timeout { address: address.clone() };
        tokio::time::timeout(TIMEOUT, fetch(&address)).await.map_err(|_| timeout())?
    });
    // The resolver may still sit in a thread of the runtime.
    runtime.shutdown_background();
    Ok(result?)
}

fn address_of(config: &Config) -> Result<String, StatusError> {
    if config.listen_ui.is_empty() { Err(StatusError::Off) } else { Ok(config.listen_ui.clone()) }
}

/// The address to connect to: what is listened to on all addresses is reached on loopback.
fn reachable(address: &str) -> String {
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    for (all, loopback) in [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:"), (":", "127.0.0.1:")] {
        if let Some(port) = address.strip_prefix(all) {
            return format!("{loopback}{port}");
        }
    }
    address.to_owned()
}

async fn fetch(address: &str) -> Result<Snapshot, StatusError> {
    let address = reachable(address);
    let broken =
        |error: &dyn std::fmt::Display| StatusError::Broken { address: address.clone(), reason: error.to_string() };
    // Without a port, or with one that is no number, nothing was asked.
    let connect = |reason: io::Error| match reason.kind() {
        io::ErrorKind::InvalidInput => StatusError::NoAddress { address: address.clone(), reason },
        _ => StatusError::Connect { address: address.clone(), reason },
    };
    let stream = TcpStream::connect(&address).await.map_err(connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/api/v1/mounts")
        .header(header::HOST, &address)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(StatusError::Refused { address, status: answer.status() });
    }
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|error| broken(&error))?.to_bytes();
    connection.abort();
    parse(&body).map_err(|reason| StatusError::Foreign { address, reason })
}

fn parse(body: &[u8]) -> Result<Snapshot, String> {
    let snapshot: Snapshot = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if snapshot.schema == SCHEMA { Ok(snapshot) } else { Err(format!("schema {:?}", snapshot.schema)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (given, expected) in [
            (":12050", "127.0.0.1:12050"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.7:1", "192.0.2.7:1"),
            ("http://localhost:1/", "localhost:1"),
        ] {
            assert_eq!(reachable(given), expected);
        }
    }

    #[test]
    fn another_schema_is_refused() {
        let error = parse(b"{\"schema\": \"x\"}").unwrap_err();
        assert!(error.contains("missing field"), "{error}");
    }
}
