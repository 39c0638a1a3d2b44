"""Writes fixtures of imported backbones with the classes of timm and Hugging Face, in float64.

Every weight comes from the integer hash of hashed.py, with one stream per name in the library's own
order of names. The Rust test writes the same weights under the same names to a file, imports it,
and must reproduce the library's outputs. Only samples of those are stored.

    python tools/parity/families.py crates/model/tests/fixtures
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)
from vit import tensor

SAMPLES = 48  # elements of each output that are stored
SIZES = {"nano": (128, 4, 4), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
LAYERS = 2  # intermediate layers


def values(name, shape, stream):
    """Returns weights scaled by fan-in, so that deep networks stay well conditioned; norms and
    scales are around 1."""
    if len(shape) == 1:
        around_one = name.endswith(("weight", "gamma", "lambda1"))
        return tensor(shape, stream, 0.1, 1.0 if around_one else 0.0)
    if shape[0] == 1:
        return tensor(shape, stream, 0.5)
    fan_in = int(torch.tensor(shape[1:]).prod())
    return tensor(shape, stream, 1.0 / math.sqrt(fan_in))


def fill(model):
    state = model.state_dict()
    names = [[name, list(state[name].shape)] for name in sorted(state)]
    for stream, (name, shape) in enumerate(names):
        state[name] = values(name, tuple(shape), stream)
    model.load_state_dict(state, strict=True)
    return names


class Timm:
    def __init__(self, size, patch, **options):
        dim, depth, heads = SIZES[size]
        self.model = VisionTransformer(
            img_size=4 * patch, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads,
            num_classes=0, global_pool="token", dynamic_img_size=True, **options,
        ).double().eval()
        self.registers = options.get("reg_tokens", 0)
        self.heads = heads
        for block in self.model.blocks:
            block.attn.fused_attn = False

    def run(self, images):
        seen = {}
        last = self.model.blocks[-1].attn
        hooks = [
            last.attn_drop.register_forward_hook(lambda _m, i, _o: seen.update(attention=i[0])),
            last.qkv.register_forward_hook(lambda _m, _i, o: seen.update(qkv=o)),
        ]
        tokens = self.model.forward_features(images)
        for hook in hooks:
            hook.remove()
        b, t, _ = tokens.shape
        q, k, v = seen["qkv"].reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        layers = self.model.get_intermediate_layers(
            images, LAYERS, norm=True, return_prefix_tokens=True
        )
        layers = [torch.cat([prefix, patches], 1) for patches, prefix in layers]
        return tokens, layers, seen["attention"], (q, k, v)


class HuggingFace:
    def __init__(self, model_class, config_class, size, patch, **options):
        dim, depth, heads = SIZES[size]
        sizes = {"hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": heads}
        sizes |= {"patch_size": patch, "image_size": 4 * patch, "layer_norm_eps": 1e-6}
        config = config_class(attn_implementation="sdpa", **(sizes | options))
        heads = config.num_attention_heads
        # Facts that the config states, but that do not follow from shapes.
        odd = options.keys() & {"num_attention_heads", "layer_norm_eps"}
        self.config = {"model_type": config.model_type, **{key: getattr(config, key) for key in sizes}} if odd else None
        if model_class is ViTModel:
            config.intermediate_size = 4 * dim
        extra = {"add_pooling_layer": False} if model_class is ViTModel else {}
        self.model = model_class(config, **extra).double().eval()
        self.registers = options.get("num_register_tokens", 0)
        self.heads = heads

    def run(self, images):
        seen = {}
        last = self.model.encoder.layer[-1].attention.attention
        hooks = [
            getattr(last, name).register_forward_hook(
                lambda _m, _i, o, name=name: seen.update({name: o})
            )
            for name in ("query", "key", "value")
        ]
        extra = {"interpolate_pos_encoding": True} if isinstance(self.model, ViTModel) else {}
        out = self.model(images, output_hidden_states=True, **extra)
        for hook in hooks:
            hook.remove()
        layers = [self.model.layernorm(x) for x in out.hidden_states[-LAYERS:]]
        b, t, _ = out.last_hidden_state.shape
        qkv = [seen[n].view(b, t, self.heads, -1).transpose(1, 2) for n in ("query", "key", "value")]
        # The library's own attention maps would be rounded to single precision.
        scores = qkv[0] @ qkv[1].transpose(-2, -1) * qkv[0].shape[-1] ** -0.5
        return out.last_hidden_state, layers, scores.softmax(-1), qkv


SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
DINOV2 = (Dinov2Model, Dinov2Config)
REGISTERS = (Dinov2WithRegistersModel, Dinov2WithRegistersConfig)
VIT = (ViTModel, ViTConfig)
# name, model, how positions are interpolated
CASES = [
    ("timm_nano_p8", lambda: Timm("nano", 8), "antialias"),
    ("timm_tiny_p16", lambda: Timm("tiny", 16), "antialias"),
    ("timm_small_p16", lambda: Timm("small", 16), "antialias"),
    ("timm_base_p16", lambda: Timm("base", 16), "antialias"),
    (
        "timm_tiny_reg4_p14",
        lambda: Timm("tiny", 14, reg_tokens=4, no_embed_class=True, init_values=1.0),
        "antialias",
    ),
    # 2 x 344 hidden: two thirds of 4 x 128 up to a multiple of 8
    ("timm_nano_swiglu_p14", lambda: Timm("nano", 14, init_values=1.0, mlp_ratio=5.375, **SWIGLU), "antialias"),
    ("hf_dinov2_nano_p14", lambda: HuggingFace(*DINOV2, "nano", 14), "size"),
    ("hf_dinov2_base_p14", lambda: HuggingFace(*DINOV2, "base", 14), "size"),
    ("hf_dinov2_nano_swiglu_p14", lambda: HuggingFace(*DINOV2, "nano", 14, use_swiglu_ffn=True), "size"),
    ("hf_registers_small_p14", lambda: HuggingFace(*REGISTERS, "small", 14, num_register_tokens=4), "antialias"),
    ("hf_vit_tiny_p16", lambda: HuggingFace(*VIT, "tiny", 16), "size"),
    # A different number of heads and epsilon, which only config.json states.
    ("hf_dinov2_nano_heads_p14", lambda: HuggingFace(*DINOV2, "nano", 14, num_attention_heads=8), "size"),
    ("hf_vit_nano_eps_p16", lambda: HuggingFace(*VIT, "nano", 16, layer_norm_eps=0.05), "size"),
]


def sample(x):
    flat = x.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].contiguous().clone()


def main(folder):
    torch.manual_seed(0)
    out, cases = {}, []
    for name, build, interpolation in CASES:
        library = build()
        names = fill(library.model)
        patch = int(name.rsplit("_p", 1)[1])
        case = {"name": name, "tensors": names, "pos_interpolation": interpolation}
        config = getattr(library, "config", None)
        cases.append(case | ({"config": config} if config else {}))
        for rows, cols in ((4, 4), (6, 3)):
            images = tensor((2, 3, rows * patch, cols * patch), 1000, 2.0)
            with torch.no_grad():
                tokens, layers, attention, qkv = library.run(images)
            key = f"{name}.{rows}x{cols}"
            r = library.registers
            out[f"{key}.cls"] = sample(tokens[:, 0])
            out[f"{key}.patches"] = sample(tokens[:, 1 + r :])
            if r:
                out[f"{key}.registers"] = sample(tokens[:, 1 : 1 + r])
            for i, layer in enumerate(layers):
                out[f"{key}.layer{i}"] = sample(torch.cat([layer[:, :1], layer[:, 1 + r :]], 1))
            out[f"{key}.attention"] = sample(attention)
            for part, x in zip("qkv", qkv):
                out[f"{key}.{part}"] = sample(x)
    kernel = tensor((2, 3, 16, 16), 2000)
    for side in (14, 8):
        resized = resample_patch_embed(kernel.float(), [side, side])
        out[f"kernel.{side}"] = resized.double().contiguous()
    metadata = {"cases": json.dumps(cases, separators=(",", ":"))}
    save_file(out, Path(folder) / "families.safetensors", metadata)


if __name__ == "__main__":
    main(sys.argv[1])
