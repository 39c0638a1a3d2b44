//! Declarations of `cpp/shim.h`, and the conversion of its messages to errors.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result};

/// Null, or a message in a thread-local buffer, valid until this thread's next call into the shim.
pub(crate) type Message = *const c_char;

/// Mirrors `SimdinoAdamW` of the shim.
#[repr(C)]
pub(crate) struct AdamW {
    pub params: *const *mut C_tensor,
    pub grads: *const *mut C_tensor,
    pub exp_avgs: *const *mut C_tensor,
    pub exp_avg_sqs: *const *mut C_tensor,
    pub steps: *const *mut C_tensor,
    pub len: usize,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
}

/// Mirrors `SimdinoAutocast` of the shim.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Autocast {
    pub enabled: i32,
    pub dtype: i32,
}

/// Mirrors `SimdinoBody` of the shim.
#[repr(C)]
pub(crate) struct Body {
    pub data: *mut c_void,
    pub call: extern "C" fn(*mut c_void, *mut C_tensor, c_int, *mut *mut C_tensor) -> Message,
    pub drop: extern "C" fn(*mut c_void),
}

/// Mirrors `SimdinoAddNorm` of the shim.
#[repr(C)]
pub(crate) struct AddNorm {
    pub x: *mut C_tensor,
    pub output: *mut C_tensor,
    pub bias: *mut C_tensor,
    pub gamma: *mut C_tensor,
    pub factor: *mut C_tensor,
    pub places: *mut C_tensor,
    pub weight: *mut C_tensor,
    pub shift: *mut C_tensor,
    pub selected_places: *mut C_tensor,
    pub eps: f64,
    pub selected: i64,
    pub kind: i32,
}

/// Mirrors `SimdinoMemory` of the shim.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Memory {
    pub allocated: u64,
    pub reserved: u64,
    pub peak_allocated: u64,
    pub free: u64,
    pub total: u64,
}

/// Mirrors `SimdinoMember` of the shim.
#[repr(C)]
pub(crate) struct Member {
    pub store: *mut Store,
    pub prefix: *const c_char,
    pub rank: i32,
    pub size: i32,
    pub timeout_ms: i64,
    pub interface: *const c_char,
}

/// Mirrors `SimdinoReducerSpec` of the shim.
#[repr(C)]
pub(crate) struct ReducerSpec {
    pub params: *const *mut C_tensor,
    pub names: *const *const c_char,
    pub len: usize,
    pub bucket_bytes: i64,
    pub find_unused: i32,
}

/// `SimdinoStream` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Stream {
    _private: [u8; 0],
}

/// `SimdinoEvent` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Event {
    _private: [u8; 0],
}

/// `SimdinoGraph` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Graph {
    _private: [u8; 0],
}

/// `SimdinoStore` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Store {
    _private: [u8; 0],
}

/// `SimdinoGroup` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Group {
    _private: [u8; 0],
}

/// `SimdinoReducer` of the shim, opaque to Rust.
#[repr(C)]
pub(crate) struct Reducer {
    _private: [u8; 0],
}

/// Mirrors `SimdinoTraffic` of the shim, with each count as `[calls, bytes]`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Traffic {
    pub reduced: [u64; 2],
    pub broadcast: [u64; 2],
    pub gathered: [u64; 2],
}

unsafe extern "C" {
    pub(crate) fn simdino_torch_version() -> *const c_char;
    pub(crate) fn simdino_cuda_version(out: *mut i64) -> Message;
    pub(crate) fn simdino_cuda_set_device(index: c_int) -> Message;
    pub(crate) fn simdino_cuda_name(index: c_int, out: *mut c_char, size: usize) -> Message;
    pub(crate) fn simdino_foreach_lerp(
        targets: *const *mut C_tensor,
        sources: *const *mut C_tensor,
        len: usize,
        weight: f64,
    ) -> Message;
    pub(crate) fn simdino_foreach_norm(
        tensors: *const *mut C_tensor,
        len: usize,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_drop_gradients(tensors: *const *mut C_tensor, len: usize) -> Message;
    pub(crate) fn simdino_foreach_mul(
        tensors: *const *mut C_tensor,
        factors: *const f64,
        len: usize,
    ) -> Message;
    pub(crate) fn simdino_graph_begin(
        inputs: *const *mut C_tensor,
        len: usize,
        out: *mut *mut Graph,
        recorded: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_graph_end(
        graph: *mut Graph,
        outputs: *const *mut C_tensor,
        outputs_len: usize,
        params: *const *mut C_tensor,
        params_len: usize,
        constants: *const *mut C_tensor,
        constants_len: usize,
    ) -> Message;
    pub(crate) fn simdino_graph_replay(
        graph: *mut Graph,
        inputs: *const *mut C_tensor,
        len: usize,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_graph_free(graph: *mut Graph);
    pub(crate) fn simdino_fused_adamw(step: *const AdamW) -> Message;
    pub(crate) fn simdino_set_deterministic(on: c_int) -> Message;
    pub(crate) fn simdino_is_deterministic() -> c_int;
    pub(crate) fn simdino_set_tf32(allowed: c_int, before: *mut c_int) -> Message;
    pub(crate) fn simdino_tf32(out: *mut c_int) -> Message;
    pub(crate) fn simdino_manual_seed(seed: u64) -> Message;
    pub(crate) fn simdino_rng_state(cuda_index: c_int, out: *mut *mut C_tensor) -> Message;
    pub(crate) fn simdino_set_rng_state(cuda_index: c_int, state: *mut C_tensor) -> Message;
    pub(crate) fn simdino_autocast_state(cuda: c_int, now: *mut Autocast) -> Message;
    pub(crate) fn simdino_autocast_enter(
        cuda: c_int,
        dtype: c_int,
        before: *mut Autocast,
    ) -> Message;
    pub(crate) fn simdino_autocast_exit(cuda: c_int, before: *const Autocast) -> Message;
    pub(crate) fn simdino_checkpoint(
        x: *mut C_tensor,
        params: *const *mut C_tensor,
        len: usize,
        body: *const Body,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_fused_why_not(cuda_index: c_int, dim: i64) -> Message;
    pub(crate) fn simdino_fused_add_norm(
        arguments: *const AddNorm,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_fused_bias_gelu(
        x: *mut C_tensor,
        bias: *mut C_tensor,
        dim: i64,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_fused_split_heads(
        qkv: *mut C_tensor,
        bias: *mut C_tensor,
        heads: i64,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_fused_attention_why_not(
        cuda_index: c_int,
        tokens: i64,
        width: i64,
    ) -> Message;
    pub(crate) fn simdino_fused_attention(
        qkv: *mut C_tensor,
        bias: *mut C_tensor,
        heads: i64,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_fused_linear_why_not(
        cuda_index: c_int,
        tokens: i64,
        outputs: i64,
        inputs: i64,
    ) -> Message;
    pub(crate) fn simdino_fused_linear(
        x: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_cpu_attention(
        q: *mut C_tensor,
        k: *mut C_tensor,
        v: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_in_parallel(
        count: i64,
        work: unsafe extern "C" fn(*const c_void, i64),
        data: *const c_void,
    ) -> Message;
    pub(crate) fn simdino_cuda_memory(index: c_int, out: *mut Memory) -> Message;
    pub(crate) fn simdino_cuda_reset_peak(index: c_int) -> Message;
    pub(crate) fn simdino_stream_new(index: c_int, out: *mut *mut Stream) -> Message;
    pub(crate) fn simdino_stream_free(stream: *mut Stream);
    pub(crate) fn simdino_pinned_bytes(len: i64, out: *mut *mut C_tensor) -> Message;
    pub(crate) fn simdino_event_free(event: *mut Event);
    pub(crate) fn simdino_stream_upload(
        stream: *mut Stream,
        host: *mut C_tensor,
        out: *mut *mut C_tensor,
        made: *mut *mut Event,
    ) -> Message;
    pub(crate) fn simdino_event_done(event: *mut Event, out: *mut c_int) -> Message;
    pub(crate) fn simdino_event_wait(event: *mut Event) -> Message;
    pub(crate) fn simdino_event_join(event: *mut Event, tensor: *mut C_tensor) -> Message;
    pub(crate) fn simdino_profiler_start(cuda: c_int) -> Message;
    pub(crate) fn simdino_profiler_stop(path: *const c_char) -> Message;
    pub(crate) fn simdino_store_new(
        host: *const c_char,
        port: u16,
        serves: c_int,
        timeout_ms: i64,
        out: *mut *mut Store,
    ) -> Message;
    pub(crate) fn simdino_store_free(store: *mut Store);
    fn simdino_store_greeting(nonce: u32, out: *mut u8);
    pub(crate) fn simdino_store_set(
        store: *mut Store,
        key: *const c_char,
        data: *const u8,
        len: usize,
    ) -> Message;
    pub(crate) fn simdino_store_get(
        store: *mut Store,
        key: *const c_char,
        data: *mut *const u8,
        len: *mut usize,
    ) -> Message;
    pub(crate) fn simdino_store_add(
        store: *mut Store,
        key: *const c_char,
        amount: i64,
        out: *mut i64,
    ) -> Message;
    pub(crate) fn simdino_store_has(
        store: *mut Store,
        key: *const c_char,
        out: *mut c_int,
    ) -> Message;
    pub(crate) fn simdino_group_new(member: *const Member, out: *mut *mut Group) -> Message;
    pub(crate) fn simdino_group_free(group: *mut Group);
    pub(crate) fn simdino_group_add_nccl(
        group: *mut Group,
        member: *const Member,
        cuda_index: c_int,
    ) -> Message;
    pub(crate) fn simdino_group_all_reduce(
        group: *mut Group,
        t: *mut C_tensor,
        op: c_int,
    ) -> Message;
    pub(crate) fn simdino_group_broadcast(
        group: *mut Group,
        tensors: *const *mut C_tensor,
        len: usize,
        root: c_int,
    ) -> Message;
    pub(crate) fn simdino_group_all_gather(
        group: *mut Group,
        t: *mut C_tensor,
        outs: *const *mut C_tensor,
        len: usize,
    ) -> Message;
    pub(crate) fn simdino_group_traffic(group: *const Group, out: *mut Traffic);
    pub(crate) fn simdino_group_barrier(group: *mut Group) -> Message;
    pub(crate) fn simdino_group_differentiable_sum(
        group: *mut Group,
        t: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn simdino_reducer_new(
        group: *mut Group,
        spec: *const ReducerSpec,
        out: *mut *mut Reducer,
    ) -> Message;
    pub(crate) fn simdino_reducer_free(reducer: *mut Reducer);
    pub(crate) fn simdino_reducer_prepare_forward(reducer: *mut Reducer) -> Message;
    pub(crate) fn simdino_reducer_prepare_backward(
        reducer: *mut Reducer,
        outputs: *const *mut C_tensor,
        len: usize,
    ) -> Message;
    pub(crate) fn simdino_reducer_unused(reducer: *mut Reducer, unused: *mut c_int) -> Message;
    pub(crate) fn simdino_reducer_zero_grad(reducer: *mut Reducer) -> Message;
    pub(crate) fn simdino_has_nccl() -> c_int;
}

/// Returns the first message of a client to a store, which responds with the bytes of `nonce`.
pub(crate) fn store_greeting(nonce: u32) -> [u8; 10] {
    let mut greeting = [0; 10];
    // SAFETY: the shim writes ten bytes.
    unsafe { simdino_store_greeting(nonce, greeting.as_mut_ptr()) };
    greeting
}

/// Converts the return value of a shim function to a result, copying the message.
///
/// # Safety
/// `message` must be the value that a function of the shim has just returned on this thread.
pub(crate) unsafe fn check(what: &'static str, message: Message) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, hence a terminated string in this thread's buffer, as the caller promises.
    let message = unsafe { CStr::from_ptr(message) };
    Err(Error::Torch { what, message: message.to_string_lossy().trim().to_owned() })
}

/// Returns pointers to the C++ tensors of a list, valid for as long as the list is borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(pointer).collect()
}

/// Returns a pointer to the C++ tensor, valid as long as the tensor is borrowed.
pub(crate) fn pointer(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

/// Returns the index of a CUDA device, -1 for the CPU, and an error for any other device.
pub(crate) fn cuda_index(what: &'static str, device: Device) -> Result<c_int> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => c_int::try_from(index).map_err(|_| Error::Device { what, device }),
        _ => Err(Error::Device { what, device }),
    }
}
