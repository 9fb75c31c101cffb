//! What the agent's loop asks the cluster's side, and what it has it say: the API server's word right before an action,
//! and the Events of actions.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::api::{Failure, Kube};
use super::api_pod::ApiPod;
use super::names::unix;
use super::objects::Annotated;
use super::pods::PodList;
use super::report::{About, Wish, about_pod};
use super::text;
use crate::pods::names::{PodNames, Reading, RemedyWords};
use crate::remedy::permission::ANNOTATION;
use crate::remedy::switch;
use crate::snapshot::UnixSeconds;

/// Questions that wait: one pod is released at a time.
const WAITING: usize = 64;

/// A whole answer may take so long; it is asked again later.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the API server says right now.
#[derive(Debug, Clone, PartialEq)]
pub struct RightNow {
    /// Remedies may go on, or why not: the kill switch is set, or cannot be read.
    pub switch: Result<(), String>,
    /// What `mountwarden.io/remedy` says on the pod, its namespace and the node.
    pub remedy: RemedyWords,
    /// The pod.
    pub pod: PodNow,
}

/// A pod, as the API server has it right now.
#[derive(Debug, Clone, PartialEq)]
pub enum PodNow {
    /// It was not asked about, or did not say.
    Unknown(String),
    /// There is no pod with that UID on this node.
    Gone,
    /// It exists.
    There {
        /// When its grace period is over; `None`: it is not being deleted.
        deletion: Option<UnixSeconds>,
        /// Kind of its controller.
        controller: String,
    },
}

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Only the switch and the node are wanted.
    Nobody,
    /// A pod by its names, and the UID that it must have.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// UID of the API object.
        uid: String,
    },
    /// A UID that no pod of this node has, as far as is known: the whole list is read.
    Orphan(String),
}

/// An Event about something that was done, or was not.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// UID of the pod, as its directories have it; where no pod has it the Event is about the node.
    pub pod_uid: String,
    /// `MountReleased`, ...
    pub reason: &'static str,
    /// What tells it from others of this reason, by a fixed word: the guard that refused. Of two that are alike within ten
    /// minutes the second is only counted, and its note is never seen.
    pub topic: &'static str,
    /// Somebody should look.
    pub warning: bool,
    /// What happened.
    pub note: String,
    /// When.
    pub at: UnixSeconds,
}

pub(super) enum Ask {
    RightNow(Whom, oneshot::Sender<RightNow>),
    Deed(Deed),
}

/// The loop's end.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Ask>);

impl Asker {
    /// An asker, and what hears it.
    pub(super) fn new() -> (Asker, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Asker(sender), receiver)
    }

    /// Asks the API server; what it does not say in time is unknown.
    pub async fn right_now(&self, whom: Whom) -> RightNow {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(Ask::RightNow(whom, reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_else(|| unknown("no answer in time"))
    }

    /// Has an Event written, if there is room for it.
    pub fn tell(&self, deed: Deed) -> bool {
        self.0.try_send(Ask::Deed(deed)).is_ok()
    }
}

fn unknown(why: &str) -> RightNow {
    RightNow {
        switch: Err(format!("the API server cannot be asked: {why}")),
        remedy: RemedyWords::default(),
        pod: PodNow::Unknown(why.to_owned()),
    }
}

/// Answers.
pub(super) struct Answerer {
    pub(super) kube: Kube,
    pub(super) node: String,
    /// Where the kill switch is.
    pub(super) namespace: String,
    pub(super) names: watch::Receiver<std::sync::Arc<PodNames>>,
    /// Where Events go; `None`: none are written.
    pub(super) wishes: Option<mpsc::Sender<Wish>>,
    /// UID of the Node, once it was read.
    pub(super) node_uid: String,
}

impl Answerer {
    /// Until the loop ends.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::RightNow(whom, reply) => {
                    let answer = timeout(PATIENCE, self.right_now(whom)).await;
                    // The loop may not wait any more.
                    let _ = reply.send(answer.unwrap_or_else(|_| unknown("no answer in time")));
                }
                Ask::Deed(deed) => self.tell(deed),
            }
        }
        // The loop ends with the process; the others go on until then.
        std::future::pending().await
    }

    async fn right_now(&mut self, whom: Whom) -> RightNow {
        let switch = self.switch().await;
        let node = self.kube.get::<Annotated>("nodes", &format!("/api/v1/nodes/{}", self.node)).await;
        if let Ok(node) = &node {
            self.node_uid.clone_from(&node.metadata.uid);
        }
        let mut remedy = RemedyWords { node: annotation(node), ..RemedyWords::default() };
        let pod = match whom {
            Whom::Nobody => PodNow::Unknown("not asked".to_owned()),
            Whom::Orphan(uid) => {
                // Nobody can annotate a pod that is gone, nor is it known where it was.
                remedy.namespace = Reading::Read(None);
                self.orphan(&uid).await
            }
            Whom::Pod { namespace, name, uid } => {
                let path = format!("/api/v1/namespaces/{namespace}");
                remedy.namespace = annotation(self.kube.get("namespaces", &path).await);
                match self.kube.get::<ApiPod>("pods", &format!("{path}/pods/{name}")).await {
                    Ok(pod) if pod.metadata.uid == uid => {
                        remedy.pod = pod.metadata.annotations.0.get(ANNOTATION).cloned();
                        there(&pod)
                    }
                    Ok(_) => PodNow::Gone,
                    Err(failure) if failure.is(404) => PodNow::Gone,
                    Err(failure) => PodNow::Unknown(failure.to_string()),
                }
            }
        };
        RightNow { switch, remedy, pod }
    }

    async fn switch(&self) -> Result<(), String> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Data {
            data: std::collections::BTreeMap<String, String>,
        }
        let path = format!("/api/v1/namespaces/{}/configmaps/{}", self.namespace, switch::NAME);
        match self.kube.get::<Data>("configmaps", &path).await {
            Ok(found) => switch::judge(found.data.get(switch::KEY).map(String::as_str)),
            Err(failure) if failure.is(404) => switch::judge(None),
            Err(failure) => Err(format!("ConfigMap {} cannot be read: {failure}", switch::NAME)),
        }
    }

    /// A whole list, read past every cache: what is not in it does not exist.
    async fn orphan(&self, uid: &str) -> PodNow {
        match PodList::all(&self.kube, &self.node).await {
            Err(failure) => PodNow::Unknown(failure.to_string()),
            Ok(pods) => pods.iter().find(|pod| pod.node_uid() == uid).map_or(PodNow::Gone, there),
        }
    }

    fn tell(&self, deed: Deed) {
        let names = self.names.borrow();
        let about = match names.pod(&deed.pod_uid) {
            Some(pod) => about_pod(pod),
            // Events about a Node live in namespace `default` (422 elsewhere, recorded).
            None => About {
                kind: "Node",
                namespace: "default".to_owned(),
                name: self.node.clone(),
                uid: self.node_uid.clone(),
            },
        };
        let topic = format!("{}/{}", deed.pod_uid, deed.topic);
        let note = text::line(&deed.note, text::NOTE);
        let wish = Wish { about, topic, reason: deed.reason, warning: deed.warning, note, at: deed.at };
        // It was logged; what no queue has room for is one Event in a storm of them.
        if let Some(wishes) = &self.wishes {
            let _ = wishes.try_send(wish);
        }
    }
}

fn annotation(read: Result<Annotated, Failure>) -> Reading {
    read.map_or(Reading::Unread, |object| Reading::Read(object.metadata.annotations.0.get(ANNOTATION).cloned()))
}

fn there(pod: &ApiPod) -> PodNow {
    // A time that cannot be read counts as one that is far away.
    let deletion = pod.metadata.deletion_timestamp.as_deref().and_then(unix);
    PodNow::There { deletion, controller: pod.controller().to_owned() }
}
