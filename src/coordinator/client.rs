//! The client that evicts: nothing it asks is ever repeated behind our back, and nothing waits for ever.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use kube::config::{Config as KubeConfig, InferConfigError, KubeconfigError};
use kube::{Client, Error};

/// One request to the API server. A lease is held for three times as long: a call that was begun ends before it does.
pub const CALL: Duration = Duration::from_secs(4);

/// Why the cluster cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig.
    #[error(
        "no cluster is known here: this is no pod, and KUBECONFIG or ~/.kube/config cannot be used ({0}). Run it as a pod \
         (k8s/install.yaml has a coordinator), or name a kubeconfig with --kubeconfig"
    )]
    NoCluster(String),
    /// The service account of the pod cannot be used.
    #[error("cannot use the pod's service account ({0}); is automountServiceAccountToken off?")]
    Account(String),
    /// The file that was named cannot be used.
    #[error("cannot use the kubeconfig {path}: {why}")]
    Kubeconfig {
        /// As it was named.
        path: String,
        /// Why not.
        why: String,
    },
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
        KubeConfig::infer().await.map_err(|error| nowhere(&error))?
    } else {
        let bad =
            |error: KubeconfigError| ConnectError::Kubeconfig { path: kubeconfig.to_owned(), why: error.to_string() };
        named(kubeconfig).await.map_err(bad)?
    };
    // kube repeats what was answered with 429 for minutes, at times an eviction of a pod that has healed meanwhile.
    config.default_retry = false;
    config.connect_timeout = Some(CALL);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(Cluster { client, namespace })
}

/// In a pod the account is at fault, elsewhere the kubeconfig, which is the source of kube's error.
fn nowhere(error: &InferConfigError) -> ConnectError {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty()) {
        return ConnectError::Account(error.to_string());
    }
    ConnectError::NoCluster(error.source().map_or_else(|| error.to_string(), |why| why.to_string()))
}

async fn named(path: &str) -> Result<KubeConfig, KubeconfigError> {
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
