//! The server's side of a mounted path: what it says of the mount's own root, what that proves, and whether the same could be
//! mounted once more.

use std::net::IpAddr;
use std::time::Duration;

use super::root_refused;
use crate::diagnose::report::{Outcome, StepName, StepReport};
use crate::diagnose::steps::{self, Part};
use crate::diagnose::trials::{self, Plan, Trial};
use crate::diagnose::{Asked, LAST_WAIT};
use crate::mounts::efs::StateFiles;
use crate::mounts::{Kind, Mount};
use crate::probe::Step;
use crate::probe::pool::{Class, Outcome as PoolOutcome, Pool};
use crate::probe::trial::TrialSpec;
use crate::probe::wire::{Answer, Job, Place};
use crate::server::conclude::{Conclusion, Seen, Symptom, conclude};
use crate::server::dns::{Resolution, Resolver};
use crate::server::examine::{Examination, Question, examine};
use crate::snapshot::MountStatus;
use crate::verdict::judge::Decision;
use crate::verdict::{Cause, State};

/// Where efs-utils keeps its state files.
const EFS_STATE: &str = "var/run/efs";

/// What came of it.
pub(super) struct ServerSide {
    pub(super) steps: Vec<StepReport>,
    pub(super) conclusion: Conclusion,
    pub(super) trial: Trial,
    /// What is to be done or known beside the advice.
    pub(super) notes: Vec<String>,
}

impl ServerSide {
    pub(super) async fn ask(mount: &Mount, status: &MountStatus, asked: &Asked<'_>) -> ServerSide {
        let nothing = |why: &str| ServerSide {
            steps: Vec::new(),
            conclusion: Conclusion::default(),
            trial: Trial::NotMade(why.to_owned()),
            notes: Vec::new(),
        };
        if !mount.kind.is_some_and(Kind::is_nfs) {
            return nothing("only NFS mounts are tried");
        }
        let pool = match trials::pool() {
            Ok(pool) => pool,
            Err(error) => return nothing(&format!("no worker process can be started: {error}")),
        };
        let handle = identify(&pool, mount, asked).await;
        let efs = efs_state(&pool, mount, asked).await;
        let efs = mount.origin.proxy_port.and_then(|port| efs.lookup(port, &mount.mountpoint).cloned());
        let resolver = Resolver::default();
        let mut server = nothing("it is no NFS over TCP");
        if let Some(question) = Question::of(mount, &handle, efs.as_ref()) {
            server = ServerSide::examine(&question, mount, status, asked, &resolver).await;
            let (trial, made) = server.try_it(mount, &question, asked, &pool).await;
            server.steps.extend(made);
            server.trial = trial;
        }
        pool.end(LAST_WAIT).await;
        server
    }

    async fn examine(
        question: &Question,
        mount: &Mount,
        status: &MountStatus,
        asked: &Asked<'_>,
        resolver: &Resolver,
    ) -> ServerSide {
        let export = question.export.as_deref().unwrap_or("/");
        let found = examine(question, resolver, asked.proc_root, asked.timeout).await;
        let mut steps = steps::of(&found, export, Part::Service);
        steps.extend(steps::of(&found, export, Part::MountService));
        let mut conclusion =
            symptom(status).map(|symptom| conclude(&found, &seen(symptom, mount, status, 0))).unwrap_or_default();
        if conclusion.candidates.contains(&Cause::ClientStuck) {
            // One answer is not enough: the client may be about to recover.
            let again = examine(question, resolver, asked.proc_root, asked.timeout).await;
            let mut repeated = steps::of(&again, export, Part::Service);
            repeated.retain(|step| step.step == StepName::RootHandle);
            steps.extend(repeated);
            conclusion = conclude(&again, &seen(Symptom::Hung, mount, status, 1));
        }
        conclusion.candidates.extend(moved(&found, &conclusion));
        let steps = steps.into_iter().chain(moved_step(&found)).collect();
        ServerSide { steps, conclusion, trial: Trial::NotMade(String::new()), notes: Vec::new() }
    }

    /// A new mount waits together with the old one where the client takes both addresses for one server (NFSv4.1 and later:
    /// measured). The server itself can be asked for the mount's root all the same.
    async fn answers_at(
        &mut self,
        address: IpAddr,
        question: &Question,
        asked: &Asked<'_>,
        steps: &mut Vec<StepReport>,
    ) -> Option<&'static str> {
        let question = Question { name: None, address: Some(address), proxy: None, ..question.clone() };
        let found = examine(&question, &Resolver::default(), asked.proc_root, asked.timeout).await;
        steps.extend(steps::of(&found, question.export.as_deref().unwrap_or("/"), Part::Service));
        let root = found.root.as_ref().and_then(|root| root.ok())?;
        if found.fileid != Some(root.fileid) {
            return None;
        }
        self.notes.push(
            "A new mount would wait too: this host takes the new address for another way to the same server, and waits for the old one. It works again once every mount of that server is gone from this host, or the old address is back.".to_owned(),
        );
        Some("the server's name leads to another address, and there the server answers for the very root of this mount")
    }

    fn conclude_moved(&mut self, why: Option<&'static str>) {
        let Some(why) = why else { return };
        self.conclusion.cause = Some(Cause::AddressChanged);
        self.conclusion.why = Some(why.to_owned());
        self.conclusion.candidates.retain(|cause| *cause != Cause::AddressChanged);
    }

    /// The same mount once more, at the address that the name leads to now.
    async fn try_it(
        &mut self,
        mount: &Mount,
        question: &Question,
        asked: &Asked<'_>,
        pool: &Pool,
    ) -> (Trial, Vec<StepReport>) {
        if asked.options.no_mount {
            let why = "--no-mount".to_owned();
            return (
                Trial::NotMade(why.clone()),
                vec![StepReport::skipped(StepName::TrialMount, "the same mount once more", why)],
            );
        }
        let has_moved = self.conclusion.candidates.contains(&Cause::AddressChanged);
        let elsewhere = if has_moved { new_address(question, asked).await } else { None };
        let Some(address) = elsewhere.or(question.address) else {
            return (Trial::NotMade("no address to mount from".to_owned()), Vec::new());
        };
        let Some(spec) = TrialSpec::of_mount(mount, address) else {
            return (Trial::NotMade("it is no NFS mount".to_owned()), Vec::new());
        };
        let version = mount.origin.version.clone().unwrap_or_else(|| "4".to_owned());
        let (trial, mut steps) = trials::make(pool, &Plan::again(&version, spec), asked.timeout).await;
        if elsewhere.is_some() {
            let why = match trial {
                Trial::Mounted(_) => Some("the server's name leads to another address, and a mount works there"),
                Trial::Silent(_) => self.answers_at(address, question, asked, &mut steps).await,
                _ => None,
            };
            self.conclude_moved(why);
        }
        (trial, steps)
    }
}

fn symptom(status: &MountStatus) -> Option<Symptom> {
    match status.state {
        State::Unknown if root_refused(status) => Some(Symptom::Refused),
        State::Hung => Some(Symptom::Hung),
        State::Stale => Some(Symptom::Refused),
        State::Lost => Some(Symptom::Emptied),
        _ => None,
    }
}

fn seen(symptom: Symptom, mount: &Mount, status: &MountStatus, answered_while_hung: u32) -> Seen {
    let plain_security = mount.origin.security.as_deref().is_none_or(|flavour| flavour == "sys");
    // A canary may hang, or another entry: of that the server's word about the root says nothing.
    let decision = status.decision.clone().and_then(|decision| serde_json::from_value::<Decision>(decision).ok());
    let step = decision.and_then(|decision| decision.evidence.observation.stopped_at());
    Seen { root_hangs: step == Some(Step::StatxRoot), plain_security, answered_while_hung, ..Seen::new(symptom) }
}

/// A name that moved away is worth a look for any mount, and likely to be why it hangs.
fn moved(found: &Examination, conclusion: &Conclusion) -> Option<Cause> {
    let known =
        conclusion.candidates.contains(&Cause::AddressChanged) || conclusion.cause == Some(Cause::AddressChanged);
    (found.address_moved() && conclusion.cause.is_some() && !known).then_some(Cause::AddressChanged)
}

fn moved_step(found: &Examination) -> Option<StepReport> {
    let (name, address) = (found.name.as_ref()?, found.address?);
    if !found.address_moved() {
        return None;
    }
    let asked = format!("does {} still lead to {}, which the kernel talks to?", name.name, address.ip());
    Some(StepReport::made(
        StepName::Name,
        Outcome::Failed,
        asked,
        "no: the server has moved".to_owned(),
        Duration::ZERO,
    ))
}

async fn new_address(question: &Question, asked: &Asked<'_>) -> Option<IpAddr> {
    let name = question.name.as_deref()?;
    match Resolver::default().resolve(name, asked.timeout).await {
        Resolution::Found { addresses, .. } => addresses.first().copied(),
        _ => None,
    }
}

/// The root's handle, from the kernel's memory: in a worker all the same.
async fn identify(pool: &Pool, mount: &Mount, asked: &Asked<'_>) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let root = mount.view.root(asked.proc_root).map(|root| root.as_os_str().as_bytes().to_vec());
    let place = Place {
        root: root.unwrap_or_default(),
        path: mount.mountpoint.as_os_str().as_bytes().to_vec(),
        cached_only: false,
        mount_id: mount.id,
        dev: mount.dev,
    };
    match pool.run(Job::Identify(vec![place]), "diagnose", Class::Hopeful, asked.timeout, asked.timeout).await {
        PoolOutcome::Answered(Answer::Identities(mut identities)) => {
            identities.pop().flatten().map(|identity| identity.handle).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

async fn efs_state(pool: &Pool, mount: &Mount, asked: &Asked<'_>) -> StateFiles {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    if mount.origin.proxy_port.is_none() {
        return StateFiles::default();
    }
    let root = mount.view.root(asked.proc_root).unwrap_or_else(|| "/".into());
    let job = Job::EfsState(root.join(EFS_STATE).as_os_str().as_bytes().to_vec());
    match pool.run(job, "diagnose", Class::Hopeful, asked.timeout, asked.timeout).await {
        PoolOutcome::Answered(Answer::Files(files)) => {
            StateFiles::decode(files.into_iter().map(|(name, content)| (std::ffi::OsString::from_vec(name), content)))
        }
        _ => StateFiles::default(),
    }
}
