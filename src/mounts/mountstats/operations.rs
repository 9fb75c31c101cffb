//! What the operations of a mount cost, under a few names that hold for every protocol version.
//!
//! v4.2 has some seventy operations, v3 twenty-two. A label with all of them would be a series each, per mount; those
//! that tell one trouble from another keep their names, the rest is summed up.

use serde::{Deserialize, Serialize};

use super::{NfsStats, Op};

/// An operation, or a group of them, as a label names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// Attributes: what a probe asks for.
    Getattr,
    /// Changes of attributes, truncation among them.
    Setattr,
    /// Names looked up.
    Lookup,
    /// Permissions asked for.
    Access,
    /// v4: files opened.
    Open,
    /// v4: files closed.
    Close,
    /// Data read.
    Read,
    /// Data written.
    Write,
    /// Data made durable.
    Commit,
    /// Directories read.
    Readdir,
    /// v4: byte-range locks taken, tested and released.
    Lock,
    /// Everything else together.
    #[serde(rename = "other")]
    Other,
    /// All operations together, where there are too many mounts to tell them apart.
    #[serde(rename = "all")]
    All,
}

impl Operation {
    /// All names, in the order of the exposition.
    pub const ALL: [Operation; 13] = [
        Operation::Getattr,
        Operation::Setattr,
        Operation::Lookup,
        Operation::Access,
        Operation::Open,
        Operation::Close,
        Operation::Read,
        Operation::Write,
        Operation::Commit,
        Operation::Readdir,
        Operation::Lock,
        Operation::Other,
        Operation::All,
    ];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Getattr => "GETATTR",
            Operation::Setattr => "SETATTR",
            Operation::Lookup => "LOOKUP",
            Operation::Access => "ACCESS",
            Operation::Open => "OPEN",
            Operation::Close => "CLOSE",
            Operation::Read => "READ",
            Operation::Write => "WRITE",
            Operation::Commit => "COMMIT",
            Operation::Readdir => "READDIR",
            Operation::Lock => "LOCK",
            Operation::Other => "other",
            Operation::All => "all",
        }
    }

    /// Where the kernel's name for an operation is counted (`nfs3_procedures` in fs/nfs/nfs3xdr.c, `nfs4_procedures` in
    /// fs/nfs/nfs4xdr.c).
    #[must_use]
    pub fn of(name: &str) -> Operation {
        match name {
            "GETATTR" => Operation::Getattr,
            "SETATTR" => Operation::Setattr,
            "LOOKUP" | "LOOKUPP" | "LOOKUP_ROOT" => Operation::Lookup,
            "ACCESS" => Operation::Access,
            "OPEN" | "OPEN_CONFIRM" | "OPEN_NOATTR" | "OPEN_DOWNGRADE" => Operation::Open,
            "CLOSE" => Operation::Close,
            "READ" | "READ_PLUS" => Operation::Read,
            "WRITE" => Operation::Write,
            "COMMIT" => Operation::Commit,
            "READDIR" | "READDIRPLUS" => Operation::Readdir,
            "LOCK" | "LOCKT" | "LOCKU" => Operation::Lock,
            _ => Operation::Other,
        }
    }
}

/// What the client counted for one [`Operation`] since the superblock was mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCounters {
    /// Which.
    pub operation: Operation,
    /// Calls that came to their end.
    pub operations: u64,
    /// Transmissions beyond the first of each call.
    pub retransmissions: u64,
    /// Major timeouts (`timeo` x `retrans` passed).
    pub timeouts: u64,
    /// Calls that ended with an error, also killed ones; absent before Linux 5.3.
    pub errors: Option<u64>,
    /// Milliseconds between sending and reply.
    pub rtt_ms: u64,
    /// Milliseconds from start to end of the calls, waiting to be sent included.
    pub execute_ms: u64,
}

impl OpCounters {
    fn new(operation: Operation) -> OpCounters {
        OpCounters { operation, operations: 0, retransmissions: 0, timeouts: 0, errors: None, rtt_ms: 0, execute_ms: 0 }
    }

    fn of(op: &Op) -> OpCounters {
        OpCounters {
            operation: Operation::of(&op.name),
            operations: op.ops,
            // Both are counted when a call ends (`rpc_count_iostats_metrics`), so the difference only grows.
            retransmissions: op.transmissions.saturating_sub(op.ops),
            timeouts: op.timeouts,
            errors: op.errors,
            rtt_ms: op.rtt_ms,
            execute_ms: op.execute_ms,
        }
    }

    fn add(&mut self, other: &OpCounters) {
        self.operations = self.operations.saturating_add(other.operations);
        self.retransmissions = self.retransmissions.saturating_add(other.retransmissions);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.rtt_ms = self.rtt_ms.saturating_add(other.rtt_ms);
        self.execute_ms = self.execute_ms.saturating_add(other.execute_ms);
        if let Some(more) = other.errors {
            self.errors = Some(self.errors.unwrap_or(0).saturating_add(more));
        }
    }

    /// All of them as one, [`Operation::All`]; `None` of none.
    #[must_use]
    pub fn total(counters: &[OpCounters]) -> Option<OpCounters> {
        let mut sum = OpCounters::new(Operation::All);
        counters.iter().for_each(|one| sum.add(one));
        (!counters.is_empty()).then_some(sum)
    }
}

impl NfsStats {
    /// What was used, summed up by [`Operation`] and in its order. At most twelve rows, however many the kernel has.
    #[must_use]
    pub fn operations(&self) -> Vec<OpCounters> {
        let mut sums: Vec<OpCounters> = Vec::new();
        for op in self.ops.iter().filter(|op| op.ops > 0 || op.timeouts > 0) {
            let counters = OpCounters::of(op);
            match sums.iter_mut().find(|sum| sum.operation == counters.operation) {
                Some(sum) => sum.add(&counters),
                None => sums.push(counters),
            }
        }
        sums.sort_by_key(|sum| sum.operation);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, ops: u64, transmissions: u64) -> Op {
        Op {
            name: name.to_owned(),
            ops,
            transmissions,
            timeouts: 1,
            rtt_ms: 10,
            execute_ms: 20,
            errors: Some(2),
            ..Op::default()
        }
    }

    #[test]
    fn names_of_all_versions_meet_in_one_and_unknown_ones_are_other() {
        let ops = vec![op("READDIRPLUS", 2, 2), op("READDIR", 3, 5), op("77", 1, 1), op("FSINFO", 1, 1)];
        let stats = NfsStats { ops, ..NfsStats::default() };
        let rows = stats.operations();
        let names: Vec<_> = rows.iter().map(|row| (row.operation.as_str(), row.operations)).collect();
        assert_eq!(names, [("READDIR", 5), ("other", 2)]);
        assert_eq!((rows[0].retransmissions, rows[0].timeouts, rows[0].errors), (2, 2, Some(4)));
        assert_eq!((rows[0].rtt_ms, rows[0].execute_ms), (20, 40));
    }

    #[test]
    fn what_was_never_used_is_left_out() {
        let unused = Op { name: "READ".to_owned(), ..Op::default() };
        let stats = NfsStats { ops: vec![unused, op("GETATTR", 1, 1)], ..NfsStats::default() };
        assert_eq!(stats.operations().len(), 1);
    }

    #[test]
    fn kernels_that_count_no_errors_say_none_instead_of_zero() {
        let old = Op { errors: None, ..op("READ", 4, 4) };
        let stats =
            NfsStats { ops: vec![old.clone(), Op { name: "READ_PLUS".to_owned(), ..old }], ..NfsStats::default() };
        assert_eq!(stats.operations()[0].errors, None);
        assert_eq!(OpCounters::total(&stats.operations()).unwrap().errors, None);
    }

    #[test]
    fn a_killed_call_that_was_never_sent_is_no_negative_retransmission() {
        let stats = NfsStats { ops: vec![op("WRITE", 5, 3)], ..NfsStats::default() };
        assert_eq!(stats.operations()[0].retransmissions, 0);
    }

    #[test]
    fn the_total_holds_everything_and_of_nothing_there_is_none() {
        let stats = NfsStats { ops: vec![op("READ", u64::MAX, 1), op("WRITE", 7, 9)], ..NfsStats::default() };
        let total = OpCounters::total(&stats.operations()).unwrap();
        assert_eq!((total.operation, total.operations, total.retransmissions), (Operation::All, u64::MAX, 2));
        assert_eq!(OpCounters::total(&[]), None);
    }

    #[test]
    fn there_are_never_more_rows_than_names() {
        let ops = (0..500).map(|index| op(&index.to_string(), 1, 1)).collect();
        assert_eq!(NfsStats { ops, ..NfsStats::default() }.operations().len(), 1);
        for operation in Operation::ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.as_str());
        }
    }
}
