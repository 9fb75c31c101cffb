//! The history in the cluster: one ConfigMap, written only over the version that was read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::client::{Failure, call};
use super::history::History;
use super::time::Time;

/// Name of the ConfigMap.
pub const NAME: &str = "mountwarden-history";

/// A history as it was read, with the version to write over.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What it says.
    pub history: History,
    object: ConfigMap,
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// It stands.
    Yes(Box<Stored>),
    /// Somebody else wrote meanwhile: read again and decide anew.
    Conflict,
    /// It may or may not stand.
    Failed(Failure),
}

/// The ConfigMap that holds it.
#[derive(Clone)]
pub struct Store {
    api: Api<ConfigMap>,
    /// `enforce` or `dry-run`: what was only played is not mixed up with what was done.
    key: &'static str,
}

impl Store {
    /// In this namespace, under this key.
    #[must_use]
    pub fn new(client: Client, namespace: &str, key: &'static str) -> Store {
        Store { api: Api::namespaced(client, namespace), key }
    }

    /// Reads it. One that is missing or damaged is begun anew, which means a cool-down in which nothing is done.
    ///
    /// # Errors
    /// When it can be neither read nor begun.
    pub async fn load(&self, wall: Time) -> Result<Stored, Failure> {
        let found = call(self.api.get_opt(NAME)).await?;
        let Some(object) = found else { return self.create(wall).await };
        let text = object.data.as_ref().and_then(|data| data.get(self.key));
        match text.map(|text| History::parse(text)) {
            Some(Ok(history)) => Ok(Stored { history, object }),
            Some(Err(why)) => {
                tracing::error!(
                    object = NAME,
                    key = self.key,
                    "the history is damaged ({why}): nothing is done for a cool-down"
                );
                self.begin_in(object, wall).await
            }
            None => {
                tracing::warn!(
                    object = NAME,
                    key = self.key,
                    "there is no history yet: nothing is done for a cool-down"
                );
                self.begin_in(object, wall).await
            }
        }
    }

    async fn create(&self, wall: Time) -> Result<Stored, Failure> {
        tracing::warn!(object = NAME, "there is no history: it is begun, and nothing is done for a cool-down");
        let history = History::begin(wall);
        let object = ConfigMap {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(self.key.to_owned(), history.text())])),
            ..ConfigMap::default()
        };
        let object = call(self.api.create(&PostParams::default(), &object)).await?;
        Ok(Stored { history, object })
    }

    async fn begin_in(&self, object: ConfigMap, wall: Time) -> Result<Stored, Failure> {
        let history = History::begin(wall);
        let object = self.replace(object, &history).await?;
        Ok(Stored { history, object })
    }

    /// Writes `history` over the version in `stored`.
    pub async fn write(&self, stored: &Stored, history: History) -> Written {
        match self.replace(stored.object.clone(), &history).await {
            Ok(object) => Written::Yes(Box::new(Stored { history, object })),
            Err(failure) if failure.code() == 409 => Written::Conflict,
            Err(failure) => Written::Failed(failure),
        }
    }

    async fn replace(&self, mut object: ConfigMap, history: &History) -> Result<ConfigMap, Failure> {
        object.data.get_or_insert_default().insert(self.key.to_owned(), history.text());
        // The object still carries its resourceVersion: the server refuses the write if it is not the newest.
        call(self.api.replace(NAME, &PostParams::default(), &object)).await
    }
}
