//! Process groups over libtorch's c10d, for processes on one or several machines.

use std::cell::Cell;
use std::ffi::CString;
use std::ptr;
use std::rc::Rc;

use tch::{Device, Tensor};

use super::failure_report::{FAILED, FailureReporter};
use super::failure_watcher::FailureWatcher;
use super::store::Store;
use super::traffic::Traffic;
use super::{Collective, Rendezvous};
use crate::{Error, Result, ffi};

/// The connected processes of a run. Gloo transfers CPU tensors; NCCL transfers those of a CUDA
/// device after [`Self::with_cuda`] has added it.
///
/// Every process must call the same operations in the same order. Clones refer to the same group,
/// which this process leaves when the last one is dropped. Call a barrier first, because process 0
/// may serve the store.
///
/// [`Launch`](crate::Launch) determines which process this is, and [`Reducer`](crate::Reducer)
/// averages gradients during the backward pass:
///
/// ```no_run,standalone_crate
/// # fn main() -> torch_ext::Result<()> {
/// # let (named, batches): (Vec<(String, tch::Tensor)>, Vec<tch::Tensor>) = Default::default();
/// # fn loss_of(_: &tch::Tensor) -> tch::Tensor { unimplemented!() }
/// use std::time::Duration;
/// use torch_ext::{Collective, Launch, ProcessGroup, Reducer, ReducerOptions};
///
/// let launch = Launch::from_variables(&std::env::vars().collect())?;
/// let group = ProcessGroup::join(launch.rendezvous(Duration::from_secs(600)))?;
/// group.require_same(&named)?; // same parameters everywhere
/// let parameters: Vec<_> = named.iter().map(|(_, p)| p.shallow_clone()).collect();
/// group.broadcast_all(&parameters, 0)?; // with the same values
/// let reducer = Reducer::new(&group, &named, ReducerOptions::default())?;
/// reducer.zero_grad()?;
/// for (number, batch) in batches.iter().enumerate() {
///     let last = number + 1 == batches.len();
///     if last {
///         reducer.prepare_for_forward()?;
///     }
///     let loss = loss_of(batch) / batches.len() as f64;
///     if last { reducer.backward(&loss)? } else { reducer.accumulate(&loss)? }
/// }
/// // The gradients are the mean over all processes: clip them, step.
/// # Ok(())
/// # }
/// ```
///
/// If an operation fails, each process determines through the store which of the others have died,
/// have exited with a reason, or are behind, and reports them: see [`Error::Group`].
#[derive(Debug, Clone)]
pub struct ProcessGroup(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    group: *mut ffi::Group,
    watch: FailureWatcher,
    store: Store,
    prefix: String,
    rendezvous: Rendezvous,
    cuda: Cell<Option<usize>>,
}

impl ProcessGroup {
    /// Connects to the other processes; returns when all are present.
    ///
    /// # Errors
    /// Returns an error if the rank is not below the number of processes, if no store responds at
    /// the address, or if some processes did not arrive in time.
    pub fn join(rendezvous: Rendezvous) -> Result<Self> {
        if rendezvous.rank >= rendezvous.size {
            return Err(rendezvous.refused("the rank must be less than the number of processes"));
        }
        let store = rendezvous.connect()?;
        let prefix = rendezvous.wait_for_all(&store)?;
        let mut group = ptr::null_mut();
        with_member(&store, &prefix, &rendezvous, |member| {
            // SAFETY: what `member` points to outlives the call; `group` is written before it
            // returns.
            unsafe { ffi::check("connecting", ffi::simdino_group_new(member, &mut group)) }
        })
        .map_err(|error| rendezvous.failed("connecting all processes", &error))?;
        let second = rendezvous.connect_again()?;
        let reporter = FailureReporter {
            store: second,
            prefix: prefix.clone(),
            rendezvous: rendezvous.clone(),
        };
        let watch = FailureWatcher::start(reporter)?;
        let cuda = Cell::new(None);
        Ok(Self(Rc::new(Inner { group, watch, store, prefix, rendezvous, cuda })))
    }

    /// Adds NCCL for tensors on CUDA device `index`.
    ///
    /// # Errors
    /// Returns an error if this build has no NCCL, or if NCCL cannot use such a device.
    pub fn with_cuda(self, index: usize) -> Result<Self> {
        if !has_nccl() {
            return Err(Error::NcclNotBuilt);
        }
        let Inner { group, store, prefix, rendezvous, .. } = &*self.0;
        let device = i32::try_from(index).unwrap_or(i32::MAX);
        let added = with_member(store, prefix, rendezvous, |member| {
            // SAFETY: the group lives as long as `self`; what `member` points to outlives the call.
            unsafe { ffi::check("NCCL", ffi::simdino_group_add_nccl(*group, member, device)) }
        });
        match added {
            Ok(()) => {
                self.0.cuda.set(Some(index));
                Ok(self)
            }
            Err(Error::Torch { message, .. }) => {
                let message = message.lines().next().unwrap_or_default().to_owned();
                Err(Error::Nccl { index, message })
            }
            Err(other) => Err(other),
        }
    }

    /// Tells the other processes why this process exits, so that their errors can include the
    /// reason. Call it before exiting because of an error of this process; the group cannot be used
    /// afterwards.
    pub fn announce_failure(&self, reason: &str) {
        let Inner { store, prefix, rendezvous, .. } = &*self.0;
        // If the store is gone, no process can be told.
        let _ = store.set(&format!("{prefix}left/{}", rendezvous.rank), reason);
        let _ = store.set(&format!("{prefix}{FAILED}"), "");
    }

    /// Returns the sum over all processes as a differentiable function of this process's tensor:
    /// the backward pass adds the gradients of all processes' losses with respect to the sum.
    ///
    /// # Errors
    /// See [`Collective`].
    pub fn differentiable_sum(&self, tensor: &Tensor) -> Result<Tensor> {
        const WHAT: &str = "differentiable sum over all processes";
        self.check_device(WHAT, tensor.device())?;
        let mut out = ptr::null_mut();
        self.perform(WHAT, || {
            // SAFETY: group and tensor outlive the call; `out` is written before it returns.
            unsafe {
                let (group, tensor) = (self.as_ptr(), tensor.as_ptr().cast_mut());
                ffi::check(WHAT, ffi::simdino_group_differentiable_sum(group, tensor, &mut out))
            }
        })?;
        // SAFETY: without an error, this is a new tensor, and we become its only owner.
        Ok(unsafe { Tensor::from_ptr(out) })
    }

    /// Returns the calls and bytes that this process has contributed to the group's operations.
    pub fn traffic(&self) -> Traffic {
        let mut out = ffi::Traffic::default();
        // SAFETY: the group lives as long as `self`; `out` is written before the call returns.
        unsafe { ffi::simdino_group_traffic(self.as_ptr(), &mut out) };
        out.into()
    }

    /// Returns the pointer for the shim, valid while `self` or a clone of it lives.
    pub(super) fn as_ptr(&self) -> *mut ffi::Group {
        self.0.group
    }

    /// Runs an operation; if it fails, determines which process is at fault.
    pub(super) fn perform<T>(
        &self,
        what: &'static str,
        operation: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.0.watch.begin(what);
        operation().map_err(|error| match error {
            Error::Torch { message, .. } => self.blame(what, &message),
            other => other,
        })
    }

    /// Returns an error that names the process at fault.
    pub(super) fn blame(&self, what: &'static str, message: &str) -> Error {
        let (reports, own) = self.0.watch.ask();
        let who = reports.sentence(&self.0.rendezvous, &own);
        self.0.rendezvous.error(what, who, reports.gone(), message)
    }

    fn check_device(&self, what: &'static str, device: Device) -> Result<()> {
        match device {
            Device::Cpu => Ok(()),
            Device::Cuda(index) if self.0.cuda.get() == Some(index) => Ok(()),
            _ => Err(Error::GroupDevice { what, device }),
        }
    }

    fn all_reduce(&self, what: &'static str, tensor: &mut Tensor, op: i32) -> Result<()> {
        self.check_device(what, tensor.device())?;
        tch::no_grad(|| {
            let mut dense = tensor.contiguous(); // the same tensor if it is already contiguous
            self.perform(what, || {
                // SAFETY: the group lives as long as `self`, the tensor as long as this block.
                unsafe {
                    let (group, tensor) = (self.as_ptr(), dense.as_mut_ptr());
                    ffi::check(what, ffi::simdino_group_all_reduce(group, tensor, op))
                }
            })?;
            if !tensor.is_contiguous() {
                tensor.copy_(&dense);
            }
            Ok(())
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by `join`, and freed nowhere else.
        unsafe { ffi::simdino_group_free(self.group) };
    }
}

impl Collective for ProcessGroup {
    fn size(&self) -> usize {
        self.0.rendezvous.size
    }

    fn rank(&self) -> usize {
        self.0.rendezvous.rank
    }

    fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<()> {
        self.all_reduce("sum over all processes", tensor, 0)
    }

    fn all_reduce_max(&self, tensor: &mut Tensor) -> Result<()> {
        self.all_reduce("maximum over all processes", tensor, 1)
    }

    fn broadcast_all(&self, tensors: &[Tensor], root: usize) -> Result<()> {
        const WHAT: &str = "broadcast";
        for tensor in tensors {
            self.check_device(WHAT, tensor.device())?;
        }
        let pointers = ffi::pointers(tensors);
        let root = i32::try_from(root).unwrap_or(i32::MAX);
        tch::no_grad(|| {
            self.perform(WHAT, || {
                // SAFETY: the group lives as long as `self`, the tensors as long as their borrow.
                unsafe {
                    let (group, tensors) = (self.as_ptr(), pointers.as_ptr());
                    let done = ffi::simdino_group_broadcast(group, tensors, pointers.len(), root);
                    ffi::check(WHAT, done)
                }
            })
        })
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        const WHAT: &str = "gathering from all processes";
        self.check_device(WHAT, tensor.device())?;
        tch::no_grad(|| {
            let mut dense = tensor.contiguous();
            let outs: Vec<Tensor> = (0..self.size()).map(|_| dense.empty_like()).collect();
            let pointers = ffi::pointers(&outs);
            self.perform(WHAT, || {
                // SAFETY: the group lives as long as `self`, the tensors as long as this block.
                unsafe {
                    let (group, tensor) = (self.as_ptr(), dense.as_mut_ptr());
                    let (outs, len) = (pointers.as_ptr(), pointers.len());
                    ffi::check(WHAT, ffi::simdino_group_all_gather(group, tensor, outs, len))
                }
            })?;
            Ok(outs)
        })
    }

    fn barrier(&self) -> Result<()> {
        const WHAT: &str = "barrier";
        self.perform(WHAT, || {
            // SAFETY: the group lives as long as `self`.
            unsafe { ffi::check(WHAT, ffi::simdino_group_barrier(self.as_ptr())) }
        })
    }
}

/// Returns whether this build has NCCL, which requires libtorch with CUDA and the headers of both.
pub fn has_nccl() -> bool {
    // SAFETY: the function takes nothing and returns a number.
    unsafe { ffi::simdino_has_nccl() != 0 }
}

/// Calls `call` with a description of this process for the shim, valid during the call.
fn with_member<T>(
    store: &Store,
    prefix: &str,
    rendezvous: &Rendezvous,
    call: impl FnOnce(*const ffi::Member) -> Result<T>,
) -> Result<T> {
    let text = |what, text: &str| {
        let message = "it contains a NUL byte".to_owned();
        CString::new(text).map_err(|_| Error::Torch { what, message })
    };
    let prefix = text("prefix", prefix)?;
    let interface =
        rendezvous.interface.as_deref().map(|name| text("network interface", name)).transpose()?;
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    call(&ffi::Member {
        store: store.as_ptr(),
        prefix: prefix.as_ptr(),
        rank: number(rendezvous.rank),
        size: number(rendezvous.size),
        timeout_ms: i64::try_from(rendezvous.timeout.as_millis()).unwrap_or(i64::MAX),
        interface: interface.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
    })
}
