"""Checks the export of weights to timm and transformers and their import with the real program;
writes no fixtures.

What `simdino export` writes must load there without missing or unexpected keys, and give the same
features to 1e-5 of the largest value. The same holds here for what those libraries save.

    python tools/parity/round_trip.py target/debug/simdino target/debug/examples/features
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

DIM, DEPTH, HEADS, PATCH, SIDE = 128, 4, 4, 8, 32
TOLERANCE = 1e-5
SIZES = [(SIDE, SIDE), (48, 24)]
SIMDINO, FEATURES = sys.argv[1:3]


def ours(registers=0, layer_scale=False, mask=False, swiglu=False):
    """Returns random weights of a ViT-nano under our names, which are those of DINOv2."""
    hidden = 344 if swiglu else 4 * DIM
    shapes = {
        "cls_token": (1, 1, DIM), "pos_embed": (1, 1 + (SIDE // PATCH) ** 2, DIM),
        "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,), "norm.bias": (DIM,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, DIM)
    if mask:
        shapes["mask_token"] = (1, DIM)
    ffn = {"w12": (2 * hidden, DIM), "w3": (DIM, hidden)} if swiglu else {"fc1": (hidden, DIM), "fc2": (DIM, hidden)}
    for i in range(DEPTH):
        linear = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
        linear |= {f"mlp.{name}": shape for name, shape in ffn.items()}
        for name, shape in linear.items():
            shapes[f"blocks.{i}.{name}.weight"], shapes[f"blocks.{i}.{name}.bias"] = shape, shape[:1]
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{norm}.weight"] = shapes[f"blocks.{i}.{norm}.bias"] = (DIM,)
        if layer_scale:
            shapes[f"blocks.{i}.ls1.gamma"] = shapes[f"blocks.{i}.ls2.gamma"] = (DIM,)
    return {name: torch.randn(shape) * 0.1 + (1.0 if name.endswith("gamma") else 0.0) for name, shape in shapes.items()}


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def features(weights, images, form, folder):
    """Computes class, register, and patch tokens with this program."""
    save_file({"images": images}, folder / "images.safetensors")
    report = run(FEATURES, weights, folder / "images.safetensors", folder / "out.safetensors", form)
    found = load_file(folder / "out.safetensors")
    parts = [found["cls"][:, None], found.get("registers"), found["patches"]]
    return torch.cat([part for part in parts if part is not None], 1), report


def compare(what, theirs, mine):
    error = ((theirs - mine).abs().max() / theirs.abs().max()).item()
    print(f"{what}: {error:.1e}")
    if not error <= TOLERANCE:
        sys.exit(f"{what}: features differ by {error:.1e} of the largest")


def tokens_of(model, images):
    with torch.no_grad():
        if isinstance(model, VisionTransformer):
            return model.forward_features(images)
        extra = {"interpolate_pos_encoding": True} if isinstance(model, ViTModel) else {}
        return model(images, **extra).last_hidden_state


def both_ways(what, model, weights, form, folder):
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        mine, report = features(weights, images, form, folder)
        for word in ("missing", "unexpected", "another shape"):
            if word in report:
                sys.exit(f"{what}: {report}")
        compare(f"{what} {size[0]}x{size[1]}", tokens_of(model, images), mine)


def exports(folder):
    kinds = {
        "plain": {}, "dinov2": {"layer_scale": True, "mask": True},
        "registers": {"registers": 4, "layer_scale": True, "mask": True},
        "swiglu": {"layer_scale": True, "mask": True, "swiglu": True},
    }
    for kind, options in kinds.items():
        source = folder / f"{kind}.safetensors"
        save_file(ours(**options), source)
        out = folder / f"{kind}-timm"
        run(SIMDINO, "export", source, "--to", "timm", "--out", out, "--check")
        # Loading is strict: timm raises an error for a missing or unexpected key.
        model = timm.create_model(f"local-dir:{out}", checkpoint_path=out / "model.safetensors").eval()
        # timm antialiases; the export contains the weights, in whichever form they were trained.
        both_ways(f"export {kind} to timm", model, source, "antialias", folder)

        out = folder / f"{kind}-hf"
        run(SIMDINO, "export", source, "--to", "hf", "--out", out, "--check")
        model, info = AutoModel.from_pretrained(out, output_loading_info=True)
        lost = {key: value for key, value in info.items() if value}
        if lost:
            sys.exit(f"export {kind} to transformers: {lost}")
        AutoImageProcessor.from_pretrained(out)
        form = "antialias" if "registers" in options else "size"
        both_ways(f"export {kind} to transformers", model.eval(), source, form, folder)

        out = folder / f"{kind}-dinov2"
        run(SIMDINO, "export", source, "--to", "dinov2", "--out", out, "--check")
        written, given = load_file(out / "model.safetensors"), load_file(source)
        if written.keys() != given.keys() or any(not torch.equal(written[k], given[k]) for k in given):
            sys.exit(f"export {kind} to dinov2: other tensors")


def imports(folder):
    size = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    size |= {"num_classes": 0, "global_pool": "token", "dynamic_img_size": True}
    for kind, options in {
        "plain": {}, "registers": {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.1},
        "swiglu": {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.375},
    }.items():
        model = VisionTransformer(**size, **options).eval()
        weights = folder / f"timm-{kind}.pth"
        torch.save(model.state_dict(), weights)
        both_ways(f"import timm {kind} .pth", model, weights, "antialias", folder)
    size = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    size |= {"patch_size": PATCH, "image_size": SIDE, "layer_norm_eps": 1e-6}
    for model, form in [
        (Dinov2Model(Dinov2Config(**size, initializer_range=0.1)), "size"),
        (Dinov2Model(Dinov2Config(**size, use_swiglu_ffn=True)), "size"),
        (Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**size)), "antialias"),
        (ViTModel(ViTConfig(**size, intermediate_size=4 * DIM), add_pooling_layer=False), "size"),
    ]:
        name = type(model).__name__
        out = folder / name
        model.eval().save_pretrained(out)
        both_ways(f"import {name}", model, out / "model.safetensors", form, folder)
        legacy = folder / f"{name}.pth"
        torch.save({"model": model.state_dict()}, legacy, _use_new_zipfile_serialization=False)
        both_ways(f"import {name} legacy .pth", model, legacy, form, folder)


def main():
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        exports(Path(folder))
        imports(Path(folder))


if __name__ == "__main__":
    main()
