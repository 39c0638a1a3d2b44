//! Copies from the host to a device that overlap with computation, from reused page-locked memory
//! and on a separate stream. Without a GPU, the same interface uses ordinary memory and copies
//! immediately.

use std::ffi::c_int;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

use crate::{Result, ffi};

/// Up to this number of bytes, sizes are rounded up to powers of two, so that buffers of slightly
/// different sizes share memory.
const SMALL: usize = 1 << 20;
/// Number of size classes between consecutive powers of two above [`SMALL`].
const STEPS: usize = 8;

/// Returns the number of bytes to allocate for `len` bytes. It takes few distinct values, because a
/// pool never frees memory.
fn capacity(len: usize) -> usize {
    if len <= SMALL {
        return len.next_power_of_two();
    }
    len.next_multiple_of((len / STEPS + 1).next_power_of_two() / 2)
}

/// Pool of host memory for copies to one device. Clones share it. Buffers return to the pool when
/// they are dropped, so for each size class, it holds the most memory ever in use at once.
#[derive(Clone)]
pub struct HostPool(Arc<Shared>);

struct Shared {
    page_locked: bool,
    free: Mutex<Vec<Piece>>,
}

/// A piece of memory, and the completion of the last copy from it.
struct Piece {
    memory: Tensor,
    /// `None` before the first copy. Events are reused, so that only the sending thread creates
    /// them: creating or freeing one on another thread would initialize the first device there.
    copied: Option<Event>,
}

/// A buffer of a [`HostPool`], which returns to the pool when dropped.
pub struct HostBuffer {
    piece: Piece,
    len: usize,
    pool: Arc<Shared>,
}

impl HostPool {
    /// Creates an empty pool of page-locked memory for a CUDA device, or of ordinary memory for the
    /// CPU.
    ///
    /// # Errors
    /// Returns an error if the device is neither a CPU nor a CUDA device.
    pub fn new(device: Device) -> Result<Self> {
        let page_locked = ffi::cuda_index("copy to a device", device)? >= 0;
        Ok(Self(Arc::new(Shared { page_locked, free: Mutex::new(Vec::new()) })))
    }

    /// Returns a buffer of `len` bytes with unspecified content. If all free buffers of this size
    /// are still being copied, it waits for the one that was returned first instead of allocating
    /// more memory.
    ///
    /// # Errors
    /// Returns an error if no memory can be page-locked.
    pub fn take(&self, len: usize) -> Result<HostBuffer> {
        let capacity = capacity(len);
        let found = {
            let mut free = self.0.free();
            let fits = |piece: &Piece| piece.memory.numel() == capacity;
            let done = free.iter().position(|piece| fits(piece) && piece.is_done());
            done.or_else(|| free.iter().position(fits)).map(|place| free.remove(place))
        };
        let piece = match found {
            Some(piece) => {
                piece.copied.as_ref().map_or(Ok(()), Event::wait)?;
                piece
            }
            None => Piece { memory: self.0.allocate(capacity)?, copied: None },
        };
        Ok(HostBuffer { piece, len, pool: Arc::clone(&self.0) })
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate(&self, bytes: usize) -> Result<Tensor> {
        let len = bytes as i64;
        if !self.page_locked {
            return Ok(Tensor::f_zeros([len], (Kind::Uint8, Device::Cpu))?);
        }
        let mut memory = ptr::null_mut();
        // SAFETY: the shim writes a tensor that is ours, or returns a message.
        unsafe {
            ffi::check("page-lock memory", ffi::simdino_pinned_bytes(len, &mut memory))?;
            Ok(Tensor::from_ptr(memory))
        }
    }
}

impl Piece {
    /// Returns whether no copy from this memory is running. If the event cannot be queried, returns
    /// `false`, so that the caller waits for it.
    fn is_done(&self) -> bool {
        self.copied.as_ref().is_none_or(|copied| copied.is_done().unwrap_or(false))
    }
}

impl HostBuffer {
    fn start(&self) -> *mut u8 {
        // The data pointer of an empty tensor may be null, which slices do not allow.
        if self.len > 0 { self.piece.memory.data_ptr().cast() } else { ptr::dangling_mut() }
    }
}

impl AsRef<[u8]> for HostBuffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the piece has at least `len` bytes, which were initialized when it was allocated.
        // This buffer alone owns it, and all copies from it have completed.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl AsMut<[u8]> for HostBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let (memory, copied) = (self.piece.memory.shallow_clone(), self.piece.copied.take());
        self.pool.free().push(Piece { memory, copied });
    }
}

/// Copies buffers to one device.
pub struct Uploader {
    device: Device,
    /// `None` if the device is the CPU.
    stream: Option<Stream>,
}

impl Uploader {
    /// Creates an uploader for copies to `device`.
    ///
    /// # Errors
    /// Returns an error if the device does not exist.
    pub fn new(device: Device) -> Result<Self> {
        let stream = match ffi::cuda_index("copy to a device", device)? {
            index if index < 0 => None,
            index => Some(Stream::new(index)?),
        };
        Ok(Self { device, stream })
    }

    /// Returns the device that this uploader copies to.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Starts copying a buffer that holds a tensor of this data type and shape in row-major order.
    /// Does not wait for a GPU; if the device is the CPU, the copy is complete on return.
    ///
    /// # Errors
    /// Returns an error if the number of bytes does not match the shape, or if the device has no
    /// memory for them.
    pub fn send(&self, mut buffer: HostBuffer, kind: Kind, shape: &[i64]) -> Result<Upload> {
        if kind == Kind::Bool {
            buffer.as_mut().iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        let bytes = buffer.piece.memory.f_narrow(0, 0, buffer.len as i64)?;
        let sent = match &self.stream {
            Some(stream) => stream.upload(&bytes, &mut buffer.piece.copied)?,
            None => {
                let mut copy = bytes.f_empty_like()?;
                copy.f_copy_(&bytes)?;
                copy
            }
        };
        Ok(Upload { tensor: sent.f_view_dtype(kind)?.f_view(shape)?, buffer })
    }
}

/// A tensor that is being copied to a device. It may be dropped before the copy has completed.
pub struct Upload {
    tensor: Tensor,
    buffer: HostBuffer,
}

impl Upload {
    /// Returns the tensor, for use by work that this thread launches from now on. That work waits
    /// for the copy on the device; the thread does not wait.
    ///
    /// # Errors
    /// Returns an error if the device is lost.
    pub fn receive(self) -> Result<Tensor> {
        if let Some(copied) = &self.buffer.piece.copied {
            copied.join(&self.tensor)?;
        }
        Ok(self.tensor)
    }
}

/// A stream of a CUDA device.
struct Stream(*mut ffi::Stream);

// SAFETY: the handle identifies a stream and has no thread-local state.
unsafe impl Send for Stream {}

impl Stream {
    fn new(index: c_int) -> Result<Self> {
        let mut stream = ptr::null_mut();
        // SAFETY: the shim writes a stream that is ours, or returns a message.
        unsafe { ffi::check("copy to a device", ffi::simdino_stream_new(index, &mut stream))? };
        Ok(Self(stream))
    }

    /// Starts a copy to the device, and sets `copied` to its completion.
    fn upload(&self, host: &Tensor, copied: &mut Option<Event>) -> Result<Tensor> {
        let mut event = copied.as_ref().map_or(ptr::null_mut(), |event| event.0);
        let (host, mut tensor) = (host.as_ptr().cast_mut(), ptr::null_mut());
        // SAFETY: the stream and tensor are alive, and the event is alive or null. If it is null,
        // the shim writes a new one that we own. The caller prevents writes to `host` before the
        // event.
        let message = unsafe { ffi::simdino_stream_upload(self.0, host, &mut tensor, &mut event) };
        if copied.is_none() && !event.is_null() {
            *copied = Some(Event(event));
        }
        // SAFETY: the shim just returned `message`; without an error, the tensor is new and ours.
        unsafe {
            ffi::check("copy to a device", message)?;
            Ok(Tensor::from_ptr(tensor))
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { ffi::simdino_stream_free(self.0) }
    }
}

/// The completion of a copy.
struct Event(*mut ffi::Event);

// SAFETY: an event may be used from any thread, and from only one at a time, since it is not
// `Sync`.
unsafe impl Send for Event {}

impl Event {
    fn is_done(&self) -> Result<bool> {
        let mut done = 0;
        // SAFETY: the event is alive, and `done` is written before the call returns.
        unsafe { ffi::check("look after a copy", ffi::simdino_event_done(self.0, &mut done))? };
        Ok(done != 0)
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        unsafe { ffi::check("wait for a copy", ffi::simdino_event_wait(self.0)) }
    }

    fn join(&self, tensor: &Tensor) -> Result<()> {
        // SAFETY: event and tensor are alive.
        unsafe {
            let message = ffi::simdino_event_join(self.0, tensor.as_ptr().cast_mut());
            ffi::check("wait for a copy", message)
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::simdino_event_free(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sizes_share_memory_and_waste_little() {
        let mut all: Vec<usize> = (1..40_000).map(|i| capacity(i * 7919)).collect();
        for (i, &capacity) in (1..40_000).zip(&all) {
            let len = i * 7919;
            assert!(capacity >= len && (len <= SMALL || capacity <= len + len / STEPS), "{len}");
        }
        all.dedup();
        assert!(all.len() < 100, "{}", all.len());
        assert!(all.is_sorted());
    }
}
