// Building blocks of kernels that process rows of the residual stream: the columns of a lane, sums
// over a row, and copies to shared memory. common.cu and norm_sizes.h precede this source.
// tests/kernels replaces its first part on the CPU.
//
// Activations of a branch are bfloat16, all parameters are float, and the residual stream is
// either. Sums are in float. Row r, column c of a matrix is at r * DIM + c. Pointers that may be
// null are marked with `?`.
//
// DIM, a multiple of 8, is the width of the residual stream.

#ifndef SIMDINO_EMULATED
extern __shared__ __align__(16) unsigned char ring_memory[];

__device__ inline float inverse_root(float x) { return rsqrtf(x); } // error up to 2 ulp
// Loads memory that nothing writes while the kernel runs, which lets the compiler hoist the load.
__device__ inline float4 read_only(const float* from) { return __ldg(reinterpret_cast<const float4*>(from)); }
__device__ inline u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}
// Asynchronous copies to shared memory, complete only after await_all_but.
__device__ inline void copy16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline void copy4(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last COUNT groups of this thread's copies have completed.
template <int COUNT>
__device__ inline void await_all_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(COUNT) : "memory");
}
#endif

// Columns

// A warp's part of each row of its team, and a lane's columns within it: AT_ONCE adjacent ones in
// each chunk.
template <u32 TEAM, u32 AT_ONCE>
struct Part {
  static constexpr u32 CHUNK = AT_ONCE, STEP = LANES * CHUNK, COLUMNS = columns_of_warp(DIM, TEAM),
                       CHUNKS = (COLUMNS + STEP - 1) / STEP;
  static constexpr bool EVEN = TEAM * COLUMNS == DIM;  // all warps have equally many columns
  u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, team = warp / TEAM;
  u32 start = warp % TEAM * COLUMNS, columns = EVEN ? COLUMNS : min(COLUMNS, DIM - start);

  // The first column of this lane in chunk i, and whether it has any there.
  __device__ u32 column(u32 i) const { return start + i * STEP + lane * CHUNK; }
  __device__ bool has(u32 i) const {
    return (EVEN && COLUMNS % STEP == 0) || i * STEP + lane * CHUNK < columns;
  }
};

// Number of columns that a lane loads at once from shared memory: 16 bytes of a bfloat16 stream if
// all lanes then have columns in every chunk.
template <class Stream>
__device__ constexpr u32 at_once(u32 columns) {
  return sizeof(Stream) == 2 && columns % (LANES * 8) == 0 ? 8 : 4;
}

__device__ inline void unpack(u32 pair, float* to) {
  to[0] = low_bf16(pair);
  to[1] = high_bf16(pair);
}
__device__ inline void unpack(float4 v, float* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}
template <u32 COUNT>
__device__ inline void load(const float* from, float (&to)[COUNT]) {
#pragma unroll
  for (u32 i = 0; i < COUNT; i += 4) unpack(*reinterpret_cast<const float4*>(from + i), to + i);
}
template <u32 COUNT>
__device__ inline void load_read_only(const float* from, float (&to)[COUNT]) {
#pragma unroll
  for (u32 i = 0; i < COUNT; i += 4) unpack(read_only(from + i), to + i);
}
__device__ inline void load(const u16* from, float (&to)[4]) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  unpack(pairs.x, to);
  unpack(pairs.y, to + 2);
}
__device__ inline void load(const u16* from, float (&to)[8]) {
  const uint4 pairs = *reinterpret_cast<const uint4*>(from);
  unpack(pairs.x, to);
  unpack(pairs.y, to + 2);
  unpack(pairs.z, to + 4);
  unpack(pairs.w, to + 6);
}
__device__ inline uint2 packed(const float (&v)[4]) {
  return make_uint2(to_bf16_pair(v[0], v[1]), to_bf16_pair(v[2], v[3]));
}
__device__ inline uint4 packed(const float (&v)[8]) {
  return make_uint4(
      to_bf16_pair(v[0], v[1]), to_bf16_pair(v[2], v[3]), to_bf16_pair(v[4], v[5]), to_bf16_pair(v[6], v[7]));
}
__device__ inline void store(float* to, const float (&v)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store(u16* to, const float (&v)[4]) { *reinterpret_cast<uint2*>(to) = packed(v); }
__device__ inline void store(u16* to, const float (&v)[8]) { *reinterpret_cast<uint4*>(to) = packed(v); }
// Stores values, and rounds them in place to what was stored.
__device__ inline void store_rounded(float* to, float (&v)[4]) { store(to, v); }
__device__ inline void store_rounded(u16* to, float (&v)[4]) {
  const uint2 pairs = packed(v);
  unpack(pairs.x, v);
  unpack(pairs.y, v + 2);
  *reinterpret_cast<uint2*>(to) = pairs;
}
__device__ inline void store_rounded(u16* to, float (&v)[8]) {
  const uint4 pairs = packed(v);
  unpack(pairs.x, v);
  unpack(pairs.y, v + 2);
  unpack(pairs.z, v + 4);
  unpack(pairs.w, v + 6);
  *reinterpret_cast<uint4*>(to) = pairs;
}

// Rows

// Returns the index of a row in a matrix that holds only some images, in any order: image i is at
// places[i], or not at all if that is negative. Without `places`, the matrix holds all images.
#define NOWHERE 0xffffffffu
__device__ inline u32 row_in(const int* places /*?*/, u32 row, u32 rows_per_image) {
  if (!places) return row;
  const u32 image = row / rows_per_image;
  const int place = places[image];
  return place < 0 ? NOWHERE : place * rows_per_image + (row - image * rows_per_image);
}

// Sums values over the threads of a team. The warps of a team synchronize once per call: because
// calls alternate between two buffers, slow warps may still read the sums of one call while others
// write those of the next.
template <u32 TEAM, u32 WARPS>
struct TeamSums {
  static_assert(sizeof(float[2][2]) <= SUMS_BYTES, "what the host leaves for them");
  float (*sums)[WARPS][2];  // [2][WARPS][2], shared
  u32 turn = 0;

  template <u32 COUNT>
  __device__ void add(float (&values)[COUNT]) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
#pragma unroll
      for (u32 k = 0; k < COUNT; ++k) values[k] += __shfl_xor_sync(EVERY_LANE, values[k], distance);
    if (TEAM > 1) meet(values);
  }

  template <u32 COUNT>
  __device__ void meet(float (&values)[COUNT]) {
    const u32 warp = threadIdx.x / LANES, first = warp / TEAM * TEAM;
#pragma unroll
    for (u32 k = 0; k < COUNT; ++k)
      if (threadIdx.x % LANES == 0) sums[turn][warp][k] = values[k];
    wait_for_team(first / TEAM, TEAM * LANES);
#pragma unroll
    for (u32 k = 0; k < COUNT; ++k) {
      values[k] = 0.0f;
#pragma unroll
      for (u32 i = 0; i < TEAM; ++i) values[k] += sums[turn][first + i][k];
    }
    turn = 1 - turn;
  }
};

// Rings

// Copies a warp's part of a row, which begins at `from`, to shared memory.
template <class Columns, class T>
__device__ inline void copy_part(void* to, const T* from, const Columns& own) {
  constexpr u32 EACH = 16 / sizeof(T), PIECES = Columns::COLUMNS / EACH;
#pragma unroll
  for (u32 i = 0; i < (PIECES + LANES - 1) / LANES; ++i) {
    const u32 at = (i * LANES + own.lane) * EACH;
    if (at < own.columns) copy16(static_cast<unsigned char*>(to) + at * sizeof(T), from + at);
  }
}

// Processes the rows of a warp's team one after the other. `ask_for` starts copying a row to a slot
// of the warp's ring, and `take` processes the row in a slot. This way, no registers are held for
// loads in flight, and warps of different teams do not wait for each other.
template <u32 TEAMS, u32 STAGES, u32 SLOT_BYTES, class Ask, class Take>
__device__ inline void for_rows(u32 team, unsigned char* ring, u32 rows, const Ask& ask_for, const Take& take) {
  const u32 step = gridDim.x * TEAMS;
  const auto ask = [&](u32 row, u32 stage) {
    if (row < rows) ask_for(row, ring + stage * SLOT_BYTES);
    commit_copies();
  };
  u32 row = blockIdx.x * TEAMS + team;
#pragma unroll
  for (u32 i = 0; i + 1 < STAGES; ++i) ask(row + i * step, i);
  for (u32 stage = 0; row < rows; row += step) {
    ask(row + (STAGES - 1) * step, stage == 0 ? STAGES - 1 : stage - 1);
    await_all_but<STAGES - 1>();
    __syncwarp();
    take(row, ring + stage * SLOT_BYTES);
    __syncwarp();  // the next copies overwrite this row's slot
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  await_all_but<0>();
}
