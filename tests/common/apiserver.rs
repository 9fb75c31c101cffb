//! A Kubernetes API server for tests: a real HTTP server on loopback with a store behind it, that answers in the shapes
//! of the recordings (`tests/fixtures/api/`) and fails on request.
//!
//! It knows list (pages, field and label selectors), watch (bookmarks, 410), get, create, update with conflicts, patches
//! (merge, strategic for conditions, apply), status subresources, delete with preconditions, dry-run, Evictions with
//! budgets, and the rules for Events that a real one refuses by. It runs in a thread of its own, so tests with and
//! without a runtime can use it.

#[path = "apiserver/answers.rs"]
mod answers;
#[path = "apiserver/eviction.rs"]
mod eviction;
#[path = "apiserver/faults.rs"]
mod faults;
#[path = "apiserver/http.rs"]
mod http;
#[path = "apiserver/objects.rs"]
pub mod objects;
#[path = "apiserver/patch.rs"]
mod patch;
#[path = "apiserver/resources.rs"]
mod resources;
#[path = "apiserver/rights.rs"]
mod rights;
#[path = "apiserver/routes.rs"]
mod routes;
#[path = "apiserver/rules.rs"]
mod rules;
#[path = "apiserver/store.rs"]
mod store;
#[path = "apiserver/watching.rs"]
mod watching;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

pub use faults::{Fault, On};
#[allow(unused_imports, reason = "shared: some test crates name no right")]
pub use rights::{Right, Rights};
use store::Store;
pub use watching::Order;

/// A request as it came, with what it got.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// GET, POST, ...
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As it was sent.
    pub query: String,
    /// Of the body.
    pub content_type: String,
    /// Null where there is none, or it is no JSON.
    pub body: Value,
    /// Status of the answer; 0 where none was given.
    pub status: u16,
}

impl Asked {
    /// It asks for a watch.
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1")
    }
}

/// A write as an admission policy sees it.
#[derive(Debug, Clone)]
pub struct Review {
    /// `AdmissionRequest`, without who asks.
    pub request: Value,
    /// As it would be stored.
    pub object: Value,
    /// As it is stored; null where it is new.
    pub old: Value,
}

/// Says why a write is refused.
pub type Admission = Box<dyn Fn(&Review) -> Option<String> + Send>;

/// What the server's thread and the test share.
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<faults::Faults>,
    /// What its one client may do; none: everything.
    rights: Mutex<Option<Rights>>,
    /// What looks at each write before it is stored.
    admission: Mutex<Option<Admission>>,
    asked: Mutex<Vec<Asked>>,
    /// The newest resource version: wakes the watches.
    newest: watch::Sender<u64>,
    /// What open watches are to do.
    order: watch::Sender<(u64, Order)>,
    /// Time between two bookmarks.
    bookmarks: Mutex<Duration>,
    /// How far the server's clock is off, in seconds.
    clock: AtomicI64,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// The server's wall clock.
    fn now(&self) -> std::time::SystemTime {
        let off = self.clock.load(Ordering::Relaxed);
        let by = Duration::from_secs(off.unsigned_abs());
        let now = std::time::SystemTime::now();
        if off < 0 { now - by } else { now + by }
    }

    /// Changes the store and wakes the watches.
    fn change<T>(&self, change: impl FnOnce(&mut Store, &str) -> T) -> T {
        let now = humantime::format_rfc3339_seconds(self.now()).to_string();
        let (result, version) = {
            let mut store = self.store();
            let result = change(&mut store, &now);
            (result, store.version())
        };
        self.newest.send_replace(version);
        result
    }
}

/// The running server. Dropping it ends it.
pub struct ApiServer {
    shared: Arc<Shared>,
    listener: http::Listener,
}

impl ApiServer {
    /// Starts it with an empty store (the namespaces `default` and `kube-system` exist) and the CRDs installed.
    pub fn start() -> ApiServer {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            faults: Mutex::default(),
            rights: Mutex::default(),
            admission: Mutex::default(),
            asked: Mutex::default(),
            newest: watch::channel(0).0,
            order: watch::channel((0, Order::Run)).0,
            bookmarks: Mutex::new(Duration::from_secs(60)),
            clock: AtomicI64::new(0),
        });
        let listener = http::Listener::start(Arc::clone(&shared));
        let server = ApiServer { shared, listener };
        for name in ["default", "kube-system"] {
            server.put(objects::namespace(name));
        }
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Writes a kubeconfig that leads to it.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        self.kubeconfig_in(directory, "default")
    }

    /// The same, with this namespace as one's own.
    pub fn kubeconfig_in(&self, directory: &Path, namespace: &str) -> PathBuf {
        let path = directory.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: fake\n\
             clusters: [{{name: fake, cluster: {{server: \"{}\"}}}}]\n\
             users: [{{name: fake, user: {{token: t0ken}}}}]\n\
             contexts: [{{name: fake, context: {{cluster: fake, user: fake, namespace: {namespace}}}}}]\n",
            self.url()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    // --- the store, as another client would change it

    /// Creates the object, or puts it in the place of the one with its name; gives it back as stored.
    pub fn put(&self, object: Value) -> Value {
        self.shared.change(|store, now| store.put(object, now))
    }

    /// The object of this plural (`pods`, `nodemounts`); namespace "" for cluster-scoped ones.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store().get(plural, namespace, name).cloned()
    }

    /// All objects of this plural.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        self.shared.store().all(plural).cloned().collect()
    }

    /// Changes an object that exists.
    pub fn modify(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Value {
        self.shared.change(|store, now| {
            let mut object = store.get(plural, namespace, name).cloned().unwrap();
            change(&mut object);
            store.put(object, now)
        })
    }

    /// Removes an object at once, and what it owns.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        self.shared.change(|store, _| store.remove(plural, namespace, name));
    }

    /// Marks a pod as Terminating, as a delete does.
    pub fn terminate(&self, namespace: &str, name: &str) {
        self.shared.change(|store, now| {
            let mut pod = store.get("pods", namespace, name).cloned().unwrap();
            eviction::mark_deleted(&mut pod, now);
            store.put(pod, now);
        });
    }

    // --- what it is to do wrong

    /// From now on requests that match fail so, until [`ApiServer::heal`].
    pub fn fault(&self, on: On, fault: Fault) {
        self.shared.faults.lock().unwrap().add(on, fault, None);
    }

    /// The next `times` requests that match fail so.
    pub fn fault_times(&self, times: usize, on: On, fault: Fault) {
        self.shared.faults.lock().unwrap().add(on, fault, Some(times));
    }

    /// Ends all faults of requests and of watches, and sets the clock right.
    pub fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.shared.clock.store(0, Ordering::Relaxed);
        self.order(Order::Run);
    }

    /// From now on whoever asks may do only this.
    pub fn grant(&self, rights: Rights) {
        *self.shared.rights.lock().unwrap() = Some(rights);
    }

    /// From now on this looks at each write before it is stored.
    pub fn admit_by(&self, admission: Admission) {
        *self.shared.admission.lock().unwrap() = Some(admission);
    }

    /// Tells all open watches what to do.
    pub fn order(&self, order: Order) {
        self.shared.order.send_modify(|(generation, present)| (*generation, *present) = (*generation + 1, order));
    }

    /// Forgets all history: a watch from an older version gets 410.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Time between two bookmarks of watches that are opened from now on.
    pub fn bookmark_every(&self, time: Duration) {
        *self.shared.bookmarks.lock().unwrap() = time;
    }

    /// Sets the server's clock so many seconds off.
    pub fn clock_off(&self, seconds: i64) {
        self.shared.clock.store(seconds, Ordering::Relaxed);
    }

    /// Removes the CRDs, or installs them.
    pub fn crds(&self, installed: bool) {
        self.shared.store().crds_installed = installed;
    }

    /// Nobody listens any more and every connection is cut.
    pub fn go_down(&self) {
        self.listener.set_up(false);
    }

    /// Listens again, on the same port.
    pub fn come_up(&self) {
        self.listener.set_up(true);
    }

    // --- what was asked of it

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Those whose method is this one and whose path contains these words.
    pub fn asked_for(&self, method: &str, path: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.method == method && asked.path.contains(path)).cloned().collect()
    }

    /// Counts from nothing again.
    pub fn forget_asked(&self) {
        self.shared.asked.lock().unwrap().clear();
    }
}
