//! What a process gives to its group.

use crate::ffi;

/// Calls of a collective operation, and the bytes of the tensors that this process gave to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Number of calls.
    pub calls: u64,
    /// Size of the tensors, in bytes. How often each byte crosses a wire depends on the algorithm.
    pub bytes: u64,
}

/// What a process has given to its group so far, by kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sums and maxima over all processes, those of gradients included.
    pub reduced: Count,
    /// Broadcasts, which only one process sends.
    pub broadcast: Count,
    /// Gathered tensors; the bytes are those of this process.
    pub gathered: Count,
}

impl Traffic {
    /// Returns what was added since an earlier moment.
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
