// Autograd functions for the fused operations of a transformer block. On CUDA, they use the kernels
// of kernels.h; elsewhere, they compute the same formulas with libtorch's operators, which lets
// tests check them on a CPU.
#include "function.h"

#include <array>
#include <limits>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>

#include "kernels.h"

namespace {
using simdino::fused::AddNormGradients;
using simdino::fused::aligned;
using simdino::fused::AutogradContext;
using simdino::fused::Branch;
using simdino::fused::hand_over;
using simdino::fused::Normed;
using simdino::fused::Selection;
using simdino::fused::Optional;
using simdino::fused::optional;
using simdino::fused::ready;
using simdino::fused::Tensor;
using simdino::fused::variable_list;
using simdino::fused::WithoutAutocast;

// Formulas with libtorch's operators

// Returns the indices of the `count` images that have a place, in the order of their places.
// `places` holds the place of each image, or a negative number if it has none.
Tensor images_by_place(const Tensor& places, int64_t count) {
  const auto last = at::where(places < 0, std::numeric_limits<int32_t>::max(), places);
  return last.argsort().narrow(0, 0, count);
}

// Selects the entries of images that have a place, in the order of their places, from a tensor with
// an entry per image. Returns all entries if `places` is undefined.
Tensor placed(const Tensor& of_all, const Tensor& places, int64_t count) {
  return places.defined() ? of_all.index_select(0, images_by_place(places, count)) : of_all;
}

// Inverse of `placed`: returns `images` entries, with zeros for images without a place.
Tensor spread(const Tensor& chosen, const Tensor& places, int64_t images) {
  if (!places.defined()) {
    return chosen;
  }
  auto sizes = chosen.sizes().vec();
  sizes[0] = images;
  return at::zeros(sizes, chosen.options())
      .index_copy(0, images_by_place(places, chosen.size(0)), chosen);
}

// Returns factor[image] * gamma for the images of a branch, broadcastable to [images, T, D], or an
// undefined tensor if there is neither.
Tensor scale_of(const Branch& branch, c10::ScalarType kind) {
  Tensor scale;
  if (branch.factor.defined()) {
    scale = placed(branch.factor, branch.places, branch.images).to(kind).view({-1, 1, 1});
  }
  if (branch.gamma.defined()) {
    scale = scale.defined() ? scale * branch.gamma : branch.gamma;
  }
  return scale;
}

Tensor with_bias(const Branch& branch, c10::ScalarType kind) {
  const auto output = branch.output.to(kind);
  return branch.bias.defined() ? output + branch.bias : output;
}

namespace plain {
Normed add_norm(
    const Tensor& x, const Branch& branch, const Selection& selection, const Tensor& weight,
    const Tensor& shift, double eps, c10::ScalarType kind) {
  const auto wide = weight.scalar_type();
  Normed made;
  made.out = x;
  if (branch.output.defined()) {
    const auto scale = scale_of(branch, wide);
    const auto value = with_bias(branch, wide);
    const auto added = scale.defined() ? scale * value : value;
    made.out = (x.to(wide) + spread(added, branch.places, x.size(0))).to(x.scalar_type());
  }
  Tensor normed;
  std::tie(normed, made.mean, made.inverse) =
      at::native_layer_norm(made.out.to(wide), weight.sizes(), weight, shift, eps);
  made.normed = placed(normed, selection.places, selection.count).to(kind);
  return made;
}

AddNormGradients add_norm_backward(
    const Tensor& d_normed, const Tensor& d_out, const Normed& saved, const Branch& branch,
    const Selection& selection, const Tensor& weight) {
  AddNormGradients made;
  const auto wide = weight.scalar_type();
  const auto stream = saved.out.scalar_type();
  const auto shift = at::zeros_like(weight);
  Tensor d_x;
  std::tie(d_x, made.weight, made.shift) = at::native_layer_norm_backward(
      spread(d_normed.to(wide), selection.places, saved.out.size(0)), saved.out.to(wide),
      weight.sizes(), saved.mean, saved.inverse, weight, shift, {true, true, true});
  if (d_out.defined()) {
    d_x = d_x + d_out;
  }
  made.x = d_x.to(stream);
  if (branch.kind == c10::ScalarType::Undefined) {
    return made;
  }
  d_x = placed(d_x, branch.places, branch.images);
  const auto scale = scale_of(branch, wide);
  const auto d_value = scale.defined() ? d_x * scale : d_x;
  made.branch = d_value.to(branch.kind);
  const auto rows = [](const Tensor& t) { return t.flatten(0, -2).sum(0); };
  if (branch.bias.defined()) {
    made.bias = rows(d_value);
  }
  if (branch.gamma.defined()) {
    auto d_scaled = d_x * with_bias(branch, wide);
    if (branch.factor.defined()) {
      const auto factor = placed(branch.factor, branch.places, branch.images);
      d_scaled = d_scaled * factor.to(wide).view({-1, 1, 1});
    }
    made.gamma = rows(d_scaled);
  }
  return made;
}

Tensor bias_gelu(const Tensor& x, const Tensor& bias) {
  return at::gelu(x.to(bias.scalar_type()) + bias).to(x.scalar_type());
}

std::pair<Tensor, Tensor> bias_gelu_backward(
    const Tensor& d_activated, const Tensor& x, const Tensor& bias) {
  const auto kind = bias.scalar_type();
  const auto d_sum = at::gelu_backward(d_activated.to(kind), x.to(kind) + bias);
  return {d_sum.to(x.scalar_type()), d_sum.flatten(0, -2).sum(0)};
}

std::pair<Tensor, Tensor> merge_heads_backward(
    const Tensor& d_query, const Tensor& d_key, const Tensor& d_value) {
  // 3 x [B, H, T, W] -> [B, T, 3, H, W] -> [B, T, 3 D]
  const auto merged = at::stack({d_query, d_key, d_value}, 0).permute({1, 3, 0, 2, 4}).flatten(2);
  const auto wide = merged.scalar_type() == at::kBFloat16 ? merged.to(at::kFloat) : merged;
  return {merged, wide.flatten(0, -2).sum(0)};
}
}  // namespace plain

// Autograd functions

// Returns the type of the arithmetic and of the parameters for a residual stream x.
c10::ScalarType wide_of(const Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? at::kFloat : x.scalar_type();
}

void check_vector(const char* name, const Tensor& t, int64_t size, c10::ScalarType kind) {
  TORCH_CHECK(
      !t.defined() || (t.dim() == 1 && t.size(0) == size && t.scalar_type() == kind), name,
      " must be [", size, "] of ", kind, ", got ", t.defined() ? t.sizes() : at::IntArrayRef(), " of ",
      t.defined() ? t.scalar_type() : kind);
}

void check_norm(
    const Tensor& x, const Selection& selection, const Tensor& weight, const Tensor& shift) {
  TORCH_CHECK(x.dim() == 3, "x must be [B, T, D], got ", x.sizes());
  check_vector("weight", weight, x.size(2), wide_of(x));
  check_vector("shift", shift, x.size(2), wide_of(x));
  check_vector("places of normed images", selection.places, x.size(0), at::kInt);
  TORCH_CHECK(
      selection.count >= 0 && selection.count <= x.size(0), selection.count, " of ", x.size(0),
      " images cannot be normalized");
}

void check_branch(const Branch& branch, const Tensor& x) {
  if (!branch.output.defined()) {
    return;
  }
  const auto images = branch.places.defined() ? branch.images : x.size(0);
  const std::array<int64_t, 3> expected{images, x.size(1), x.size(2)};
  TORCH_CHECK(
      branch.output.sizes() == at::IntArrayRef(expected), "the branch must be ",
      at::IntArrayRef(expected), ", got ", branch.output.sizes());
  check_vector("bias", branch.bias, x.size(2), wide_of(x));
  check_vector("gamma", branch.gamma, x.size(2), wide_of(x));
  check_vector("factor", branch.factor, x.size(0), at::kFloat);
  check_vector("places of the branch's images", branch.places, x.size(0), at::kInt);
}

// Returns whether kernels support parameters like this one and activations of `kind` in a network
// of width `dim`.
bool by_kernels(const Tensor& parameter, c10::ScalarType kind, int64_t dim) {
  return parameter.is_cuda() && parameter.scalar_type() == at::kFloat && kind == at::kBFloat16 &&
         simdino::fused::why_not(parameter.device().index(), dim).empty();
}

// Returns whether the GELU kernel supports activations [.., C]: it processes eight columns at once.
bool gelu_by_kernel(const Tensor& x, const Tensor& bias, int64_t dim) {
  return x.size(-1) % 8 == 0 && by_kernels(bias, x.scalar_type(), dim);
}

// Returns the gradient [B, H, T, W] of queries, keys, or values in a form that allows the kernel to
// load eight values along W at once. Those from attention already have that form.
Tensor ready_by_eights(const Tensor& d) {
  bool by_eights = d.stride(3) == 1 && aligned(d);
  for (int64_t dimension = 0; dimension < 3; ++dimension) {
    by_eights = by_eights && d.stride(dimension) % 8 == 0;
  }
  return by_eights ? d : ready(d);
}

struct AddNorm : public torch::autograd::Function<AddNorm> {
  // Arguments that are not tensors.
  struct Settings {
    double eps;
    int64_t kind, selected;
  };

  static variable_list forward(
      AutogradContext* ctx, const Tensor& x, const Optional& output, const Optional& bias,
      const Optional& gamma, const Tensor& weight, const Tensor& shift, const Optional& factor,
      const Optional& places, const Optional& selected_places, const Settings& settings) {
    const WithoutAutocast plain_types;
    const auto kind = static_cast<c10::ScalarType>(settings.kind);
    const Branch branch{
        output ? output->scalar_type() : c10::ScalarType::Undefined, output ? output->size(0) : 0,
        ready(output), ready(bias), ready(gamma), ready(factor), ready(places)};
    const Selection selection{selected_places ? settings.selected : x.size(0), ready(selected_places)};
    check_norm(x, selection, weight, shift);
    check_branch(branch, x);
    const auto made = by_kernels(weight, kind, x.size(-1))
        ? simdino::fused::add_norm(ready(x), branch, selection, ready(weight), ready(shift), settings.eps)
        : plain::add_norm(x, branch, selection, weight, shift, settings.eps, kind);
    // Only the gradient of gamma needs the branch's output.
    const auto seen = branch.gamma.defined() ? branch.output : Tensor();
    ctx->save_for_backward(
        {made.out, made.mean, made.inverse, seen, branch.bias, branch.gamma, branch.factor,
         branch.places, selection.places, weight});
    ctx->saved_data["branch"] = static_cast<int64_t>(branch.kind);
    ctx->saved_data["images"] = branch.images;
    ctx->saved_data["normed"] = settings.kind;
    ctx->saved_data["selected"] = selection.count;
    ctx->set_materialize_grads(false);
    return output ? variable_list{made.normed, made.out} : variable_list{made.normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto number = [&](const char* of) { return ctx->saved_data[of].toInt(); };
    const auto kind = [&](const char* of) { return static_cast<c10::ScalarType>(number(of)); };
    const Normed made{saved[0], {}, saved[1], saved[2]};
    const Branch branch{kind("branch"), number("images"), saved[3], saved[4],
                        saved[5],       saved[6],         saved[7]};
    const Selection selection{number("selected"), saved[8]};
    const auto& weight = saved[9];
    auto d_normed = grads[0].defined() ? ready(grads[0]) : Tensor();
    if (!d_normed.defined()) {
      const auto& out = made.out;
      d_normed = at::zeros(
          {selection.count, out.size(1), out.size(2)}, out.options().dtype(kind("normed")));
    }
    const auto d_out = grads.size() > 1 ? ready(grads[1]) : Tensor();
    const auto d = by_kernels(weight, kind("normed"), weight.size(0))
        ? simdino::fused::add_norm_backward(d_normed, d_out, made, branch, selection, ready(weight))
        : plain::add_norm_backward(d_normed, d_out, made, branch, selection, weight);
    return {d.x, d.branch, d.bias, d.gamma, d.weight, d.shift, {}, {}, {}, {}};
  }
};

struct BiasGelu : public torch::autograd::Function<BiasGelu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& bias, int64_t dim) {
    const WithoutAutocast plain_types;
    TORCH_CHECK(
        bias.dim() == 1 && x.size(-1) == bias.size(0), "bias must be [", x.size(-1), "], got ",
        bias.sizes());
    ctx->save_for_backward({x, bias});
    ctx->saved_data["dim"] = dim;
    return gelu_by_kernel(x, bias, dim)
        ? simdino::fused::bias_gelu(ready(x), ready(bias), dim)
        : plain::bias_gelu(x, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1];
    const auto dim = ctx->saved_data["dim"].toInt();
    const auto [d_x, d_bias] = gelu_by_kernel(x, bias, dim)
        ? simdino::fused::bias_gelu_backward(ready(grads[0]), ready(x), ready(bias), dim)
        : plain::bias_gelu_backward(grads[0], x, bias);
    return {d_x, d_bias, {}};
  }
};

struct SplitHeads : public torch::autograd::Function<SplitHeads> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& qkv, const Optional& bias, int64_t heads) {
    const WithoutAutocast plain_types;
    TORCH_CHECK(
        qkv.dim() == 3 && heads > 0 && qkv.size(2) % (3 * heads) == 0, "qkv must be [B, T, 3 D] for ",
        heads, " heads, got ", qkv.sizes());
    ctx->saved_data["bias"] = bias.has_value();
    // [B, T, 3 D] -> [B, T, 3, H, W] -> 3 x [B, H, T, W]
    auto parts = qkv.view({qkv.size(0), qkv.size(1), 3, heads, -1}).permute({2, 0, 3, 1, 4}).unbind(0);
    return {parts[0], parts[1], parts[2]};
  }

  static variable_list backward(AutogradContext* ctx, variable_list d) {
    const bool kernels = d[0].is_cuda() && d[0].scalar_type() == at::kBFloat16 && d[0].size(3) % 8 == 0 &&
        simdino::fused::why_not(d[0].device().index(), d[0].size(1) * d[0].size(3)).empty();
    const auto [merged, sums] = kernels
        ? simdino::fused::merge_heads_backward(
              ready_by_eights(d[0]), ready_by_eights(d[1]), ready_by_eights(d[2]))
        : plain::merge_heads_backward(d[0], d[1], d[2]);
    return {merged, ctx->saved_data["bias"].toBool() ? sums : Tensor(), {}};
  }
};
}  // namespace

const char* simdino_fused_why_not(int cuda_index, int64_t dim) noexcept {
  return guarded([&] {
    const auto why = simdino::fused::why_not(cuda_index, dim);
    TORCH_CHECK(why.empty(), why);
  });
}

const char* simdino_fused_add_norm(const SimdinoAddNorm* a, tensor_ptr* out) noexcept {
  return guarded([&] {
    const AddNorm::Settings settings{a->eps, a->kind, a->selected};
    const auto made = AddNorm::apply(
        *a->x, optional(a->output), optional(a->bias), optional(a->gamma), *a->weight, *a->shift,
        optional(a->factor), optional(a->places), optional(a->selected_places), settings);
    hand_over(made, out);
  });
}

const char* simdino_fused_bias_gelu(
    tensor_ptr x, tensor_ptr bias, int64_t dim, tensor_ptr* out) noexcept {
  return guarded([&] { hand_over({BiasGelu::apply(*x, *bias, dim)}, out); });
}

const char* simdino_fused_split_heads(
    tensor_ptr qkv, tensor_ptr bias, int64_t heads, tensor_ptr* out) noexcept {
  return guarded([&] { hand_over(SplitHeads::apply(*qkv, optional(bias), heads), out); });
}
