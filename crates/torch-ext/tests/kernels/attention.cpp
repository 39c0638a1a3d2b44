// Runs the source of the attention kernels on the CPU, and compares them with plain loops in
// double. tests/attention.rs compiles this with -DTILES, and runs it with numbers of tokens that
// have this number of tiles.
#include "emulation.h"

// Hardware instructions, as the PTX ISA describes them

static const size_t SHARED_BYTES = 227 * 1024; // the most that a block may have
alignas(128) static uint4 shared_memory[SHARED_BYTES / 16];
static u32 bytes_in_use; // number of bytes that the host requested

static unsigned char* shared_bytes(u32 address, u32 count) {
  if (address % 16 != 0 || address + count > bytes_in_use) {
    std::printf("shared memory is read or written at %u, and %u bytes are in use\n", address, bytes_in_use);
    std::exit(1);
  }
  return reinterpret_cast<unsigned char*>(shared_memory) + address;
}
static u32 shared_address(const void* pointer) {
  return static_cast<u32>(static_cast<const unsigned char*>(pointer) - reinterpret_cast<unsigned char*>(shared_memory));
}

// Copies are made as late as possible. If `there` is false, `from` is never read.
static void copy_async(u32 to, const u16* from, bool there) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    std::printf("a copy from an address that is not a multiple of 16\n");
    std::exit(1);
  }
  this_fiber().copies.push_back([=] {
    unsigned char* place = shared_bytes(to, 16);
    there ? std::memcpy(place, from, 16) : std::memset(place, 0, 16);
  });
}
static void await_copies() {
  for (const auto& copy : this_fiber().copies) {
    copy();
  }
  this_fiber().copies.clear();
}

static u16 element(u32 row_address, u32 column) {
  u16 value;
  std::memcpy(&value, shared_bytes(row_address, 16) + 2 * column, 2);
  return value;
}
// Lane 8 m + r passes the address of row r of matrix m.
static void load_matrices(u32 (&to)[4], u32 from, bool transposed = false) {
  Warp& warp = this_warp();
  const u32 lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
  warp.words[lane][0] = from;
  __syncwarp();
  for (u32 m = 0; m < 4; ++m) {
    const auto at = [&](u32 r, u32 c) -> u32 { return element(warp.words[8 * m + r][0], c); };
    to[m] = transposed ? at(column, row) | at(column + 1, row) << 16 : at(row, column) | at(row, column + 1) << 16;
  }
  __syncwarp();
}
static void load_transposed(u32 (&to)[4], u32 from) { load_matrices(to, from, true); }

static float of_pair(u32 pair, u32 which) { return bits_to_float(which ? pair & 0xffff0000u : pair << 16); }

// mma.m16n8k16, where g = lane / 4 and t = 2 (lane % 4). Register i of the first operand holds row
// g + 8 (i % 2) and columns t + 8 (i / 2) and the next. Register i of the second holds rows t + 8 i
// and the next, and column g. Register i of the sum holds row g + 8 (i / 2) and column t + i % 2.
struct Product {
  float a[16][16], b[16][8];
};
static void multiply_add(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  static Product product; // shared by all warps: no other warp runs between the two barriers
  const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4 * 2;
  __syncwarp();
  for (u32 which = 0; which < 2; ++which) {
    for (u32 i = 0; i < 4; ++i) {
      product.a[g + i % 2 * 8][t + i / 2 * 8 + which] = of_pair(a[i], which);
    }
    product.b[t + which][g] = of_pair(b0, which);
    product.b[t + 8 + which][g] = of_pair(b1, which);
  }
  __syncwarp();
  for (u32 i = 0; i < 4; ++i) {
    for (u32 k = 0; k < 16; ++k) {
      sum[i] += product.a[g + i / 2 * 8][k] * product.b[k][t + i % 2];
    }
  }
  __syncwarp();
}
static float power_of_two(float x) { return std::exp2(x); }
#define INFINITE INFINITY

#include "common.cu"
#include "attention_sizes.h"
#include "attention_tiles.cu"
#include "attention.cu"
#include "attention_backward.cu"

// On a GPU, the initial content of shared memory is undefined. Here, it is NaN in both types.
static std::function<void()> poisoned(u32 bytes) {
  return [bytes] {
    bytes_in_use = bytes;
    std::memset(shared_memory, 0xff, SHARED_BYTES);
  };
}

// Data and plain loops

struct Case {
  u32 images, heads, tokens;
  std::vector<u16> qkv, d_out;
  size_t dim() const { return static_cast<size_t>(heads) * WIDTH; }
  size_t rows() const { return static_cast<size_t>(images) * tokens; }
  // Index of the first element of a token's head: in part 0, 1, or 2 (queries, keys, values) of 3,
  // or in part 0 of 1.
  size_t at(u32 image, u32 token, u32 head, u32 part, u32 thirds) const {
    return ((static_cast<size_t>(image) * tokens + token) * thirds + part) * dim() + head * WIDTH;
  }
};

struct Results {
  std::vector<double> out, log_sums, d_qkv, d_bias;
};

static double dot(const u16* a, const u16* b) {
  double sum = 0;
  for (u32 i = 0; i < WIDTH; ++i) {
    sum += value(a[i]) * value(b[i]);
  }
  return sum;
}

// Adds what one query of a head contributes.
static void add_query(const Case& c, Results& r, u32 image, u32 head, u32 query) {
  const auto* q = &c.qkv[c.at(image, query, head, 0, 3)];
  const auto* d = &c.d_out[c.at(image, query, head, 0, 1)];
  std::vector<double> p(c.tokens), dp(c.tokens);
  double largest = -INFINITY, sum = 0, delta = 0;
  for (u32 key = 0; key < c.tokens; ++key) {
    p[key] = dot(q, &c.qkv[c.at(image, key, head, 1, 3)]) / 8;
    dp[key] = dot(d, &c.qkv[c.at(image, key, head, 2, 3)]);
    largest = std::max(largest, p[key]);
  }
  for (auto& one : p) {
    sum += one = std::exp(one - largest);
  }
  r.log_sums[(static_cast<size_t>(image) * c.heads + head) * c.tokens + query] =
      (largest + std::log(sum)) / std::log(2.0);
  for (u32 key = 0; key < c.tokens; ++key) {
    delta += (p[key] /= sum) * dp[key];
  }
  double* out = &r.out[c.at(image, query, head, 0, 1)];
  double* d_query = &r.d_qkv[c.at(image, query, head, 0, 3)];
  for (u32 key = 0; key < c.tokens; ++key) {
    const size_t k = c.at(image, key, head, 1, 3), v = c.at(image, key, head, 2, 3);
    const double ds = p[key] * (dp[key] - delta) / 8;
    for (u32 i = 0; i < WIDTH; ++i) {
      out[i] += p[key] * value(c.qkv[v + i]);
      d_query[i] += ds * value(c.qkv[k + i]);
      r.d_qkv[k + i] += ds * value(q[i]);
      r.d_qkv[v + i] += p[key] * value(d[i]);
    }
  }
}

static Results by_loops(const Case& c) {
  Results r{std::vector<double>(c.rows() * c.dim()), std::vector<double>(c.rows() * c.heads),
            std::vector<double>(3 * c.rows() * c.dim()), std::vector<double>(3 * c.dim())};
  for (u32 image = 0; image < c.images; ++image)
    for (u32 head = 0; head < c.heads; ++head)
      for (u32 query = 0; query < c.tokens; ++query) add_query(c, r, image, head, query);
  for (size_t i = 0; i < r.d_qkv.size(); ++i) {
    r.d_bias[i % (3 * c.dim())] += r.d_qkv[i];
  }
  return r;
}

// Draws a case whose scores have a standard deviation of about `size`. With a shift, the logarithms
// of all rows are far from zero.
static Case drawn_case(u32 images, u32 heads, u32 tokens, float size, float shift) {
  Case c{images, heads, tokens, {}, {}};
  auto qkv = drawn(3 * c.rows() * c.dim(), std::sqrt(size));
  for (size_t i = 0; i < qkv.size(); ++i) {
    const size_t part = i / c.dim() % 3;
    qkv[i] += part == 0 ? shift : part == 1 ? -shift : 0;
  }
  c.qkv = rounded_all(qkv);
  c.d_out = rounded_all(drawn(c.rows() * c.dim()));
  return c;
}

// Largest errors that rounding explains, relative to the largest value. Where keys and queries have
// a large mean, rounding also disturbs the sum of dS over the keys of a row, which is 0 exactly.
static const double ROUNDING = 8e-3, ROUNDING_OF_SHIFTED = 3e-2;

static void test(const Case& c, bool reversed, double allowed, const char* what) {
  const u32 blocks = c.images * c.heads, dim = static_cast<u32>(c.dim());
  auto out = halves(c.rows() * c.dim()), d_qkv = halves(3 * c.rows() * c.dim());
  auto logs = unwritten(c.rows() * c.heads), parts = unwritten(2 * c.images * c.dim()),
       d_bias = unwritten(3 * c.dim());
  launch(blocks, 1, LANES * FORWARD_WARPS, [&] {
    attention_forward(c.qkv.data(), c.tokens, c.heads, out.data(), logs.data());
  }, reversed, poisoned(forward_bytes(TILES)));
  launch(blocks, 1, LANES * BACKWARD_WARPS, [&] {
    attention_backward(
        c.qkv.data(), out.data(), c.d_out.data(), logs.data(), c.tokens, c.heads, d_qkv.data(), parts.data());
  }, reversed, poisoned(backward_bytes(TILES)));
  launch(3 * dim / LANES, 1, LANES * SUM_WARPS, [&] {
    attention_bias(parts.data(), c.images, dim, d_bias.data());
  }, reversed);
  std::printf("%u tokens, %s\n", c.tokens, what);
  const auto want = by_loops(c);
  same("out", out, want.out, ROUNDING);
  same("log_sums", logs, want.log_sums, 1e-5);
  // Each third is compared relative to its own largest value, because those of values are larger.
  for (u32 third = 0; third < 3; ++third) {
    std::vector<u16> got;
    std::vector<double> exact;
    for (size_t i = 0; i < d_qkv.size(); ++i) {
      if (i / c.dim() % 3 == third) {
        got.push_back(d_qkv[i]);
        exact.push_back(want.d_qkv[i]);
      }
    }
    same(third == 0 ? "d_query" : third == 1 ? "d_key" : "d_value", got, exact, third == 2 ? ROUNDING : allowed);
  }
  same("d_bias", d_bias, want.d_bias, allowed);
}

int main(int count, char** arguments) {
  for (int i = 1; i < count; ++i) {
    const u32 tokens = static_cast<u32>(std::atoi(arguments[i]));
    if ((tokens + TILE - 1) / TILE != TILES) {
      std::printf("%u tokens have not %u tiles\n", tokens, TILES);
      return 1;
    }
    test(drawn_case(2, 2, tokens, 1, 0), false, ROUNDING, "scores of about 1");
    // exp(-score) overflows a float, which shows where subtracting or masking is forgotten.
    test(drawn_case(1, 1, tokens, 1, 4), true, ROUNDING_OF_SHIFTED, "scores of about -128");
  }
  return failed ? 1 : 0;
}
