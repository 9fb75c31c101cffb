//! The built coordinator as a process of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::shop::Cluster;
use super::wait::{PATIENCE, eventually};

/// A running `mountwarden coordinate`. Dropping it kills it.
pub struct Coordinator {
    child: Child,
    public: SocketAddr,
    private: SocketAddr,
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Coordinator {
    /// Starts it and waits until it has read what the nodes report.
    pub fn start(cluster: &Cluster, flags: &[&str]) -> Coordinator {
        Coordinator::start_binary(Path::new(env!("CARGO_BIN_EXE_mountwarden")), cluster, flags)
    }

    /// The same of another build of the program.
    pub fn start_binary(binary: &Path, cluster: &Cluster, flags: &[&str]) -> Coordinator {
        let (public, private) = (free_port(), free_port());
        let mut command = Command::new(binary);
        command
            .arg("coordinate")
            .args(flags)
            .args(["--listen", &public.to_string(), "--listen-ui", &private.to_string()])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(if std::env::var_os("COORDINATE_LOG").is_some() { Stdio::inherit() } else { Stdio::null() });
        let coordinator = Coordinator { child: command.spawn().unwrap(), public, private };
        eventually("ready", PATIENCE, || (coordinator.try_get(public, "/readyz")?.0 == 200).then_some(()));
        coordinator
    }

    /// Where its `/metrics` are.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        eventually("the coordinator ends", PATIENCE, || self.child.try_wait().unwrap()).code()
    }

    pub fn metrics(&self) -> String {
        self.get("/metrics").1
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(self.public, path).unwrap()
    }

    /// The last decisions.
    pub fn decisions(&self) -> Value {
        serde_json::from_str(&self.try_get(self.private, "/api/v1/decisions").unwrap().1).unwrap()
    }

    /// The decision by which this guard refused this pod.
    pub fn refused(&self, pod: &str, guard: &str) -> Option<Value> {
        let decisions = self.decisions();
        let hit = |told: &&Value| told["pod"] == pod && told["guard"] == guard;
        decisions.as_array().unwrap().iter().find(hit).cloned()
    }

    fn try_get(&self, address: SocketAddr, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
