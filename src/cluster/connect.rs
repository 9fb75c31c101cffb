//! Where the API server is, and whether there is one.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::time::timeout;

/// A kubeconfig may lie on a mount that is dead by now.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Not in a pod, and no kubeconfig is named.
    #[error(
        "this is no pod (KUBERNETES_SERVICE_HOST is not set) and kubernetes.kubeconfig names no file: run it as a pod, or name one"
    )]
    NoCluster,
    /// The pod's own credentials cannot be read.
    #[error("cannot read the pod's service account: {0}; is automountServiceAccountToken off?")]
    Account(String),
    /// The file cannot be used.
    #[error("cannot use the kubeconfig {path}: {why}")]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// TLS.
    #[error("cannot set up TLS to the API server: {0}")]
    Tls(String),
}

/// A client without retries of its own and with a limit on connecting.
pub(super) async fn client(kubeconfig: Option<PathBuf>) -> Result<kube::Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None if is_pod() => kube::Config::incluster().map_err(|error| ConnectError::Account(error.to_string()))?,
        None => return Err(ConnectError::NoCluster),
    };
    // It retries 429 for minutes, among them Evictions that a budget refused.
    config.default_retry = false;
    config.connect_timeout = Some(READ_LIMIT);
    kube::Client::try_from(config).map_err(|error| ConnectError::Tls(error.to_string()))
}

/// The kubelet sets it in every container.
pub(super) fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
}

async fn from_file(path: PathBuf) -> Result<kube::Config, ConnectError> {
    let bad = |why: String| ConnectError::Kubeconfig { path: path.clone(), why };
    let file = path.clone();
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file));
    let kubeconfig = match timeout(READ_LIMIT, read).await {
        Ok(Ok(Ok(kubeconfig))) => kubeconfig,
        Ok(Ok(Err(error))) => return Err(bad(error.to_string())),
        Ok(Err(error)) => return Err(bad(error.to_string())),
        Err(_) => return Err(bad(format!("reading it takes longer than {READ_LIMIT:?}: is it on a dead mount?"))),
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| bad(error.to_string()))
}
