// Runs the source of kernels on the CPU: the built-ins of a GPU's compiler, the threads of a block,
// and data that reveals missing writes.
//
// Threads are fibers, one of which runs at a time, until it waits for the others of its warp or
// block. Each warp runs as far as it can before the next one, in an order that is an argument of
// `launch`. A missing barrier therefore shows: what another warp or lane should have written is not
// there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include <ucontext.h>

// Built-ins of a GPU's compiler

#define SIMDINO_EMULATED
#define __global__
#define __device__
#define __shared__ static // blocks run one after the other
#define __launch_bounds__(...)
#define __restrict__
#define EVERY_LANE 0
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
struct Index {
  u32 x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint2 {
  u32 x, y;
};
struct uint4 {
  u32 x, y, z, w;
};
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
static uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
using std::min;

static float bits_to_float(u32 bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
static u32 rounded(float value) {
  u32 bits;
  std::memcpy(&bits, &value, 4);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static u32 to_bf16_pair(float low, float high) { return rounded(low) | rounded(high) << 16; }

// Threads

// Words that the lanes of a warp exchange, and how often they have met.
struct Warp {
  u32 here = 0, meetings = 0;
  u32 words[32][4] = {};
};
struct Meeting {
  u32 here = 0, meetings = 0;
};
struct Block {
  u32 threads, here = 0, meetings = 0, progress = 0;  // progress: meetings of all kinds
  std::vector<Warp> warps;
  std::vector<Meeting> teams;
};
using Copies = std::vector<std::function<void()>>;
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Copies copies;               // started, but not yet in a group
  std::deque<Copies> groups;   // groups of earlier copies, the oldest first
  bool done = false;
};
static const size_t STACK_BYTES = 256 * 1024;

static Index threadIdx, blockIdx, gridDim;
static Block block;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static const std::function<void()>* running;

static Fiber& this_fiber() { return fibers[threadIdx.x]; }
static Warp& this_warp() { return block.warps[threadIdx.x / 32]; }
static void let_others_run() {
  const u32 own = threadIdx.x;
  swapcontext(&fibers[own].context, &scheduler);
}
// Waits until `count` threads have met; the last of them does `work` for all.
static void meet(u32& here, u32& meetings, u32 count, const std::function<void()>& work) {
  const u32 meeting = meetings;
  if (++here == count) {
    work();
    here = 0;
    ++meetings;
    ++block.progress;
  }
  while (meetings == meeting) {
    let_others_run();
  }
}
static void meet_warp(const std::function<void()>& work) {
  Warp& warp = this_warp();
  meet(warp.here, warp.meetings, 32, work);
}
static void __syncwarp() {
  meet_warp([] {});
}
static void __syncthreads() {
  meet(block.here, block.meetings, block.threads, [] {});
}
static void wait_for_team(u32 team, u32 threads) {
  Meeting& own = block.teams[team];
  meet(own.here, own.meetings, threads, [] {});
}
template <class T>
static T __shfl_xor_sync(u32, T value, int distance) {
  static_assert(sizeof(T) == 4, "a word");
  Warp& warp = this_warp();
  const u32 lane = threadIdx.x % 32;
  std::memcpy(&warp.words[lane][0], &value, 4);
  __syncwarp();
  T other;
  std::memcpy(&other, &warp.words[lane ^ distance][0], 4);
  __syncwarp();
  return other;
}

// Copies are made when their group is waited for.
static void commit_copies() {
  Fiber& own = this_fiber();
  own.groups.push_back(std::move(own.copies));
  own.copies.clear();
}
template <int COUNT>
static void await_all_but() {
  auto& groups = this_fiber().groups;
  for (; groups.size() > COUNT; groups.pop_front()) {
    for (const auto& copy : groups.front()) {
      copy();
    }
  }
}

static void run_fiber() {
  (*running)();
  if (!this_fiber().groups.empty()) {
    std::printf("a thread ends and leaves copies that it has not waited for\n");
    std::exit(1);
  }
  this_fiber().done = true;
  let_others_run();
}

static void start_block(u32 threads, const std::function<void()>& kernel) {
  block = Block{threads, 0, 0, 0, std::vector<Warp>(threads / 32), std::vector<Meeting>(threads / 32)};
  fibers.resize(std::max<size_t>(fibers.size(), threads)); // stacks are reused for many blocks
  running = &kernel;
  for (u32 i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) {
      fiber.stack.reset(new char[STACK_BYTES]);
    }
    fiber.copies.clear();
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

// Gives the lanes of a warp turns until none makes further progress. Progress is counted by the
// number of meetings. Returns whether there was any.
static bool run_warp(u32 warp) {
  bool any = false;
  for (;;) {
    const u32 before = block.progress;
    bool running_still = false;
    for (u32 lane = 0; lane < 32; ++lane) {
      Fiber& fiber = fibers[warp * 32 + lane];
      if (!fiber.done) {
        threadIdx = {warp * 32 + lane, 0};
        swapcontext(&scheduler, &fiber.context);
        running_still = true;
      }
    }
    any = any || running_still;
    if (!running_still || block.progress == before) {
      return any;
    }
  }
}

// Runs a kernel in [x, y] blocks of `threads` threads, one block after the other. If `reversed`,
// the last warp runs first.
static void launch(
    u32 x, u32 y, u32 threads, const std::function<void()>& kernel, bool reversed = false,
    const std::function<void()>& before_block = [] {}) {
  gridDim = {x, y};
  for (u32 by = 0; by < y; ++by) {
    for (u32 bx = 0; bx < x; ++bx) {
      before_block();
      start_block(threads, kernel);
      blockIdx = {bx, by};
      bool any = true;
      for (u32 idle = 0; any; ++idle) {
        any = false;
        const u32 met = block.progress, warps = threads / 32;
        for (u32 i = 0; i < warps; ++i) {
          any = run_warp(reversed ? warps - 1 - i : i) || any;
        }
        idle = block.progress == met ? idle : 0;
        if (idle > 3) {
          std::printf("the threads of a block wait for one another\n");
          std::exit(1);
        }
      }
    }
  }
}

// Data

static std::mt19937 generator(1);

static std::vector<float> drawn(size_t count, float scale = 1.0f, float shift = 0.0f) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (auto& value : values) {
    value = normal(generator) * scale + shift;
  }
  return values;
}

// Filled with NaN, so that missing writes show.
static std::vector<u16> halves(size_t count) { return std::vector<u16>(count, 0x7fc0); }
static std::vector<float> unwritten(size_t count) { return std::vector<float>(count, NAN); }
static std::vector<u16> rounded_all(const std::vector<float>& values) {
  std::vector<u16> to(values.size());
  std::transform(values.begin(), values.end(), to.begin(), [](float v) { return static_cast<u16>(rounded(v)); });
  return to;
}
static double value(u16 half) { return bits_to_float(static_cast<u32>(half) << 16); }
static double value(float v) { return v; }

static bool failed = false;

template <class T>
static void same(const char* what, const std::vector<T>& got, const std::vector<double>& want, double allowed) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(value(got[i]))) continue;  // not written, as expected
    largest = std::max(largest, std::abs(want[i]));
    const double one = std::abs(value(got[i]) - want[i]);
    error = std::isnan(one) ? INFINITY : std::max(error, one);
  }
  if (got.size() != want.size() || !(error <= allowed * largest)) {
    std::printf("%s is off by %g of %g\n", what, error, largest);
    failed = true;
  }
}
