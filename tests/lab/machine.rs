//! A server in a guest of its own, for what happens to whole machines.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::hub::Hub;
use crate::interrupt;
use crate::matrix::Cell;
use crate::uml::{Console, Guest, Host, Running};

const SERVER_MAC: &str = "02:00:00:00:02:01";
/// Address of the client's card on the hub.
pub(crate) const CLIENT_MAC: &str = "02:00:00:00:02:02";
/// A boot, several times slower than usual.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The running server and its cable; dropped, it is gone.
pub(crate) struct ServerMachine {
    hub: Hub,
    guest: Running,
}

impl ServerMachine {
    /// Boots the server of the cell and waits until it serves.
    pub(crate) fn start(host: &Host, cell: &Cell, out: &Path) -> Result<ServerMachine> {
        let name = format!("{}-server", cell.name);
        let hub = Hub::start(host.sockets(), &name)?;
        let out = out.join("server");
        std::fs::create_dir(&out)?;
        std::fs::write(out.join("cell.env"), &cell.environment)?;
        let guest = host.boot(&Guest {
            name: &name,
            script: "guest/server.sh",
            out: &out,
            console: Console::File,
            arguments: vec![hub.argument(SERVER_MAC)],
        })?;
        let begin = Instant::now();
        while !out.join("serving").exists() {
            if begin.elapsed() > BOOT_LIMIT || interrupt::seen() {
                bail!("the server does not come up, see {}", out.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(ServerMachine { hub, guest })
    }

    /// The kernel argument that connects another guest to it.
    pub(crate) fn cable(&self, mac: &str) -> String {
        self.hub.argument(mac)
    }

    /// Does what the client's guest asks for in the file `request` (`ask_host` in faults.sh); the file goes when it is done.
    pub(crate) fn obey(&self, out: &Path) -> Result<()> {
        let file = out.join("request");
        let Ok(request) = std::fs::read_to_string(&file) else { return Ok(()) };
        match request.trim() {
            "freeze" => self.guest.freeze(true)?,
            "thaw" => self.guest.freeze(false)?,
            other => bail!("the guest asks for `{other}`, which nobody can do"),
        }
        Ok(std::fs::remove_file(file)?)
    }
}
