//! The listeners. A port that is taken is no reason to stop watching: during an update the old agent may still have it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::http::{HttpState, serve_metrics, serve_ui};

/// A port that is taken is tried again after so long.
const RETRY: Duration = Duration::from_secs(2);

/// Connections that wait for us; more than the server's own cap would only wait in vain.
const BACKLOG: u32 = 128;

/// Starts both listeners.
pub(super) fn start(config: &Config, http: &Arc<HttpState>, stopped: &watch::Receiver<bool>) {
    let (state, stop) = (Arc::clone(http), stopped.clone());
    let address = config.listen.clone();
    tokio::spawn(async move {
        if let Some(listener) = listen("listen", &address).await {
            serve_metrics(listener, state, stop).await;
        }
    });
    let (state, stop) = (Arc::clone(http), stopped.clone());
    let address = config.listen_ui.clone();
    tokio::spawn(async move {
        if let Some(listener) = listen("listen_ui", &address).await {
            serve_ui(listener, state, stop).await;
        }
    });
}

/// A listener on `address`, sooner or later; `None` when it is empty: that listener is off.
pub(crate) async fn listen(name: &str, address: &str) -> Option<TcpListener> {
    if address.is_empty() {
        return None;
    }
    let mut said = false;
    loop {
        match bind(address) {
            Ok(listener) => {
                tracing::info!("{name}: serving on {address}");
                return Some(listener);
            }
            Err(error) if !said => {
                tracing::error!(
                    "{name}: cannot listen on {address}: {error}; everything else works all the same, and it is tried \
                     again every {RETRY:?}. See who has the port with `ss -ltnp`, or choose another with --{}",
                    name.replace('_', "-")
                );
                said = true;
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

fn bind(address: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::InvalidInput);
    for address in addresses(address) {
        match try_bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `:PORT` is every address: over IPv6, which takes IPv4 too, else over IPv4 alone.
fn addresses(address: &str) -> Vec<SocketAddr> {
    if let Some(port) = address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        let any4 = IpAddr::from([0, 0, 0, 0]);
        return vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), SocketAddr::new(any4, port)];
    }
    address.parse().into_iter().collect()
}

fn try_bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
