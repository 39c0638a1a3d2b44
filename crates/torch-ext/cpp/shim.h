// The C interface of the shim: the parts of libtorch that tch lacks.
//
// Every function that can fail returns null on success and otherwise a message, which is valid
// until the calling thread's next call into the shim. The message is libtorch's, followed by its
// C++ backtrace if TORCH_SHOW_CPP_STACKTRACES is 1, as in PyTorch. No C++ exception leaves a
// function. Tensors are passed as in tch, as pointers to at::Tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

#include <c10/util/Exception.h>

namespace at {
class Tensor;
}

// Stores a copy of `text` in a thread-local buffer and returns it.
const char* simdino_message(const char* text) noexcept;

// Returns whether the environment requests backtraces.
bool simdino_shows_backtraces() noexcept;

// Runs `body`. Returns null, or the message of the exception that it throws.
template <class Body>
const char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return simdino_message(
        simdino_shows_backtraces() ? error.what() : error.what_without_backtrace());
  } catch (const std::exception& error) {
    return simdino_message(error.what());
  } catch (...) {
    return simdino_message("unknown C++ exception");
  }
}

extern "C" {
typedef at::Tensor* tensor_ptr;

// Returns the version of the libtorch whose headers this was compiled with, such as 2.11.0.
const char* simdino_torch_version() noexcept;
// Writes the CUDA version of libtorch as major * 1000 + minor * 10; 0 if it was built without CUDA.
const char* simdino_cuda_version(int64_t* out) noexcept;
// Makes CUDA device `index` the default device of this thread.
const char* simdino_cuda_set_device(int index) noexcept;
// Writes the name of CUDA device `index`, truncated to `size - 1` bytes.
const char* simdino_cuda_name(int index, char* out, size_t size) noexcept;

// targets[i] += weight * (sources[i] - targets[i])
const char* simdino_foreach_lerp(
    const tensor_ptr* targets, const tensor_ptr* sources, size_t len, double weight) noexcept;
// out[i] = ||tensors[i]||_2, a new tensor owned by the caller
const char* simdino_foreach_norm(const tensor_ptr* tensors, size_t len, tensor_ptr* out) noexcept;
// tensors[i] *= factors[i]
const char* simdino_foreach_mul(
    const tensor_ptr* tensors, const double* factors, size_t len) noexcept;
// tensors[i].grad becomes undefined
const char* simdino_drop_gradients(const tensor_ptr* tensors, size_t len) noexcept;

// Tensors and hyperparameters of one AdamW step; src/ffi.rs repeats the layout.
struct SimdinoAdamW {
  const tensor_ptr* params;
  const tensor_ptr* grads;
  const tensor_ptr* exp_avgs;
  const tensor_ptr* exp_avg_sqs;
  const tensor_ptr* steps;
  size_t len;
  double lr, beta1, beta2, weight_decay, eps;
};
const char* simdino_fused_adamw(const SimdinoAdamW* step) noexcept;

// Makes libtorch use deterministic algorithms and throw where there is none, or stops doing so.
const char* simdino_set_deterministic(int on) noexcept;
int simdino_is_deterministic() noexcept;
// Sets whether fp32 matrix products of CUDA devices use TF32, in all threads. `before` receives the
// previous setting.
const char* simdino_set_tf32(int allowed, int* before) noexcept;
const char* simdino_tf32(int* out) noexcept;

// Seeds the generators of the CPU and of every accelerator.
const char* simdino_manual_seed(uint64_t seed) noexcept;
// Writes the state of a device's default generator, a byte tensor on the CPU. A negative
// `cuda_index` is the CPU.
const char* simdino_rng_state(int cuda_index, tensor_ptr* out) noexcept;
const char* simdino_set_rng_state(int cuda_index, tensor_ptr state) noexcept;

// Autocast state of a thread; src/ffi.rs repeats the layout.
struct SimdinoAutocast {
  int32_t enabled;
  int32_t dtype;
};
// Writes the current autocast state of this thread.
const char* simdino_autocast_state(int cuda, SimdinoAutocast* now) noexcept;
// Enters a region. `dtype` is the value of c10::ScalarType; a negative one disables autocast.
const char* simdino_autocast_enter(int cuda, int dtype, SimdinoAutocast* before) noexcept;
// Leaves a region: restores `before`, and clears cached casts if it was the outermost one.
const char* simdino_autocast_exit(int cuda, const SimdinoAutocast* before) noexcept;

// A part of a network. `call` computes it and writes a new tensor to `out`, or returns a message
// that is valid until its next call on this thread; `again` is nonzero in the backward pass. `drop`
// frees `data`.
struct SimdinoBody {
  void* data;
  const char* (*call)(void* data, tensor_ptr x, int again, tensor_ptr* out);
  void (*drop)(void* data);
};
// Computes `body` of `x` without saving its activations. `params` are all parameters that it uses.
// Takes ownership of `body->data`, even on failure.
const char* simdino_checkpoint(
    tensor_ptr x, const tensor_ptr* params, size_t len, const SimdinoBody* body,
    tensor_ptr* out) noexcept;

// Returns why the fused kernels cannot run on a CUDA device for networks of width `dim`, or null if
// they can.
const char* simdino_fused_why_not(int cuda_index, int64_t dim) noexcept;
// Arguments of simdino_fused_add_norm; src/ffi.rs repeats the layout. A null pointer means that a
// part is absent. `kind` is the c10::ScalarType of the normalized tokens. `places` holds, for each
// image, its index in `output`, or a negative number if it has none. `selected_places` holds the
// same for the `selected` images to normalize.
struct SimdinoAddNorm {
  tensor_ptr x, output, bias, gamma, factor, places, weight, shift, selected_places;
  double eps;
  int64_t selected;
  int32_t kind;
};
// Adds the residual branch, if there is an `output`, and normalizes. Writes the normalized tokens
// to out[0] and, if there is an `output`, the sum to out[1].
const char* simdino_fused_add_norm(const SimdinoAddNorm* arguments, tensor_ptr* out) noexcept;
// Computes GELU(x + bias) within a network of width `dim`.
const char* simdino_fused_bias_gelu(
    tensor_ptr x, tensor_ptr bias, int64_t dim, tensor_ptr* out) noexcept;
// Writes the queries, keys, and values of [B, T, 3 D] to out[0..3]. `bias` is null, or was already
// added to `qkv`; its gradient is computed here.
const char* simdino_fused_split_heads(
    tensor_ptr qkv, tensor_ptr bias, int64_t heads, tensor_ptr* out) noexcept;

// Returns why the attention kernels cannot run on a CUDA device for sequences of `tokens` tokens
// and heads of `width` columns, or null if they can.
const char* simdino_fused_attention_why_not(int cuda_index, int64_t tokens, int64_t width) noexcept;
// Writes the attention [B, T, D] of queries, keys, and values [B, T, 3 D] to out[0]. `bias` is as
// in simdino_fused_split_heads.
const char* simdino_fused_attention(
    tensor_ptr qkv, tensor_ptr bias, int64_t heads, tensor_ptr* out) noexcept;

// Returns why libtorch chooses the kernel for a linear layer of `tokens` rows from `inputs` to
// `outputs` columns in bfloat16 on a CUDA device, or null if we do.
const char* simdino_fused_linear_why_not(
    int cuda_index, int64_t tokens, int64_t outputs, int64_t inputs) noexcept;
// Writes x * weight^T + bias to out[0], for x [.., K], weight [N, K], and bias [N] or null.
const char* simdino_fused_linear(
    tensor_ptr x, tensor_ptr weight, tensor_ptr bias, tensor_ptr* out) noexcept;

// Writes the attention of q, k, and v [B, H, T, W] in bfloat16 on the CPU to out[0], [B, T, H W], without gradients.
// The processor must have AVX-512 BF16.
const char* simdino_cpu_attention(tensor_ptr q, tensor_ptr k, tensor_ptr v, tensor_ptr* out) noexcept;

// Calls work(data, i) for all i below `count` in libtorch's threads. `work` must not throw.
const char* simdino_in_parallel(int64_t count, void (*work)(const void*, int64_t), const void* data) noexcept;

// Memory of a CUDA device in bytes; src/ffi.rs repeats the layout.
struct SimdinoMemory {
  uint64_t allocated, reserved, peak_allocated, free, total;
};
const char* simdino_cuda_memory(int index, SimdinoMemory* out) noexcept;
const char* simdino_cuda_reset_peak(int index) noexcept;

// A stream of a CUDA device, separate from the one for computation.
struct SimdinoStream;
const char* simdino_stream_new(int index, SimdinoStream** out) noexcept;
void simdino_stream_free(SimdinoStream* stream) noexcept;
// Allocates `len` zeroed bytes of page-locked memory, as a tensor owned by the caller.
const char* simdino_pinned_bytes(int64_t len, tensor_ptr* out) noexcept;
// A point in the work of a device's stream.
struct SimdinoEvent;
void simdino_event_free(SimdinoEvent* event) noexcept;
// Copies `host` to the stream's device; the caller owns the copy. `*made` is the event to record
// its completion in: that of an earlier copy, or null to create one. The call does not wait if
// `host` is page-locked. `host` must not change before the event completes.
const char* simdino_stream_upload(
    SimdinoStream* stream, tensor_ptr host, tensor_ptr* out, SimdinoEvent** made) noexcept;
// Writes to `out` whether the device has reached the event.
const char* simdino_event_done(SimdinoEvent* event, int* out) noexcept;
const char* simdino_event_wait(SimdinoEvent* event) noexcept;
// Makes later work of this thread on the device of `tensor` wait for the event, and keeps the
// memory of `tensor` reserved until that work is done.
const char* simdino_event_join(SimdinoEvent* event, tensor_ptr tensor) noexcept;

// A function and its backward pass as CUDA graphs.
struct SimdinoGraph;
// Starts recording what this thread launches on the device of the inputs, without executing it.
// `recorded` receives, for each input, the tensor that the function must use instead; the caller
// owns them. The graph is freed by simdino_graph_free, which also ends a failed recording.
const char* simdino_graph_begin(
    const tensor_ptr* inputs, size_t len, SimdinoGraph** out, tensor_ptr* recorded) noexcept;
// Ends the recording of a function with these outputs, and records the gradients of `params`.
// Neither `params` nor `constants`, the other tensors that the function reads, may move in memory
// later.
const char* simdino_graph_end(
    SimdinoGraph* graph, const tensor_ptr* outputs, size_t outputs_len, const tensor_ptr* params,
    size_t params_len, const tensor_ptr* constants, size_t constants_len) noexcept;
// Writes the outputs for these inputs to `out`, valid until the next replay. The backward pass sets
// the gradients of the parameters, which must have none before.
const char* simdino_graph_replay(
    SimdinoGraph* graph, const tensor_ptr* inputs, size_t len, tensor_ptr* out) noexcept;
void simdino_graph_free(SimdinoGraph* graph) noexcept;

// Starts recording the operators of this thread and its backward passes and, with `cuda`, the GPU's
// kernels.
const char* simdino_profiler_start(int cuda) noexcept;
// Stops recording and writes the trace to `path` in Chrome's format, or discards it if `path` is
// null.
const char* simdino_profiler_stop(const char* path) noexcept;

// A key-value store over TCP, served by one of the processes of a run or by another program.
struct SimdinoStore;
// Connects to the store. If `serves` is not 0, this process opens it first.
const char* simdino_store_new(
    const char* host, uint16_t port, int serves, int64_t timeout_ms, SimdinoStore** out) noexcept;
void simdino_store_free(SimdinoStore* store) noexcept;
// Writes the first message of a client to a store, which responds with the four bytes of `nonce`.
void simdino_store_greeting(uint32_t nonce, uint8_t out[10]) noexcept;
const char* simdino_store_set(
    SimdinoStore* store, const char* key, const uint8_t* data, size_t len) noexcept;
// Waits for the key. The bytes are valid until this thread's next call of this function.
const char* simdino_store_get(
    SimdinoStore* store, const char* key, const uint8_t** data, size_t* len) noexcept;
// Adds to a number, which starts at 0; `out` receives the sum.
const char* simdino_store_add(
    SimdinoStore* store, const char* key, int64_t amount, int64_t* out) noexcept;
// Writes to `out` whether the key exists, without waiting for it.
const char* simdino_store_has(SimdinoStore* store, const char* key, int* out) noexcept;

// A process of a group whose processes share a store; src/ffi.rs repeats the layout.
struct SimdinoMember {
  SimdinoStore* store;
  const char* prefix; // of all keys that the group uses
  int32_t rank, size;
  int64_t timeout_ms;
  const char* interface; // network interface for Gloo; null: the one of this machine's host name
};
struct SimdinoGroup;
// Connects all processes with Gloo, for CPU tensors. Freed by simdino_group_free.
const char* simdino_group_new(const SimdinoMember* member, SimdinoGroup** out) noexcept;
void simdino_group_free(SimdinoGroup* group) noexcept;
// Adds NCCL, for CUDA tensors.
const char* simdino_group_add_nccl(
    SimdinoGroup* group, const SimdinoMember* member, int cuda_index) noexcept;
// Reduces over all processes, in place: `op` 0 adds, 1 takes the maximum.
const char* simdino_group_all_reduce(SimdinoGroup* group, tensor_ptr tensor, int op) noexcept;
// Broadcasts the tensors of process `root`, in place, joined into few messages.
const char* simdino_group_broadcast(
    SimdinoGroup* group, const tensor_ptr* tensors, size_t len, int root) noexcept;
// Gathers the tensor of each process in `outs`, which holds one tensor of the same shape per
// process.
const char* simdino_group_all_gather(
    SimdinoGroup* group, tensor_ptr tensor, const tensor_ptr* outs, size_t len) noexcept;
const char* simdino_group_barrier(SimdinoGroup* group) noexcept;
// Calls and bytes of each kind of operation so far; src/ffi.rs repeats the layout.
struct SimdinoCount {
  uint64_t calls, bytes;
};
struct SimdinoTraffic {
  SimdinoCount reduced, broadcast, gathered;
};
void simdino_group_traffic(const SimdinoGroup* group, SimdinoTraffic* out) noexcept;
// Writes the sum over all processes as a new tensor that is differentiable.
const char* simdino_group_differentiable_sum(
    SimdinoGroup* group, tensor_ptr tensor, tensor_ptr* out) noexcept;

// The parameters of a reducer; src/ffi.rs repeats the layout.
struct SimdinoReducerSpec {
  const tensor_ptr* params;
  const char* const* names;
  size_t len;
  int64_t bucket_bytes;
  int32_t find_unused;
};
struct SimdinoReducer;
// Creates c10d's reducer, which averages gradients while the backward pass computes others.
const char* simdino_reducer_new(
    SimdinoGroup* group, const SimdinoReducerSpec* spec, SimdinoReducer** out) noexcept;
void simdino_reducer_free(SimdinoReducer* reducer) noexcept;
const char* simdino_reducer_prepare_forward(SimdinoReducer* reducer) noexcept;
const char* simdino_reducer_prepare_backward(
    SimdinoReducer* reducer, const tensor_ptr* outputs, size_t len) noexcept;
// Checks, after the backward pass, that all gradients were averaged. If some parameters got no
// gradient, `unused` becomes 1, and the message lists them.
const char* simdino_reducer_unused(SimdinoReducer* reducer, int* unused) noexcept;
const char* simdino_reducer_zero_grad(SimdinoReducer* reducer) noexcept;
// Returns whether NCCL was compiled in.
int simdino_has_nccl() noexcept;
}
