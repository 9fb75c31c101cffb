//! Whose turn it is: one question at a time to each server, whoever asks.
//!
//! The pulse of a silent server ([`super::servers`]), the questions about single mounts ([`super::inquiry`]) and those about
//! volumes that pods wait for ([`super::pending`]) come from different clocks. A server that is in trouble must not meet
//! them all at once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The servers that are being asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Book(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: Mutex<HashSet<SocketAddr>>,
    /// Somebody's turn is over.
    over: Notify,
}

/// The right to ask one server; dropped, the next one may.
#[derive(Debug)]
pub(super) struct Turn {
    book: Book,
    server: SocketAddr,
}

impl Book {
    /// A turn to ask this server; `None` while somebody else asks it.
    pub(super) fn turn(&self, server: SocketAddr) -> Option<Turn> {
        let server = canonical(server);
        self.with(|asked| asked.insert(server)).then(|| Turn { book: self.clone(), server })
    }

    /// A turn to ask this server, once nobody else asks it.
    pub(super) async fn next_turn(&self, server: SocketAddr) -> Turn {
        loop {
            let over = self.0.over.notified();
            if let Some(turn) = self.turn(server) {
                return turn;
            }
            over.await;
        }
    }

    /// Nobody asks this server just now.
    pub(super) fn is_free(&self, server: SocketAddr) -> bool {
        self.with(|asked| !asked.contains(&canonical(server)))
    }

    fn with<T>(&self, then: impl FnOnce(&mut HashSet<SocketAddr>) -> T) -> T {
        // A set is whole after any panic.
        then(&mut self.0.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.book.with(|asked| asked.remove(&self.server));
        self.book.0.over.notify_waiters();
    }
}

/// A server that has an IPv4 address is the same one by its IPv6 spelling.
fn canonical(server: SocketAddr) -> SocketAddr {
    SocketAddr::new(server.ip().to_canonical(), server.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_server_is_asked_by_one_at_a_time() {
        let book = Book::default();
        let (server, spelled): (SocketAddr, SocketAddr) =
            ("192.0.2.7:2049".parse().unwrap(), "[::ffff:192.0.2.7]:2049".parse().unwrap());
        let turn = book.turn(server).expect("nobody asks it");
        assert!(book.turn(spelled).is_none() && !book.is_free(server));
        // Another port is another service: the local proxies of two file systems share an address.
        assert!(book.turn("192.0.2.7:2050".parse().unwrap()).is_some());
        drop(turn);
        assert!(book.is_free(server) && book.turn(spelled).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_has_it_when_the_one_before_is_over() {
        let book = Book::default();
        let server: SocketAddr = "192.0.2.7:2049".parse().unwrap();
        let first = book.turn(server).expect("nobody asks it");
        let next = tokio::spawn({
            let book = book.clone();
            async move { book.next_turn(server).await }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(first);
        let turn = timeout(Duration::from_secs(10), next).await.expect("it was told").unwrap();
        assert!(!book.is_free(server));
        drop(turn);
        assert!(book.is_free(server));
    }
}
