// Types and bfloat16 conversions that precede the source of all kernels. tests/kernels/emulation.h
// replaces the first part on the CPU.

#ifndef SIMDINO_EMULATED
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define EVERY_LANE 0xffffffffu

__device__ inline float bits_to_float(u32 bits) { return __uint_as_float(bits); }
// Waits until all threads of a team of warps have arrived. Barrier 0 is that of __syncthreads.
__device__ inline void wait_for_team(u32 team, u32 threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(team + 1), "r"(threads) : "memory");
}
// Rounds two floats to the nearest bfloat16, ties to even, with the first in the low half.
__device__ inline u32 to_bf16_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#endif

#define LANES 32

__device__ inline float low_bf16(u32 pair) { return bits_to_float(pair << 16); }
__device__ inline float high_bf16(u32 pair) { return bits_to_float(pair & 0xffff0000u); }
