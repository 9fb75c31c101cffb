//! Watches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};

use super::answers;
use super::http::{Piece, Pieces};
use super::resources::Place;
use super::routes::{self, Selection};
use super::{Asked, Shared, resources};

/// What open watches do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Report what happens.
    Run,
    /// Say nothing more, and keep the connection.
    Silent,
    /// End as a server ends them when their time is over.
    End,
    /// Send half a line, then cut the connection.
    Cut,
    /// Say that the version is too old (410), then end.
    Expire,
}

/// Without `timeoutSeconds` a real server takes 30 to 60 minutes.
const TIMEOUT: Duration = Duration::from_secs(1800);

struct Watch {
    shared: Arc<Shared>,
    place: Place,
    selection: Selection,
    /// What happened until here was sent.
    version: u64,
    pieces: Sender<Piece>,
}

/// Serves one watch until its client is gone or its time is over.
pub(super) async fn serve(shared: Arc<Shared>, asked: Asked, pieces: Pieces) {
    let Some(place) = resources::place(&asked.path) else { return };
    let query = routes::query(&asked);
    let selection = Selection::of(&place, &query);
    let asked_version: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let bookmarks = query.get("allowWatchBookmarks").is_some_and(|yes| yes == "true");
    let timeout = query.get("timeoutSeconds").and_then(|text| text.parse().ok()).map_or(TIMEOUT, Duration::from_secs);
    let initial = query.get("sendInitialEvents").is_some_and(|yes| yes == "true");
    let mut watch = Watch { shared, place, selection, version: asked_version, pieces };
    if watch.begin(initial).await.is_err() {
        return;
    }
    let _ = watch.run(bookmarks, timeout).await;
}

/// The client is gone.
struct Gone;

impl Watch {
    async fn begin(&mut self, initial: bool) -> Result<(), Gone> {
        let (oldest, newest, present) = {
            let store = self.shared.store();
            let present: Vec<Value> =
                store.all(self.place.resource.plural).filter(|object| self.selection.takes(object)).cloned().collect();
            (store.oldest(), store.version(), present)
        };
        if self.version == 0 || initial {
            for object in present {
                self.line("ADDED", &object).await?;
            }
            self.version = newest;
            if initial {
                self.bookmark(json!({"k8s.io/initial-events-end": "true"})).await?;
            }
        } else if self.version < oldest {
            self.send(answers::expired_watch(self.version, oldest)).await?;
            return Err(Gone);
        }
        Ok(())
    }

    async fn run(&mut self, bookmarks: bool, timeout: Duration) -> Result<(), Gone> {
        let mut newest = self.shared.newest.subscribe();
        let mut order = self.shared.order.subscribe();
        let start = *order.borrow_and_update();
        let every = *self.shared.bookmarks.lock().unwrap();
        let (end, mut next) = (Instant::now() + timeout, Instant::now() + every);
        loop {
            let (generation, now) = *order.borrow_and_update();
            // An order is for the watches that are open when it is given; only silence holds for new ones too.
            if now != Order::Silent && (generation, now) != start && now != Order::Run {
                return self.obey(now).await;
            }
            let silent = now == Order::Silent;
            if !silent {
                self.news().await?;
            }
            tokio::select! {
                _ = order.changed() => {}
                _ = newest.changed() => {}
                () = self.pieces.closed() => return Err(Gone),
                () = sleep_until(next), if bookmarks && !silent => {
                    self.bookmark(Value::Null).await?;
                    next = Instant::now() + every;
                }
                () = sleep_until(end) => return self.obey(Order::End).await,
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Gone> {
        match order {
            Order::Expire => self.send(answers::expired_watch(self.version, self.version + 1)).await,
            Order::Cut => {
                let half = br#"{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","meta"#;
                self.piece(Piece::Bytes(half.to_vec())).await?;
                // The half arrives before the reset throws away what is not sent yet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.piece(Piece::Reset).await
            }
            Order::End | Order::Run | Order::Silent => Ok(()),
        }
    }

    async fn news(&mut self) -> Result<(), Gone> {
        let (changes, version) = {
            let store = self.shared.store();
            let changes: Vec<_> = store.since(self.place.resource.plural, self.version).cloned().collect();
            (changes, store.version())
        };
        for change in changes {
            let takes = |object: &Option<Value>| object.clone().filter(|object| self.selection.takes(object));
            let (before, after) = (takes(&change.before), takes(&change.after));
            match (before, after) {
                (None, Some(after)) => self.line("ADDED", &after).await?,
                (Some(_), Some(after)) => self.line("MODIFIED", &after).await?,
                (Some(mut before), None) => {
                    before["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    self.line("DELETED", &before).await?;
                }
                (None, None) => {}
            }
        }
        self.version = self.version.max(version);
        Ok(())
    }

    async fn line(&self, kind: &str, object: &Value) -> Result<(), Gone> {
        let object = routes::as_asked(self.place.resource, object);
        self.send(json!({"type": kind, "object": object})).await
    }

    /// As recorded: nothing but kind and version.
    async fn bookmark(&self, annotations: Value) -> Result<(), Gone> {
        let mut meta = json!({"resourceVersion": self.version.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            meta["annotations"] = annotations;
        }
        let mut object = json!({"kind": self.place.resource.kind, "metadata": meta});
        if self.place.resource.plural == "pods" {
            object["spec"] = json!({"containers": null});
            object["status"] = json!({});
        }
        self.line("BOOKMARK", &object).await
    }

    async fn send(&self, line: Value) -> Result<(), Gone> {
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        self.piece(Piece::Bytes(bytes)).await
    }

    async fn piece(&self, piece: Piece) -> Result<(), Gone> {
        self.pieces.send(piece).await.map_err(|_| Gone)
    }
}
