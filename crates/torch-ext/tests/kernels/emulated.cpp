// Runs the text of kernels.cu on the CPU, and compares it with plain loops in double. Compiled and run by
// tests/fused.rs with -DDIM.
#include "emulation.h"

#include "common.cu"
#include "kernels.cu"

static void same_sums(
    const char* what, const std::vector<float>& parts, u32 count, u32 stride, u32 offset,
    const std::vector<double>& want, double allowed = 1e-4) {
  std::vector<float> sums = unwritten(want.size());
  const u32 columns = static_cast<u32>(want.size());
  launch((columns + 31) / 32, 1, 256, [&] {
    sum_of_parts(parts.data() + offset, count, stride, columns, sums.data());
  });
  same(what, sums, want, allowed);
}

// Of three images, the branch has two, and two others are normalized.
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

template <class Stream, class Forward, class Backward>
static void test_add_norm(
    bool has_branch, bool has_bias, bool has_gamma, bool has_factor, bool subsets, Forward forward,
    Backward backward) {
  const u32 images = 3, tokens = 5, rows = images * tokens, blocks = 2;
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

  launch(blocks, 1, 128, [&] {
    forward(
        x.data(), has_branch ? branch.data() : nullptr, has_bias ? bias.data() : nullptr,
        has_gamma ? gamma.data() : nullptr, has_factor ? factor.data() : nullptr, from, to, tokens,
        weight.data(), shift.data(), eps, rows, out.data(), normed.data(), means.data(),
        inverses.data());
  });
  launch(blocks, 1, 128, [&] {
    backward(
        d_normed.data(), d_out.data(), out.data(), means.data(), inverses.data(), weight.data(),
        branch.data(), has_bias ? bias.data() : nullptr, gamma.data(),
        has_factor ? factor.data() : nullptr, from, to, tokens, rows, d_x.data(), d_branch.data(),
        parts.data());
  });

  // What has no place is not written.
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
      // Rounded as the kernel's, so that what follows starts from the same.
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
      const double d = d_out_values[at + c] + (g[c] - sum - hat[c] * product) * inverse;
      w_d_x[at + c] = d;
      if (!branches) continue;
      w_d_branch[b_at + c] = scale * (has_gamma ? gamma[c] : 1.0) * d;
      w_bias[c] += w_d_branch[b_at + c];
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
    same_sums("d_bias", parts, blocks, 4 * DIM, 2 * DIM, w_bias, allowed);
  }
  if (has_gamma) {
    same_sums("d_gamma", parts, blocks, 4 * DIM, 3 * DIM, w_gamma, allowed);
  }
}

static void test_add_norms(bool branch, bool bias, bool gamma, bool factor, bool subsets) {
  test_add_norm<float>(
      branch, bias, gamma, factor, subsets, add_norm_forward_float,
      gamma ? add_norm_backward_gamma_float : branch ? add_norm_backward_plain_float : norm_backward_float);
  test_add_norm<u16>(
      branch, bias, gamma, factor, subsets, add_norm_forward_bf16,
      gamma ? add_norm_backward_gamma_bf16 : branch ? add_norm_backward_plain_bf16 : norm_backward_bf16);
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
  test_add_norms(false, false, false, false, false);
  test_add_norms(false, false, false, false, true);
  test_add_norms(true, true, false, true, false);
  test_add_norms(true, true, false, true, true);
  test_add_norms(true, false, false, false, false);
  test_add_norms(true, true, true, true, false);
  test_add_norms(true, true, true, true, true);
  test_gelu();
  test_heads();
  return failed ? 1 : 0;
}
