//! Process groups: the processes of a run on one or several machines, over libtorch's c10d.

use std::ffi::CString;
use std::time::Duration;

use tch::{Device, Tensor};

use crate::collective::Collective;
use crate::{Error, Result, ffi};

/// Where the processes of a run meet, and which of them this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Name or address of the machine of process 0.
    pub host: String,
    /// Port that process 0 listens on.
    pub port: u16,
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Longest wait for the others, at the start and in each operation.
    pub timeout: Duration,
}

/// The processes of a run, connected. Tensors of the CPU travel by Gloo.
///
/// Every process must call the same operations in the same order. Dropping it leaves the group.
#[derive(Debug)]
pub struct ProcessGroup {
    group: *mut ffi::Group,
    meeting: Meeting,
}

impl ProcessGroup {
    /// Meets the others; returns when all are there.
    ///
    /// # Errors
    /// A rank beyond the number of processes; nobody at that address, or not everybody in time.
    pub fn join(meeting: Meeting) -> Result<Self> {
        const WHAT: &str = "the meeting of all processes";
        let mut group = std::ptr::null_mut();
        let refuse = |message: &str| group_error(WHAT, &meeting, message);
        if meeting.rank >= meeting.size {
            return Err(refuse("ranks go from 0 to one less than the number of processes"));
        }
        let host = CString::new(meeting.host.as_str());
        let host = host.map_err(|_| refuse("the host's name holds a zero byte"))?;
        let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let c_meeting = ffi::Meeting {
            host: host.as_ptr(),
            port: meeting.port,
            hosts: i32::from(meeting.rank == 0),
            rank: number(meeting.rank),
            size: number(meeting.size),
            timeout_ms: i64::try_from(meeting.timeout.as_millis()).unwrap_or(i64::MAX),
        };
        // SAFETY: the meeting and its host outlive the call; `group` is written before it returns.
        let joined = unsafe { ffi::check(WHAT, ffi::simdino_group_new(&c_meeting, &mut group)) };
        joined.map_err(|error| told(error, &meeting))?;
        Ok(Self { group, meeting })
    }

    /// Replaces the tensor by that of process `root`.
    ///
    /// # Errors
    /// As [`Collective::all_reduce_sum`].
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<()> {
        let root = i32::try_from(root).unwrap_or(i32::MAX);
        self.on_contiguous("broadcast", tensor, |tensor| {
            // SAFETY: the group lives as long as `self`, the tensor as long as its borrow.
            unsafe { ffi::simdino_group_broadcast(self.group, tensor.as_mut_ptr(), root) }
        })
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// As [`Collective::all_reduce_sum`].
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group lives as long as `self`.
        let done = unsafe { ffi::check("barrier", ffi::simdino_group_barrier(self.group)) };
        done.map_err(|error| told(error, &self.meeting))
    }

    fn all_reduce(&self, what: &'static str, tensor: &mut Tensor, op: i32) -> Result<()> {
        self.on_contiguous(what, tensor, |tensor| {
            // SAFETY: the group lives as long as `self`, the tensor as long as its borrow.
            unsafe { ffi::simdino_group_all_reduce(self.group, tensor.as_mut_ptr(), op) }
        })
    }

    /// Runs an operation in place, through a copy where the tensor has gaps.
    fn on_contiguous(
        &self,
        what: &'static str,
        tensor: &mut Tensor,
        operation: impl FnOnce(&mut Tensor) -> ffi::Message,
    ) -> Result<()> {
        let device = tensor.device();
        if device != Device::Cpu {
            return Err(Error::GroupDevice { what, device });
        }
        tch::no_grad(|| {
            let mut dense = tensor.contiguous();
            // SAFETY: the message was returned on this thread by the call just made.
            let done = unsafe { ffi::check(what, operation(&mut dense)) };
            done.map_err(|error| told(error, &self.meeting))?;
            if !tensor.is_contiguous() {
                tensor.copy_(&dense);
            }
            Ok(())
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by `join`, and freed nowhere else.
        unsafe { ffi::simdino_group_free(self.group) };
    }
}

impl Collective for ProcessGroup {
    fn size(&self) -> usize {
        self.meeting.size
    }

    fn rank(&self) -> usize {
        self.meeting.rank
    }

    fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<()> {
        self.all_reduce("sum over all processes", tensor, 0)
    }

    fn all_reduce_max(&self, tensor: &mut Tensor) -> Result<()> {
        self.all_reduce("maximum over all processes", tensor, 1)
    }
}

fn group_error(what: &'static str, meeting: &Meeting, message: &str) -> Error {
    let Meeting { host, port, rank, size, .. } = meeting;
    let address = format!("{host}:{port}");
    // libtorch's messages have advice for its own developers on further lines.
    let message = message.lines().next().unwrap_or_default().to_owned();
    Error::Group { what, rank: *rank, size: *size, address, message }
}

/// An error of the shim with the process it happened in.
fn told(error: Error, meeting: &Meeting) -> Error {
    match error {
        Error::Torch { what, message } => group_error(what, meeting, &message),
        other => other,
    }
}
