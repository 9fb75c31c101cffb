//! The client that evicts: nothing it asks is ever repeated behind our back, and nothing waits for ever.

use std::future::Future;
use std::time::Duration;

use kube::config::Config as KubeConfig;
use kube::{Client, Error};

/// One request to the API server. A lease is held for three times as long: a call that was begun ends before it does.
pub const CALL: Duration = Duration::from_secs(4);

/// Why the cluster cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig.
    #[error("no way to an API server was found (service account of a pod, or KUBECONFIG): {0}")]
    NoConfig(String),
    /// The client could not be made.
    #[error("cannot make a client for the API server: {0}")]
    Client(#[source] Box<Error>),
}

/// Where the coordinator works.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// Namespace of its own objects.
    pub namespace: String,
}

/// Finds the cluster: the kubeconfig that is named (`--kubeconfig`), else the service account of the pod, else `KUBECONFIG`.
///
/// # Errors
/// When there is none, or its certificates cannot be used.
pub async fn connect(kubeconfig: &str) -> Result<Cluster, ConnectError> {
    let mut config = if kubeconfig.is_empty() {
        KubeConfig::infer().await.map_err(|error| ConnectError::NoConfig(error.to_string()))?
    } else {
        named(kubeconfig).await.map_err(|error| ConnectError::NoConfig(format!("{kubeconfig}: {error}")))?
    };
    // kube repeats what was answered with 429 for minutes, at times an eviction of a pod that has healed meanwhile.
    config.default_retry = false;
    config.connect_timeout = Some(CALL);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(Cluster { client, namespace })
}

async fn named(path: &str) -> Result<KubeConfig, kube::config::KubeconfigError> {
    let file = kube::config::Kubeconfig::read_from(path)?;
    KubeConfig::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await
}

/// Why a call gave no answer that can be used.
#[derive(Debug)]
pub enum Failure {
    /// The server answered so.
    Api(Error),
    /// No answer within [`CALL`].
    Timeout,
}

impl Failure {
    /// The status code of the answer; 0 where there was none.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Failure::Api(Error::Api(status)) => status.code,
            _ => 0,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Api(Error::Api(status)) => write!(f, "{} ({} {})", status.message, status.code, status.reason),
            Failure::Api(error) => error.fmt(f),
            Failure::Timeout => write!(f, "no answer within {} s", CALL.as_secs()),
        }
    }
}

/// Makes a call with its deadline.
///
/// # Errors
/// What the server said, or that it said nothing.
pub async fn call<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, request).await {
        Ok(answer) => answer.map_err(Failure::Api),
        Err(_) => Err(Failure::Timeout),
    }
}
