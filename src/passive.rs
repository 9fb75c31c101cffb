//! What the kernel says by itself: its log, the states of NFS transports, the queues of FUSE connections. Bytes in, plain
//! data out; who reads them is the agent's affair ([`kernel_log`]: the agent itself, the rest: a worker).
//!
//! These signals explain verdicts and make probes due. They are a minute late on an idle mount, may be forged by who can
//! write to them, and are often closed to a container; so nothing is decided by them and nothing is missing without them.

pub mod fuse;
pub mod kernel_log;
pub mod sunrpc;
pub mod syslog;
