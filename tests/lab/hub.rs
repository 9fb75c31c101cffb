//! The network cable between two guests: User-Mode Linux's `daemon` transport, as `uml_switch` speaks it. Every frame of
//! one guest goes to all others.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

/// `struct request_v3` of arch/um/drivers/daemon_user.c: magic, version, type (u32 each), a sockaddr_un, padded.
const REQUEST: usize = 124;
const MAGIC: u32 = 0xfeed_face;
/// `sizeof(struct sockaddr_un)`: the family and 108 bytes of path.
const ADDRESS: usize = 110;
const FRAME: usize = 2048;

/// A hub; its threads live as long as the program, its sockets lie in the run's directory.
pub(crate) struct Hub {
    control: PathBuf,
}

type Ports = Arc<Mutex<Vec<SocketAddr>>>;

impl Hub {
    /// Listens below `dir`, whose path has to be short.
    pub(crate) fn start(dir: &Path, name: &str) -> Result<Hub> {
        let (control, data) = (dir.join(format!("{name}.ctl")), dir.join(format!("{name}.data")));
        let listener = UnixListener::bind(&control).with_context(|| format!("listen at {}", control.display()))?;
        let socket = UnixDatagram::bind(&data).with_context(|| format!("bind {}", data.display()))?;
        let ports = Ports::default();
        let known = Arc::clone(&ports);
        std::thread::spawn(move || forward(&socket, &known));
        std::thread::spawn(move || {
            // A guest counts as plugged in for as long as its control connection is open: keep it.
            let mut plugged = Vec::new();
            for stream in listener.incoming().flatten() {
                match plug_in(stream, &data) {
                    Ok((stream, address)) => {
                        ports.lock().map(|mut ports| ports.push(address)).ok();
                        plugged.push(stream);
                    }
                    Err(error) => eprintln!("hub: {error:#}"),
                }
            }
        });
        Ok(Hub { control })
    }

    /// The kernel argument that plugs a guest in.
    pub(crate) fn argument(&self, mac: &str) -> String {
        format!("eth0=daemon,{mac},unix,{}", self.control.display())
    }
}

/// The handshake: the guest says where it wants its frames, the hub where it takes them.
fn plug_in(mut stream: UnixStream, data: &Path) -> Result<(UnixStream, SocketAddr)> {
    let mut request = [0_u8; REQUEST];
    stream.read_exact(&mut request).context("a guest's request")?;
    if request[..4] != MAGIC.to_ne_bytes() {
        bail!("a request that is none");
    }
    // An abstract address: family, a zero byte, the name in the rest.
    let address = SocketAddr::from_abstract_name(&request[12 + 3..12 + ADDRESS])?;
    let mut answer = [0_u8; ADDRESS];
    answer[..2].copy_from_slice(&1_u16.to_ne_bytes());
    let path = data.as_os_str().as_bytes();
    answer[2..2 + path.len()].copy_from_slice(path);
    stream.write_all(&answer)?;
    Ok((stream, address))
}

fn forward(socket: &UnixDatagram, ports: &Ports) {
    let mut frame = [0_u8; FRAME];
    // Sends through a socket of its own: a stopped guest's full queue must not block the others.
    let Ok(sender) = UnixDatagram::unbound() else { return };
    if sender.set_nonblocking(true).is_err() {
        return;
    }
    while let Ok((length, source)) = socket.recv_from(&mut frame) {
        let Ok(ports) = ports.lock() else { return };
        for port in ports.iter().filter(|port| port.as_abstract_name() != source.as_abstract_name()) {
            // A guest that is stopped, or gone, loses frames as any machine does.
            let _ = sender.send_to_addr(&frame[..length], port);
        }
    }
}
