//! One worker process and its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::JoinHandle;

use crate::probe::note::{Entered, Note};
use crate::probe::spawn;
use crate::probe::wire::{self, Answer, Decoder, Job, Message, Request, WireError};
use crate::probe::worker::WORKER_ARGUMENT;

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: i32,
    socket: UnixStream,
    decoder: Decoder,
    note: Note,
    seq: u64,
}

/// What a worker said.
pub(super) enum Heard {
    /// It is done.
    Done(Answer),
    /// It closed its socket.
    Ended,
}

/// How a worker broke the wire format.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breach {
    #[error("the worker's socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the worker sent nonsense: {0}")]
    Wire(#[from] WireError),
    #[error("the worker answered request {got} where {want} was asked")]
    WrongRequest { got: u64, want: u64 },
    #[error("the worker said more than its answer")]
    Excess,
}

impl Process {
    /// Starts a worker. Its standard input is its socket, its standard output where it leaves its notes; it closes
    /// everything else by itself.
    pub(super) fn start(image: &Path) -> io::Result<Process> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let note = Note::new()?;
        let socket = UnixStream::from_std(ours)?;
        let child = spawn::command(image, WORKER_ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(note.share()?))
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Process { child, pid, socket, decoder: Decoder::default(), note, seq: 0 })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// The step of the job at hand that it was in last, if it ever ran.
    pub(super) fn entered(&self) -> Option<Entered> {
        self.note.read(self.seq)
    }

    /// It is dead, and reaped.
    pub(super) fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Hands over a job.
    pub(super) async fn begin(&mut self, job: &Job) -> Result<(), Breach> {
        if !self.decoder.is_empty() {
            return Err(Breach::Excess);
        }
        self.seq += 1;
        let frame = wire::encode(&Request { seq: self.seq, job: job.clone() })?;
        self.socket.write_all(&frame).await?;
        Ok(())
    }

    /// The next thing the worker says about the job at hand. Safe to drop at any await.
    pub(super) async fn hear(&mut self) -> Result<Heard, Breach> {
        loop {
            match self.decoder.take::<Message>()? {
                Some(Message::Ready) if self.seq == 1 => continue,
                Some(Message::Ready) => return Err(Breach::Excess),
                Some(Message::Done { seq, answer }) => {
                    self.expect(seq)?;
                    // The worker answers once and then waits: anything behind the answer is a breach.
                    return if self.decoder.is_empty() { Ok(Heard::Done(answer)) } else { Err(Breach::Excess) };
                }
                None => {}
            }
            let mut chunk = [0; 4096];
            let count = match self.socket.read(&mut chunk).await {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                return Ok(Heard::Ended);
            }
            self.decoder.push(chunk.get(..count).unwrap_or_default());
        }
    }

    fn expect(&self, got: u64) -> Result<(), Breach> {
        if got == self.seq { Ok(()) } else { Err(Breach::WrongRequest { got, want: self.seq }) }
    }

    /// Lets a healthy worker end by closing its socket, and reaps it.
    pub(super) fn end(self) {
        let Process { mut child, socket, .. } = self;
        drop(socket);
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
    }

    /// Sends SIGKILL and reaps the process when the kernel lets it go, which may be never.
    pub(super) fn kill_and_reap(self, then: Option<Box<dyn FnOnce() + Send>>) -> JoinHandle<()> {
        let Process { mut child, socket, .. } = self;
        // Fails only when it is dead already.
        let _ = child.start_kill();
        drop(socket);
        tokio::spawn(async move {
            // Fails only when there is no such child any more.
            let _ = child.wait().await;
            if let Some(then) = then {
                then();
            }
        })
    }
}
