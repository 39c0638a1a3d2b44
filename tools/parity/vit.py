"""Fixtures of the model crate: the DINO vision transformer and the SimDINO head.

Reference: timm's VisionTransformer (an implementation independent of ours) in float64, torch's
`interpolate` for the positional embedding of another grid, and a plain `nn.Sequential` head. Weights and
images come from an integer hash that the Rust tests repeat bit for bit, so only outputs are stored.

    python tools/parity/vit.py crates/model/tests/fixtures
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

DIM, DEPTH, HEADS, PATCH, SIDE = 128, 4, 4, 8, 32
SAMPLES = 16  # elements of each gradient that are stored


def hashed(count, stream):
    """`count` values in [-1, 1): the splitmix64 finaliser of (stream, index), upper 24 bits."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(stream) * np.uint64(1 << 32)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0


def tensor(shape, stream, scale=1.0, offset=0.0):
    """Rounded to float32 as the Rust side holds it, then widened."""
    values = (hashed(int(np.prod(shape)), stream) * scale + offset).astype(np.float32)
    return torch.from_numpy(values).double().reshape(shape)


def parameters(named_shapes):
    """One stream a parameter, in the order of its name; norm weights are around 1."""
    out = {}
    for stream, (name, shape) in enumerate(sorted(named_shapes)):
        is_norm = name.endswith("weight") and len(shape) == 1
        out[name] = tensor(shape, stream, 0.15, 1.0 if is_norm else 0.0)
    return out


def build(height, width):
    model = VisionTransformer(
        img_size=(height, width), patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS,
        num_classes=0, global_pool="token",
    ).double()
    for block in model.blocks:
        block.attn.fused_attn = False  # so that a hook sees the maps
    model.forward = model.forward_features
    return model


def resize(pos_embed, rows, cols):
    """Bicubic with the scale factors of DINO, (patches + 0.1) / side."""
    side = SIDE // PATCH
    if (rows, cols) == (side, side):
        return pos_embed
    patches = pos_embed[:, 1:].reshape(1, side, side, DIM).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (cols + 0.1) / side)
    patches = F.interpolate(patches, scale_factor=factors, mode="bicubic")
    assert patches.shape[2:] == (rows, cols)
    return torch.cat([pos_embed[:, :1], patches.permute(0, 2, 3, 1).reshape(1, -1, DIM)], 1)


def backbone(height, width, out):
    model = build(height, width)
    shapes = [(n, tuple(p.shape)) for n, p in build(SIDE, SIDE).named_parameters()]
    leaves = {n: p.requires_grad_() for n, p in parameters(shapes).items()}
    rows, cols = height // PATCH, width // PATCH
    state = dict(leaves, pos_embed=resize(leaves["pos_embed"], rows, cols))
    maps = []
    model.blocks[-1].attn.attn_drop.register_forward_hook(lambda _m, i, _o: maps.append(i[0]))
    images = tensor((2, 3, height, width), 1000, 2.0)
    tokens = torch.func.functional_call(model, state, (images,), strict=True)
    cls, patches = tokens[:, 0], tokens[:, 1:]
    weights = [tensor(tuple(t.shape), 1001 + i) for i, t in enumerate([cls, patches])]
    loss = (cls * weights[0]).sum() + (patches * weights[1]).sum() / patches.shape[1]
    loss.backward()
    key = f"{height}x{width}"
    out[f"{key}.cls"], out[f"{key}.patches"] = cls, patches
    out[f"{key}.attention"], out[f"{key}.loss"] = maps[0], loss
    for name, leaf in leaves.items():
        flat = leaf.grad.flatten()
        stride = max(1, flat.numel() // SAMPLES)
        out[f"{key}.grad.{name}"] = flat[::stride][:SAMPLES]
        out[f"{key}.grad_norm.{name}"] = flat.norm()
    out[f"{key}.pos_embed"] = state["pos_embed"]


def head(use_bn, out):
    dim, hidden, width = 24, 40, 16
    layers = []
    for into in (dim, hidden):
        norm = [nn.BatchNorm1d(hidden)] if use_bn else []
        layers += [nn.Linear(into, hidden), *norm, nn.GELU()]
    mlp = nn.ModuleDict({"mlp": nn.Sequential(*layers, nn.Linear(hidden, width))}).double()
    values = parameters([(n, tuple(p.shape)) for n, p in mlp.named_parameters()])
    mlp.load_state_dict(values, strict=False)  # running statistics keep their initial values
    features = tensor((10, dim), 1010, 2.0).requires_grad_()
    rows = F.normalize(mlp["mlp"](features), dim=-1, eps=1e-12)
    (rows * tensor(tuple(rows.shape), 1011)).sum().backward()
    key = "head_bn" if use_bn else "head"
    out[f"{key}.rows"], out[f"{key}.grad"] = rows, features.grad


def main(folder):
    torch.manual_seed(0)
    out = {}
    backbone(32, 32, out)
    backbone(48, 32, out)
    backbone(16, 16, out)
    head(False, out)
    head(True, out)
    out = {k: v.detach().float().contiguous().clone() for k, v in out.items()}
    save_file(out, Path(folder) / "vit.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
