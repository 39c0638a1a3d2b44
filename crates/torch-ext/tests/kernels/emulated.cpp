// Runs the source of all kernels except attention on the CPU, and compares them with plain loops in
// double. tests/fused.rs compiles this with -DDIM and runs it.
#include "emulation.h"

#ifndef SHARED_LIMIT
#define SHARED_LIMIT (227 * 1024) // Hopper's
#endif

// Hardware instructions

alignas(16) static unsigned char ring_memory[SHARED_LIMIT];
static u32 bytes_in_use; // number of bytes that the host requested
static bool reversed_warps = false, early_copies = false;

// Copies are made as late as possible or, with `early_copies`, immediately.
static void copy(void* to, const void* from, u32 count) {
  const auto at = static_cast<unsigned char*>(to) - ring_memory;
  if (at < 0 || at + count > bytes_in_use || at % count != 0 || reinterpret_cast<uintptr_t>(from) % count != 0) {
    std::printf(
        "a copy of %u bytes from %p to %ld, and %u are in use\n", count, from, static_cast<long>(at), bytes_in_use);
    std::exit(1);
  }
  const auto make = [=] { std::memcpy(to, from, count); };
  early_copies ? make() : this_fiber().copies.push_back(make);
}
static void copy16(void* to, const void* from) { copy(to, from, 16); }
static void copy4(void* to, const void* from) { copy(to, from, 4); }
static float4 read_only(const float* from) { return *reinterpret_cast<const float4*>(from); }
static float inverse_root(float x) { return 1 / std::sqrt(x); }
static float two_to(float x) { return std::exp2(x); }
static float least(float x, float y) { return std::isnan(x) || x < y ? x : y; }
static float most(float x, float y) { return std::isnan(x) || x > y ? x : y; }

#include "common.cu"
#include "norm_sizes.h"
#include "rows.cu"
#include "norm.cu"
#include "norm_backward.cu"
#include "columns.cu"

// Runs a kernel with rings in `blocks` blocks. On a GPU, the initial content of shared memory is
// undefined. Here, it is NaN in both types.
static void launch_ring(u32 blocks, const NormRing& ring, const std::function<void()>& kernel) {
  if (ring.bytes() + ring.warps * SUMS_BYTES > SHARED_LIMIT) {
    std::printf("%u warps with %u slots of %u bytes do not fit\n", ring.warps, ring.stages, ring.slot_bytes);
    std::exit(1);
  }
  bytes_in_use = ring.bytes();
  launch(blocks, 1, 32 * ring.warps, kernel, reversed_warps, [] {
    std::memset(ring_memory, 0xff, sizeof ring_memory);
  });
}

static void same_sums(
    const char* what, const std::vector<float>& parts, u32 count, u32 stride, u32 offset,
    const std::vector<double>& want, double allowed = 1e-4) {
  std::vector<float> sums = unwritten(want.size());
  const u32 columns = static_cast<u32>(want.size());
  launch((columns + 31) / 32, 1, 32 * SUM_WARPS, [&] {
    sum_of_parts(parts.data() + offset, count, stride, columns, sums.data());
  });
  same(what, sums, want, allowed);
}

// Two of three images have a branch, and a different two are normalized.
static const std::vector<int> FROM{1, -1, 0}, TO{-1, 1, 0};

static std::vector<float> as_floats(const std::vector<float>& v) { return v; }
static std::vector<float> as_floats(const std::vector<u16>& halves) {
  std::vector<float> floats(halves.size());
  std::transform(halves.begin(), halves.end(), floats.begin(), [](u16 h) { return static_cast<float>(value(h)); });
  return floats;
}
static void of_stream(const std::vector<float>& from, std::vector<float>& to) { to = from; }
static void of_stream(const std::vector<float>& from, std::vector<u16>& to) { to = rounded_all(from); }
static std::vector<float> empty_like(const std::vector<float>& v) { return unwritten(v.size()); }
static std::vector<u16> empty_like(const std::vector<u16>& v) { return halves(v.size()); }

struct Case {
  bool branch, bias, gamma, factor, subsets;
  bool d_out = true;            // whether a gradient arrives for out
  bool without_d_branch = false;  // whether d_branch is not written, because it equals d_x
  // Whether the host launches the forward kernel with rings.
  bool by_rings() const { return branch && !gamma; }
};

template <class Stream, class Forward, class Backward>
static void test_add_norm(const Case& c, Forward forward, Backward backward) {
  const bool has_branch = c.branch, has_bias = c.bias, has_gamma = c.gamma, has_factor = c.factor,
             subsets = c.subsets, has_d_out = c.d_out, without_d_branch = c.without_d_branch;
  // Enough rows to reuse the slots of all rings, with different numbers of rows per ring.
  const NormRing ring = add_norm_backward_ring(DIM, sizeof(Stream), has_gamma, SHARED_LIMIT);
  const u32 images = 3, blocks = 2, tokens = blocks * ring.teams() * (ring.stages + 1) / images + 1,
            rows = images * tokens;
  const bool rounds = sizeof(Stream) == 2;
  const size_t size = static_cast<size_t>(rows) * DIM;
  std::vector<Stream> x, d_out;
  of_stream(drawn(size, 3, 0.5), x);
  of_stream(drawn(size), d_out);
  const auto x_values = as_floats(x), d_out_values = as_floats(d_out);
  const auto bias = drawn(DIM), gamma = drawn(DIM), weight = drawn(DIM, 0.25, 1), shift = drawn(DIM);
  const auto branch = rounded_all(drawn(size)), d_normed = rounded_all(drawn(size));
  const std::vector<float> factor{1.25f, subsets ? 1.25f : 0.0f, 1.25f};
  auto out = empty_like(x), d_x = empty_like(x);
  auto means = unwritten(rows), inverses = unwritten(rows),
       parts = unwritten(static_cast<size_t>(blocks) * 4 * DIM);
  auto normed = halves(size), d_branch = halves(size);
  const float eps = 1e-6f;
  const int *from = subsets ? FROM.data() : nullptr, *to = subsets ? TO.data() : nullptr;

  const float *bias_or_null = has_bias ? bias.data() : nullptr, *factor_or_null = has_factor ? factor.data() : nullptr;

  const auto directly = [&] {
    forward(
        x.data(), has_branch ? branch.data() : nullptr, bias_or_null, has_gamma ? gamma.data() : nullptr,
        factor_or_null, from, to, tokens, weight.data(), shift.data(), eps, rows, out.data(),
        normed.data(), means.data(), inverses.data());
  };
  bool launched = false;
  if constexpr (sizeof(Stream) == 2) {
    launched = c.by_rings();
    const auto by_rings = [&] {
      add_norm_forward_ring(
          x.data(), branch.data(), bias_or_null, factor_or_null, from, to, tokens, weight.data(),
          shift.data(), eps, rows, out.data(), normed.data(), means.data(), inverses.data());
    };
    if (launched) launch_ring(blocks, add_norm_ring(DIM), by_rings);
  }
  const u32 rows_of_a_block = NORM_WARPS / norm_team(DIM);
  if (!launched)
    launch((rows + rows_of_a_block - 1) / rows_of_a_block, 1, 32 * NORM_WARPS, directly, reversed_warps);
  launch_ring(blocks, ring, [&] {
    backward(
        d_normed.data(), has_d_out ? d_out.data() : nullptr, out.data(), means.data(), inverses.data(),
        weight.data(), branch.data(), bias_or_null, gamma.data(), factor_or_null, from, to, tokens,
        rows, d_x.data(), without_d_branch ? nullptr : d_branch.data(), parts.data());
  });

  // Rows without a place are not written.
  std::vector<double> w_out(size), w_normed(size, NAN), w_d_x(size), w_d_branch(size, NAN), w_weight(DIM),
      w_shift(DIM), w_bias(DIM), w_gamma(DIM);
  for (u32 row = 0; row < rows; ++row) {
    const u32 image = row / tokens;
    const auto place = [&](const std::vector<int>& places) {
      return subsets ? places[image] : static_cast<int>(image);
    };
    const auto start = [&](int at) { return (static_cast<size_t>(at) * tokens + row % tokens) * DIM; };
    const bool branches = has_branch && place(FROM) >= 0, norms = place(TO) >= 0;
    const size_t at = static_cast<size_t>(row) * DIM, b_at = branches ? start(place(FROM)) : 0,
                 n_at = norms ? start(place(TO)) : 0;
    const double scale = has_factor ? factor[image] : 1.0;
    double mean = 0, variance = 0, sum = 0, product = 0;
    std::vector<double> hat(DIM), g(DIM);
    const auto biased = [&](u32 c) { return value(branch[b_at + c]) + (has_bias ? bias[c] : 0.0); };
    for (u32 c = 0; c < DIM; ++c) {
      const double one = branches ? scale * (has_gamma ? gamma[c] : 1.0) * biased(c) : 0.0;
      w_out[at + c] = x_values[at + c] + one;
      // Rounded like the kernel's, so that later results start from the same values.
      if (rounds) w_out[at + c] = value(static_cast<u16>(rounded(static_cast<float>(w_out[at + c]))));
      mean += w_out[at + c] / DIM;
    }
    for (u32 c = 0; c < DIM; ++c) variance += std::pow(w_out[at + c] - mean, 2) / DIM;
    const double inverse = 1 / std::sqrt(variance + eps);
    for (u32 c = 0; norms && c < DIM; ++c) {
      hat[c] = (w_out[at + c] - mean) * inverse;
      w_normed[n_at + c] = hat[c] * weight[c] + shift[c];
      const double d = value(d_normed[n_at + c]);
      w_weight[c] += d * hat[c];
      w_shift[c] += d;
      g[c] = d * weight[c];
      sum += g[c] / DIM;
      product += g[c] * hat[c] / DIM;
    }
    for (u32 c = 0; c < DIM; ++c) {
      const double d = (has_d_out ? d_out_values[at + c] : 0.0) + (g[c] - sum - hat[c] * product) * inverse;
      w_d_x[at + c] = d;
      if (!branches) continue;
      const double d_b = scale * (has_gamma ? gamma[c] : 1.0) * d;
      if (!without_d_branch) w_d_branch[b_at + c] = d_b;
      w_bias[c] += d_b;
      w_gamma[c] += scale * d * biased(c);
    }
  }
  same("out", out, w_out, rounds ? 8e-3 : 1e-6);
  same("normed", normed, w_normed, rounds ? 2e-2 : 4e-3);
  same("d_x", d_x, w_d_x, rounds ? 8e-3 : 1e-5);
  const double allowed = rounds ? 2e-3 : 1e-4;  // a sum in the kernel may round to the neighbor of the exact one
  same_sums("d_weight", parts, blocks, 4 * DIM, 0, w_weight, allowed);
  same_sums("d_shift", parts, blocks, 4 * DIM, DIM, w_shift, allowed);
  if (has_branch) {
    same("d_branch", d_branch, w_d_branch, 4e-3);
    // The host relies on this when it does not request d_branch.
    const auto d_x_values = as_floats(d_x);
    if (rounds && !has_gamma && !has_factor && !subsets && !without_d_branch)
      same("d_branch as d_x", d_branch, {d_x_values.begin(), d_x_values.end()}, 0);
    same_sums("d_bias", parts, blocks, 4 * DIM, 2 * DIM, w_bias, allowed);
  }
  if (has_gamma) {
    same_sums("d_gamma", parts, blocks, 4 * DIM, 3 * DIM, w_gamma, allowed);
  }
}

static void test_add_norms(const Case& c) {
  test_add_norm<float>(
      c, add_norm_forward_float,
      c.gamma ? add_norm_backward_gamma_float : c.branch ? add_norm_backward_plain_float : norm_backward_float);
  test_add_norm<u16>(
      c, add_norm_forward_bf16,
      c.gamma ? add_norm_backward_gamma_bf16 : c.branch ? add_norm_backward_plain_bf16 : norm_backward_bf16);
}

// Tests that rings of all widths fit all GPUs, with whole teams and few columns per lane.
static void test_sizes() {
  for (const u32 limit : {99u * 1024, 163u * 1024, 227u * 1024}) {
    for (u32 width = 8; width <= 1536; width += 8) {
      for (u32 kind = 0; kind < 4; ++kind) {
        const NormRing ring = add_norm_backward_ring(width, kind % 2 ? 2 : 4, kind / 2, limit);
        const u32 columns = columns_of_warp(width, ring.team);
        const bool good = ring.bytes() + ring.warps * SUMS_BYTES <= limit && ring.warps <= 24 && ring.teams() >= 1 &&
            ring.warps % ring.team == 0 && ring.stages >= 2 && columns <= 384 && (ring.team - 1) * columns < width;
        failed = failed || !good;
        if (!good) std::printf("no ring for %u columns of kind %u in %u bytes\n", width, kind, limit);
      }
      const NormRing ring = add_norm_ring(width);
      failed = failed || ring.bytes() + ring.warps * SUMS_BYTES > limit;
    }
  }
}

// Tests the polynomials, whose errors are hidden by rounding to bfloat16 elsewhere.
static void test_formulas_of_gelu() {
  double error = 0, slope_error = 0;
  for (double z = -8; z <= 8; z += 1.0 / 128) {
    const float at = static_cast<float>(z);
    const double below = 0.5 * std::erfc(-z / std::sqrt(2.0));
    const double slope = below + z * std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265358979);
    const double allowed = 1.2e-4 * std::abs(z * below) + 1e-6;
    error = std::max(error, std::abs(gelu(at) - z * below) / allowed);
    slope_error = std::max(slope_error, std::abs(gelu_slope(at) - slope));
  }
  if (!(error <= 1 && slope_error <= 5e-5) || !std::isnan(gelu(NAN)) || !std::isnan(gelu_slope(NAN)) ||
      gelu(INFINITY) != INFINITY) {
    std::printf("GELU is off by %g of what is allowed, and its slope by %g\n", error, slope_error);
    failed = true;
  }
}

static void test_gelu() {
  const u32 rows = 19, columns = 2 * DIM, across = (columns + 255) / 256, down = 2;
  const size_t size = static_cast<size_t>(rows) * columns;
  const auto x = rounded_all(drawn(size, 2)), d = rounded_all(drawn(size));
  const auto bias = drawn(columns);
  auto activated = halves(size), d_x = halves(size);
  auto parts = unwritten(static_cast<size_t>(down) * columns);
  launch(across, down, 256, [&] { bias_gelu_forward(x.data(), bias.data(), rows, columns, activated.data()); });
  launch(across, down, 256, [&] {
    bias_gelu_backward(d.data(), x.data(), bias.data(), rows, columns, d_x.data(), parts.data());
  });
  std::vector<double> want(size), want_d(size), want_bias(columns);
  for (size_t i = 0; i < size; ++i) {
    const double z = value(x[i]) + bias[i % columns];
    const double below = 0.5 * std::erfc(-z / std::sqrt(2.0));
    want[i] = z * below;
    want_d[i] = value(d[i]) * (below + z * std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265358979));
    want_bias[i % columns] += want_d[i];
  }
  same("gelu", activated, want, 4e-3);
  same("gelu backward", d_x, want_d, 4e-3);
  same_sums("gelu bias", parts, down, columns, 0, want_bias);
}

static void test_heads() {
  const u32 images = 2, tokens = 7, width = 8, heads = DIM / width, rows = images * tokens, down = 2;
  const size_t size = static_cast<size_t>(rows) * DIM;
  std::vector<u16> d[3] = {rounded_all(drawn(size)), rounded_all(drawn(size)), rounded_all(drawn(size))};
  // The first is laid out as [B, T, H, W], the others as [B, H, T, W].
  const Strides interleaved{u64{tokens} * DIM, width, DIM}, dense{u64{tokens} * DIM, u64{tokens} * width, width};
  auto merged = halves(3 * size);
  auto parts = unwritten(static_cast<size_t>(down) * 3 * DIM);
  launch((3 * DIM + 255) / 256, down, 256, [&] {
    merge_heads_backward(
        d[0].data(), d[1].data(), d[2].data(), interleaved, dense, dense, tokens, width, rows,
        merged.data(), parts.data());
  });
  std::vector<double> want(3 * size), want_bias(3 * DIM);
  for (u32 part = 0; part < 3; ++part)
    for (u32 image = 0; image < images; ++image)
      for (u32 token = 0; token < tokens; ++token)
        for (u32 c = 0; c < DIM; ++c) {
          const auto& s = part == 0 ? interleaved : dense;
          const double v = value(d[part][image * s.batch + token * s.token + c / width * s.head + c % width]);
          want[(static_cast<size_t>(image * tokens + token) * 3 + part) * DIM + c] = v;
          want_bias[part * DIM + c] += v;
        }
  same("merged heads", merged, want, 0);
  same_sums("bias of heads", parts, down, 3 * DIM, 0, want_bias);
  (void)heads;
}

int main() {
  test_sizes();
  for (const bool second : {false, true}) {
    reversed_warps = early_copies = second;
    test_add_norms({false, false, false, false, false});
    test_add_norms({false, false, false, false, true});
    test_add_norms({false, false, false, false, false, false});
    test_add_norms({true, true, false, true, false});
    test_add_norms({true, true, false, true, true});
    test_add_norms({true, false, false, false, false});
    test_add_norms({true, true, false, false, false, true, true});
    test_add_norms({true, true, true, true, false});
    test_add_norms({true, true, true, true, true});
    test_add_norms({true, false, true, false, true, false});
  }
  test_formulas_of_gelu();
  test_gelu();
  test_heads();
  return failed ? 1 : 0;
}
