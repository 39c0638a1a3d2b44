//! Counts of the collective operations of a process.

use crate::ffi;

/// Calls of a collective operation, and the bytes of the tensors that this process passed to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Number of calls.
    pub calls: u64,
    /// Total size of the tensors in bytes. How often each byte is sent depends on the algorithm.
    pub bytes: u64,
}

/// What a process has contributed to its group so far, by kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sums and maxima over all processes, including those of gradients.
    pub reduced: Count,
    /// Broadcasts; counted in every process, although only one sends.
    pub broadcast: Count,
    /// Gathers; the bytes are those of this process's own tensors.
    pub gathered: Count,
}

impl Traffic {
    /// Returns the difference from an earlier value.
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: Count, before: Count| Count {
            calls: now.calls - before.calls,
            bytes: now.bytes - before.bytes,
        };
        Self {
            reduced: less(self.reduced, before.reduced),
            broadcast: less(self.broadcast, before.broadcast),
            gathered: less(self.gathered, before.gathered),
        }
    }
}

impl From<ffi::Traffic> for Traffic {
    fn from(given: ffi::Traffic) -> Self {
        let count = |[calls, bytes]: [u64; 2]| Count { calls, bytes };
        Self {
            reduced: count(given.reduced),
            broadcast: count(given.broadcast),
            gathered: count(given.gathered),
        }
    }
}
