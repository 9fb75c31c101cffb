//! The commands on stdin.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use crate::wire::opcode;

/// One line of stdin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The mount that it is for; all without.
    pub(crate) mount: Option<usize>,
    pub(crate) order: Order,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Behave(Behaviour),
    Held,
    Stop,
    Exit,
}

/// How requests are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub(crate) fault: Fault,
    /// The opcode that it holds for; all without.
    pub(crate) only: Option<u32>,
}

impl Behaviour {
    pub(crate) const HEALTHY: Behaviour = Behaviour { fault: Fault::None, only: None };

    /// The fault that a request with this opcode meets.
    pub(crate) fn fault_of(self, opcode: u32) -> Fault {
        if self.only.is_none_or(|only| only == opcode) { self.fault } else { Fault::None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// No answer; `interruptible`: a killed caller is let go.
    Hang {
        interruptible: bool,
    },
    Errno(i32),
    Slow(Duration),
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace().peekable();
        let mount = words.peek().and_then(|word| word.parse().ok());
        if mount.is_some() {
            words.next();
        }
        let fault = match words.next().context("an empty command")? {
            "healthy" => Fault::None,
            "hang" => Fault::Hang { interruptible: true },
            "wedge" => Fault::Hang { interruptible: false },
            "errno" => Fault::Errno(words.next().context("errno needs a number")?.parse()?),
            "slow" => Fault::Slow(Duration::from_millis(words.next().context("slow needs milliseconds")?.parse()?)),
            "held" => return Ok(Command { mount, order: Order::Held }),
            "stop" => return Ok(Command { mount, order: Order::Stop }),
            "exit" => return Ok(Command { mount, order: Order::Exit }),
            other => bail!("unknown command {other}"),
        };
        let only = words.next().map(opcode_of).transpose()?;
        if let Some(word) = words.next() {
            bail!("{word} is one word too many");
        }
        Ok(Command { mount, order: Order::Behave(Behaviour { fault, only }) })
    }
}

fn opcode_of(name: &str) -> Result<u32> {
    Ok(match name {
        "lookup" => opcode::LOOKUP,
        "getattr" => opcode::GETATTR,
        "open" => opcode::OPEN,
        "read" => opcode::READ,
        "statfs" => opcode::STATFS,
        "opendir" => opcode::OPENDIR,
        "readdir" => opcode::READDIR,
        _ => bail!("unknown operation {name}"),
    })
}
