//! All that can be asked about one mount, or about an export before anything is mounted, in order.
//!
//! A question that failed does not end the examination where the next one still means something. Each has the same
//! deadline, so the whole takes at most [`MOST_QUESTIONS`] of them. The answers are plain data: what they prove is for
//! [`conclude`](super::conclude).

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::dns::{Resolution, Resolver};
use super::handle::RootHandle;
use super::link::{Failure, Link, Port};
use super::mountd::{self, Exports};
use super::nfs::Attributes;
use super::nfs4::{Grace, Walk};
use super::proxy::{self, ProxyProcess};
use super::{Connect, NfsVersion, nfs3, nfs4, portmap};
use crate::mounts::Mount;
use crate::mounts::efs::EfsMount;
use crate::mounts::source::NFS_PORT;

/// Deadlines that an examination may take: name, connection, two versions, handle, path (which may be long), grace,
/// portmapper, four of mountd, name and connection behind a proxy.
pub const MOST_QUESTIONS: u32 = 13 + nfs4::MAX_COMPOUNDS;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The server's name, if it has one.
    pub name: Option<String>,
    /// The address that the kernel talks to; `None` before anything is mounted: then the first one of the name is asked.
    pub address: Option<IpAddr>,
    /// Port of NFS.
    pub port: u16,
    /// Version of the mount.
    pub version: NfsVersion,
    /// The export's path, as the client names it.
    pub export: Option<String>,
    /// What the kernel's client holds of the root.
    pub handle: Option<RootHandle>,
    /// Ask the portmapper and mountd. NFSv3 needs them to mount; an NFSv4 server may have neither, which costs two deadlines.
    pub mountd: bool,
    /// mountd's port, where the mount names it (`mountport=`).
    pub mountd_port: Option<u16>,
    /// There is a local proxy in between.
    pub proxy: Option<ProxyQuestion>,
}

/// What is known of the local proxy of an EFS mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyQuestion {
    /// Its process.
    pub pid: Option<u32>,
    /// DNS name of the mount targets behind it.
    pub target: Option<String>,
    /// Where that name led earlier. What cuts a host off takes its resolver away, too.
    pub led_to: Option<IpAddr>,
}

impl Question {
    /// What to ask about a mount; `handle` are the bytes of its root's handle, empty where it has none. `None` for anything
    /// but NFS over TCP at a known address.
    #[must_use]
    pub fn of(mount: &Mount, handle: &[u8], efs: Option<&EfsMount>) -> Option<Question> {
        let origin = &mount.origin;
        let tcp = origin.proto.as_deref().is_none_or(|proto| proto.starts_with("tcp"));
        if !mount.kind.is_some_and(crate::mounts::Kind::is_nfs) || !tcp {
            return None;
        }
        let version = NfsVersion::from_option(origin.version.as_deref().unwrap_or("4"))?;
        let name = origin.server.clone().filter(|name| name.parse::<IpAddr>().is_err());
        // A label that is not the kernel's own bytes names no directory.
        let exact = |export: &String| mount.source.to_str().is_some_and(|source| source.ends_with(export.as_str()));
        let proxy = origin.proxy_port.map(|_| ProxyQuestion {
            pid: efs.and_then(|efs| efs.pid),
            target: efs.and_then(proxy::mount_target_name),
            led_to: None,
        });
        Some(Question {
            // Behind a proxy the name is the file system's id, for people.
            name: name.filter(|_| proxy.is_none()),
            address: Some(origin.address?),
            port: origin.port.unwrap_or(NFS_PORT),
            version,
            export: origin.export.clone().filter(exact),
            handle: RootHandle::decode(handle),
            mountd: version == NfsVersion::V3,
            mountd_port: mount.super_option("mountport").and_then(|port| port.parse().ok()).filter(|port| *port != 0),
            proxy,
        })
    }

    /// What to ask about `SERVER:/EXPORT` before it is mounted.
    #[must_use]
    pub fn unmounted(server: &str, export: &str, version: NfsVersion) -> Question {
        let address = server.trim_start_matches('[').trim_end_matches(']').parse().ok();
        Question {
            name: address.is_none().then(|| server.to_owned()),
            address,
            port: NFS_PORT,
            version,
            export: Some(export.to_owned()),
            handle: None,
            mountd: version == NfsVersion::V3,
            mountd_port: None,
            proxy: None,
        }
    }
}

/// One question's answer and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check<T> {
    /// What came.
    pub answer: Result<T, Failure>,
    /// From the question to the answer, or to giving up, in microseconds.
    pub micros: u64,
}

impl<T> Check<T> {
    /// The answer, if there was one.
    #[must_use]
    pub fn ok(&self) -> Option<&T> {
        self.answer.as_ref().ok()
    }

    /// Why there was none.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.answer.as_ref().err()
    }
}

/// Where a name led, and how long that took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameCheck {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub resolution: Resolution,
    /// In microseconds.
    pub micros: u64,
}

/// What is known of the local proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyLook {
    /// Its process.
    pub process: ProxyProcess,
    /// The name of what is behind it.
    pub name: Option<NameCheck>,
    /// A connection straight to it, past the proxy.
    pub connect: Option<Check<()>>,
}

/// All answers about one mount. An absent one was not asked for: it made no sense, or what came before ruled it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// Where the server's name leads now.
    pub name: Option<NameCheck>,
    /// The address that was asked.
    pub address: Option<SocketAddr>,
    /// The mount's version of NFS.
    pub version: Option<NfsVersion>,
    /// The root's inode number as the kernel's client knows it.
    pub fileid: Option<u64>,
    /// TCP to the port of NFS.
    pub connect: Option<Check<()>>,
    /// That connection left from a port below 1024. From others a server may refuse what it serves to the kernel.
    pub privileged: Option<bool>,
    /// NULL of NFSv3.
    pub v3: Option<Check<()>>,
    /// NULL of NFSv4.
    pub v4: Option<Check<()>>,
    /// GETATTR of the handle that the kernel's client holds.
    pub root: Option<Check<Attributes>>,
    /// The export's path from the root of NFSv4.
    pub path: Option<Check<Walk>>,
    /// Whether the server is in its grace period (NFSv4).
    pub grace: Option<Check<Grace>>,
    /// mountd's port by the portmapper; inside, `None`: not registered.
    pub portmap: Option<Check<Option<u16>>>,
    /// NULL of mountd.
    pub mountd: Option<Check<()>>,
    /// The list of exports.
    pub exports: Option<Check<Exports>>,
    /// mountd lets this client mount the path.
    pub may_mount: Option<Check<()>>,
    /// mountd was asked from a port below 1024.
    pub mountd_privileged: Option<bool>,
    /// The local proxy of an EFS mount.
    pub proxy: Option<ProxyLook>,
}

impl Examination {
    /// NULL of the mount's own version.
    #[must_use]
    pub fn null(&self) -> Option<&Check<()>> {
        match self.version? {
            NfsVersion::V3 => self.v3.as_ref(),
            NfsVersion::V4 => self.v4.as_ref(),
        }
    }

    /// Where the name of what is behind the local proxy leads.
    #[must_use]
    pub fn behind_proxy(&self) -> Option<IpAddr> {
        first(self.proxy.as_ref()?.name.as_ref())
    }

    /// The server's name was resolved and no longer leads to the address that the mount talks to.
    #[must_use]
    pub fn address_moved(&self) -> bool {
        match (&self.name, self.address) {
            (Some(name), Some(address)) => name.resolution.excludes(address.ip()),
            _ => false,
        }
    }
}

/// Asks all that makes sense for this mount. Each question has `deadline`; dropping the future closes everything.
pub async fn examine(question: &Question, resolver: &Resolver, proc_root: &Path, deadline: Duration) -> Examination {
    examine_by(question, resolver, proc_root, deadline, portmap::PORT).await
}

/// With the portmapper at another port, for tests.
async fn examine_by(
    question: &Question,
    resolver: &Resolver,
    proc_root: &Path,
    deadline: Duration,
    portmap: u16,
) -> Examination {
    let mut found = Examination {
        version: Some(question.version),
        fileid: question.handle.as_ref().map(|handle| handle.fileid),
        ..Examination::default()
    };
    if let Some(name) = &question.name {
        found.name = Some(look_up(resolver, name, deadline).await);
    }
    if let Some(proxy) = &question.proxy {
        found.proxy = Some(ask_proxy(proxy, resolver, proc_root, deadline).await);
    }
    let Some(address) = question.address.or_else(|| first(found.name.as_ref())) else { return found };
    found.address = Some(SocketAddr::new(address, question.port));
    ask_nfs(question, SocketAddr::new(address, question.port), deadline, &mut found).await;
    if question.mountd {
        let portmap = Link::new(SocketAddr::new(address, portmap), Port::Ordinary, deadline);
        ask_mountd(question, address, portmap, deadline, &mut found).await;
    }
    found
}

async fn ask_nfs(question: &Question, address: SocketAddr, deadline: Duration, found: &mut Examination) {
    let mut link = Link::new(address, Port::Privileged, deadline);
    let connect = timed(link.connect()).await;
    found.privileged = link.privileged().filter(|_| connect.answer.is_ok());
    let connected = connect.answer.is_ok();
    found.connect = Some(connect);
    if !connected {
        return;
    }
    let own = timed(null(&mut link, question.version)).await;
    let spoke = own.failure().is_none_or(Failure::is_reply);
    let other = match question.version {
        NfsVersion::V3 => NfsVersion::V4,
        NfsVersion::V4 => NfsVersion::V3,
    };
    let other = if spoke { Some(timed(null(&mut link, other)).await) } else { None };
    let served = own.answer.is_ok();
    (found.v3, found.v4) = match question.version {
        NfsVersion::V3 => (Some(own), other),
        NfsVersion::V4 => (other, Some(own)),
    };
    if !served {
        return;
    }
    let handle = question.handle.as_ref().map(|handle| handle.server.as_slice());
    match question.version {
        NfsVersion::V3 => {
            if let Some(handle) = handle {
                found.root = Some(timed(nfs3::getattr(&mut link, handle)).await);
            }
        }
        NfsVersion::V4 => ask_v4(&mut link, handle, question.export.as_deref(), found).await,
    }
    // A connection made anew may have left from another port.
    found.privileged = link.privileged();
}

async fn ask_v4(link: &mut Link, handle: Option<&[u8]>, export: Option<&str>, found: &mut Examination) {
    if let Some(handle) = handle {
        found.root = Some(timed(nfs4::getattr(link, handle)).await);
        if found.root.as_ref().and_then(Check::failure).is_some_and(Failure::is_silence) {
            // Whoever does not answer for the root does not answer for the way to it; that would cost two deadlines.
            return;
        }
    }
    if let Some(export) = export {
        found.path = Some(timed(nfs4::walk(link, export.as_bytes())).await);
    }
    // By the handle that was good just now: a stale one would end the compound before the test.
    let good = found.root.as_ref().is_some_and(|root| root.answer.is_ok());
    found.grace = Some(timed(nfs4::grace(link, handle.filter(|_| good))).await);
}

async fn ask_mountd(
    question: &Question,
    address: IpAddr,
    mut portmap: Link,
    deadline: Duration,
    found: &mut Examination,
) {
    let registered = timed(portmap::port_of(&mut portmap, mountd::PROGRAM, mountd::VERSION)).await;
    // The portmapper knows where mountd is now; the mount's option is as old as the mount.
    let port = registered.ok().copied().flatten().or(question.mountd_port).unwrap_or(mountd::USUAL_PORT);
    let silent = matches!(registered.failure(), Some(Failure::Connect(Connect::Timeout | Connect::Unreachable)));
    found.portmap = Some(registered);
    let unreachable = found.connect.as_ref().is_some_and(|connect| connect.answer.is_err());
    if silent && unreachable && question.mountd_port.is_none() {
        // Two ports of the machine are silent; a third would cost a deadline to say the same.
        return;
    }
    let mut link = Link::new(SocketAddr::new(address, port), Port::Privileged, deadline);
    let alive = timed(mountd::null(&mut link)).await;
    let speaks = alive.answer.is_ok();
    found.mountd = Some(alive);
    if !speaks {
        return;
    }
    let path = question.export.as_deref().unwrap_or("/");
    found.exports = Some(timed(mountd::exports(&mut link, path)).await);
    if question.export.is_some() {
        found.may_mount = Some(timed(mountd::may_mount(&mut link, path)).await);
    }
    found.mountd_privileged = link.privileged();
}

async fn ask_proxy(proxy: &ProxyQuestion, resolver: &Resolver, proc_root: &Path, deadline: Duration) -> ProxyLook {
    let mut look = ProxyLook { process: proxy::process(proc_root, proxy.pid), name: None, connect: None };
    let Some(target) = &proxy.target else { return look };
    let name = look_up(resolver, target, deadline).await;
    let address = first(Some(&name)).or(proxy.led_to);
    look.name = Some(name);
    if let Some(address) = address {
        let mut link = Link::new(SocketAddr::new(address, NFS_PORT), Port::Ordinary, deadline);
        look.connect = Some(timed(link.connect()).await);
    }
    look
}

async fn null(link: &mut Link, version: NfsVersion) -> Result<(), Failure> {
    match version {
        NfsVersion::V3 => nfs3::null(link).await,
        NfsVersion::V4 => nfs4::null(link).await,
    }
}

async fn look_up(resolver: &Resolver, name: &str, deadline: Duration) -> NameCheck {
    let begin = Instant::now();
    let resolution = resolver.resolve(name, deadline).await;
    NameCheck { name: name.to_owned(), resolution, micros: micros(begin) }
}

fn first(name: Option<&NameCheck>) -> Option<IpAddr> {
    name?.resolution.first()
}

async fn timed<T>(question: impl Future<Output = Result<T, Failure>>) -> Check<T> {
    let begin = Instant::now();
    let answer = question.await;
    Check { answer, micros: micros(begin) }
}

fn micros(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
