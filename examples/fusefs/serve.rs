//! One mounted filesystem: a root directory with entries `dir-0`, `file-1`, `dir-2`, ...

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;

use crate::control::{Behaviour, Fault};
use crate::wire::{Attr, Body, MAX_WRITE, ROOT, Request, error_frame, opcode};

const CONTENT: &[u8] = b"content of a test file\n";

/// A connection to the kernel and what it serves.
pub(crate) struct Filesystem {
    device: File,
    entries: u64,
    owner: u32,
    /// Seconds for which the kernel may keep names and attributes.
    valid: u64,
    state: Mutex<State>,
}

struct State {
    behaviour: Behaviour,
    /// Requests that a hang holds back.
    held: Vec<Request>,
}

impl Filesystem {
    pub(crate) fn new(device: File, entries: u64, owner: u32, valid: u64) -> Self {
        let state = State { behaviour: Behaviour::HEALTHY, held: Vec::new() };
        Filesystem { device, entries, owner, valid, state: Mutex::new(state) }
    }

    /// Changes the behaviour and lets everything that was held back meet the new one.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        let mut state = self.state();
        state.behaviour = behaviour;
        let held = std::mem::take(&mut state.held);
        drop(state);
        for request in held {
            self.handle(request);
        }
    }

    /// How many requests a hang holds back.
    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Answers the first request, which is INIT: until then the kernel lets no caller in, and a hang would not be one.
    pub(crate) fn greet(&self) -> io::Result<()> {
        self.serve_one(&mut request_buffer())
    }

    /// Answers requests until the filesystem is unmounted.
    pub(crate) fn serve(&self) {
        let mut buffer = request_buffer();
        loop {
            match self.serve_one(&mut buffer) {
                Ok(()) => {}
                // ENOENT: the request was taken back before it was read.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)) => {}
                // ENODEV: unmounted. Nothing else is expected, and nothing could be done.
                Err(_) => return,
            }
        }
    }

    fn serve_one(&self, buffer: &mut [u8]) -> io::Result<()> {
        let length = (&self.device).read(buffer)?;
        if let Some(request) = buffer.get(..length).and_then(Request::parse) {
            self.dispatch(request);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, request: Request) {
        match request.opcode {
            opcode::INIT => self.reply(&Body::init().frame(request.unique)),
            // The kernel waits for no reply to these.
            opcode::FORGET | opcode::BATCH_FORGET => {}
            opcode::INTERRUPT => self.interrupt(&request),
            _ => self.handle(request),
        }
    }

    fn handle(&self, request: Request) {
        let mut state = self.state();
        let fault = state.behaviour.fault_of(request.opcode);
        if let Fault::Hang { .. } = fault {
            state.held.push(request);
            return;
        }
        drop(state);
        match fault {
            Fault::Errno(errno) => return self.reply(&error_frame(request.unique, errno)),
            Fault::Slow(delay) => thread::sleep(delay),
            Fault::None | Fault::Hang { .. } => {}
        }
        let answer = self.answer(&request).map(|body| body.frame(request.unique));
        self.reply(&answer.unwrap_or_else(|errno| error_frame(request.unique, errno as i32)));
    }

    /// The caller of a request was signalled. Without an answer a killed one stays in D.
    fn interrupt(&self, interrupt: &Request) {
        let mut state = self.state();
        if state.behaviour.fault == (Fault::Hang { interruptible: false }) {
            return;
        }
        let Some(index) = state.held.iter().position(|held| Some(held.unique) == interrupt.interrupted()) else {
            return;
        };
        let held = state.held.swap_remove(index);
        drop(state);
        self.reply(&error_frame(held.unique, libc::EINTR));
    }

    fn reply(&self, frame: &[u8]) {
        // It fails when the request was aborted meanwhile: then nobody waits for it.
        let _ = (&self.device).write_all(frame);
    }

    fn answer(&self, request: &Request) -> Result<Body, Errno> {
        match request.opcode {
            opcode::GETATTR => {
                self.attr(request.node).map(|attr| Body::attr_out(attr, self.valid)).ok_or(Errno::ENOENT)
            }
            opcode::LOOKUP => {
                let found = (request.node == ROOT).then(|| self.children().find(|(_, name)| name == request.name()));
                let (attr, _) = found.flatten().ok_or(Errno::ENOENT)?;
                Ok(Body::entry_out(attr, self.valid))
            }
            opcode::OPEN | opcode::OPENDIR => Ok(Body::open_out()),
            opcode::READDIR => Ok(self.list(request)),
            opcode::READ => {
                let (offset, size) = request.range();
                let rest = usize::try_from(offset).ok().and_then(|offset| CONTENT.get(offset..)).unwrap_or_default();
                Ok(Body::default().bytes(rest.get(..size).unwrap_or(rest)))
            }
            opcode::STATFS => Ok(Body::statfs()),
            opcode::RELEASE | opcode::RELEASEDIR | opcode::FLUSH | opcode::DESTROY => Ok(Body::default()),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn list(&self, request: &Request) -> Body {
        let (offset, limit) = request.range();
        let children = (request.node == ROOT).then(|| self.children()).into_iter().flatten();
        let wanted = (1..).zip(children).filter(|(next, _)| *next > offset);
        let body = wanted
            .into_iter()
            .try_fold(Body::default(), |body, (next, (attr, name))| body.dirent(limit, next, attr, &name));
        body.unwrap_or_else(|full| full)
    }

    /// Entries of the root directory with their names.
    fn children(&self) -> impl Iterator<Item = (Attr, Vec<u8>)> {
        (0..self.entries).filter_map(|number| {
            let attr = self.attr(ROOT + 1 + number)?;
            let kind = if number.is_multiple_of(2) { "dir" } else { "file" };
            Some((attr, format!("{kind}-{number}").into_bytes()))
        })
    }

    fn attr(&self, node: u64) -> Option<Attr> {
        let number = node.checked_sub(ROOT)?;
        if number > self.entries {
            return None;
        }
        // The root is 0, the entries count from 1: directories have the odd numbers.
        let directory = number == 0 || !number.is_multiple_of(2);
        let (mode, links, size) = if directory { (0o40_755, 2, 4096) } else { (0o100_644, 1, CONTENT.len()) };
        Some(Attr { node, mode, links, size: u64::try_from(size).ok()?, owner: self.owner })
    }
}

fn request_buffer() -> Vec<u8> {
    vec![0; usize::try_from(MAX_WRITE * 2).unwrap_or_default()]
}
