// Runs the text of kernels.cu on the CPU, and compares it with plain loops in double. Compiled and run by
// tests/fused.rs with -DDIM.
#include "emulation.h"

#include "common.cu"
#include "kernels.cu"

static void same_sums(
    const char* what, const std::vector<float>& parts, u32 count, u32 stride, u32 offset,
    const std::vector<double>& want) {
  std::vector<float> sums = unwritten(want.size());
  const u32 columns = static_cast<u32>(want.size());
  launch((columns + 31) / 32, 1, 256, [&] {
    sum_of_parts(parts.data() + offset, count, stride, columns, sums.data());
  });
  same(what, sums, want, 1e-4);
}

static void test_add_norm(bool has_branch, bool has_bias, bool has_gamma, bool has_factor) {
  const u32 images = 3, tokens = 5, rows = images * tokens, blocks = 2;
  const size_t size = static_cast<size_t>(rows) * DIM;
  const auto x = drawn(size, 3, 0.5), bias = drawn(DIM), gamma = drawn(DIM), weight = drawn(DIM, 0.25, 1),
             shift = drawn(DIM), d_out = drawn(size);
  const auto branch = rounded_all(drawn(size)), d_normed = rounded_all(drawn(size));
  const std::vector<float> factor{1.25f, 0.0f, 1.25f};
  auto out = unwritten(size), means = unwritten(rows), inverses = unwritten(rows), d_x = unwritten(size),
       parts = unwritten(static_cast<size_t>(blocks) * 4 * DIM);
  auto normed = halves(size), d_branch = halves(size);
  const float eps = 1e-6f;

  launch(blocks, 1, 128, [&] {
    add_norm_forward(
        x.data(), has_branch ? branch.data() : nullptr, has_bias ? bias.data() : nullptr,
        has_gamma ? gamma.data() : nullptr, has_factor ? factor.data() : nullptr, tokens,
        weight.data(), shift.data(), eps, rows, out.data(), normed.data(), means.data(),
        inverses.data());
  });
  launch(blocks, 1, 128, [&] {
    auto* kernel = has_gamma ? add_norm_backward_gamma : has_branch ? add_norm_backward_plain : norm_backward;
    kernel(
        d_normed.data(), d_out.data(), out.data(), means.data(), inverses.data(), weight.data(),
        branch.data(), has_bias ? bias.data() : nullptr, gamma.data(),
        has_factor ? factor.data() : nullptr, tokens, rows, d_x.data(), d_branch.data(), parts.data());
  });

  std::vector<double> w_out(size), w_normed(size), w_d_x(size), w_d_branch(size), w_weight(DIM), w_shift(DIM),
      w_bias(DIM), w_gamma(DIM);
  for (u32 row = 0; row < rows; ++row) {
    const size_t at = static_cast<size_t>(row) * DIM;
    const double scale = has_factor ? factor[row / tokens] : 1.0;
    double mean = 0, variance = 0, sum = 0, product = 0;
    std::vector<double> hat(DIM), g(DIM);
    const auto biased = [&](u32 c) { return value(branch[at + c]) + (has_bias ? bias[c] : 0.0); };
    for (u32 c = 0; c < DIM; ++c) {
      const double one = scale * (has_gamma ? gamma[c] : 1.0) * biased(c);
      w_out[at + c] = x[at + c] + (has_branch ? one : 0.0);
      mean += w_out[at + c] / DIM;
    }
    for (u32 c = 0; c < DIM; ++c) variance += std::pow(w_out[at + c] - mean, 2) / DIM;
    const double inverse = 1 / std::sqrt(variance + eps);
    for (u32 c = 0; c < DIM; ++c) {
      hat[c] = (w_out[at + c] - mean) * inverse;
      w_normed[at + c] = hat[c] * weight[c] + shift[c];
      const double d = value(d_normed[at + c]);
      w_weight[c] += d * hat[c];
      w_shift[c] += d;
      g[c] = d * weight[c];
      sum += g[c] / DIM;
      product += g[c] * hat[c] / DIM;
    }
    for (u32 c = 0; c < DIM; ++c) {
      const double d = d_out[at + c] + (g[c] - sum - hat[c] * product) * inverse;
      w_d_x[at + c] = d;
      w_d_branch[at + c] = scale * (has_gamma ? gamma[c] : 1.0) * d;
      w_bias[c] += w_d_branch[at + c];
      w_gamma[c] += scale * d * biased(c);
    }
  }
  same("out", out, w_out, 1e-6);
  same("normed", normed, w_normed, 4e-3);
  same("d_x", d_x, w_d_x, 1e-5);
  same_sums("d_weight", parts, blocks, 4 * DIM, 0, w_weight);
  same_sums("d_shift", parts, blocks, 4 * DIM, DIM, w_shift);
  if (has_branch) {
    same("d_branch", d_branch, w_d_branch, 4e-3);
    same_sums("d_bias", parts, blocks, 4 * DIM, 2 * DIM, w_bias);
  }
  if (has_gamma) {
    same_sums("d_gamma", parts, blocks, 4 * DIM, 3 * DIM, w_gamma);
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
  // The first as [B, T, H, W], the others as [B, H, T, W].
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
  test_add_norm(false, false, false, false);
  test_add_norm(true, true, false, true);
  test_add_norm(true, false, false, false);
  test_add_norm(true, true, true, true);
  test_gelu();
  test_heads();
  return failed ? 1 : 0;
}
