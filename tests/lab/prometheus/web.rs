//! What Prometheus scrapes and where Alertmanager sends: one small listener on loopback.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::text;

/// The agents' pages are written once a second; what is older is not what they say now.
const FRESH: Duration = Duration::from_secs(5);

/// What Alertmanager sent, as far as a person reads it.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    pub(super) status: String,
    pub(super) receiver: String,
    /// Common to all its alerts.
    pub(super) alert: String,
    pub(super) alerts: usize,
    pub(super) summaries: Vec<String>,
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Notification { status, receiver, alert, alerts, summaries } = self;
        write!(f, "{receiver}: {status} {alert} ({alerts}): {}", summaries.join("; "))
    }
}

/// One answer to a scrape.
#[derive(Debug, Clone)]
pub(super) struct Scrape {
    pub(super) at: Instant,
    pub(super) node: String,
    pub(super) body: String,
}

pub(super) struct Web {
    pub(super) address: SocketAddr,
    pages: BTreeMap<String, PathBuf>,
    notifications: Mutex<Vec<Notification>>,
    scrapes: Mutex<Vec<Scrape>>,
}

impl Web {
    pub(super) fn start(out: &Path, nodes: &[&str]) -> Result<Arc<Web>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let page = |node: &&str| (format!("/{node}/metrics"), out.join(format!("{node}.prom")));
        let web = Arc::new(Web {
            address: listener.local_addr()?,
            pages: nodes.iter().map(page).collect(),
            notifications: Mutex::default(),
            scrapes: Mutex::default(),
        });
        let serving = Arc::clone(&web);
        // Ends with the process. Each connection has its own thread: Prometheus keeps several.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || drop(serving.answer(stream)));
            }
        });
        Ok(web)
    }

    pub(super) fn notifications(&self) -> Vec<Notification> {
        self.notifications.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn scrapes(&self) -> Vec<Scrape> {
        self.scrapes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One request per connection.
    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (code, answer) = match self.pages.get(path) {
            Some(file) => self.page(path, file),
            None => (200, self.receive(&body).map(|()| String::new()).unwrap_or_default()),
        };
        write!(
            stream,
            "HTTP/1.1 {code} x\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
             {answer}",
            answer.len()
        )?;
        Ok(())
    }

    fn page(&self, path: &str, file: &Path) -> (u16, String) {
        let fresh = file.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        let body = std::fs::read_to_string(file).ok().filter(|_| fresh.is_some_and(|age| age < FRESH));
        let Some(body) = body else { return (503, String::new()) };
        let node = path.split('/').nth(1).unwrap_or_default().to_owned();
        let scrape = Scrape { at: Instant::now(), node, body: body.clone() };
        self.scrapes.lock().unwrap_or_else(PoisonError::into_inner).push(scrape);
        (200, body)
    }

    fn receive(&self, body: &[u8]) -> Result<()> {
        let told: Value = serde_json::from_slice(body).context("a notification is no JSON")?;
        let alerts = told["alerts"].as_array().cloned().unwrap_or_default();
        let notification = Notification {
            status: text(&told["status"]).to_owned(),
            receiver: text(&told["receiver"]).to_owned(),
            alert: text(&told["commonLabels"]["alertname"]).to_owned(),
            alerts: alerts.len(),
            summaries: alerts.iter().map(|alert| text(&alert["annotations"]["summary"]).to_owned()).collect(),
        };
        self.notifications.lock().unwrap_or_else(PoisonError::into_inner).push(notification);
        Ok(())
    }
}
