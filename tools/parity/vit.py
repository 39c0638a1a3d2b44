"""Writes fixtures of the model crate: the vision transformers of DINO and DINOv2, and the heads.

The reference is timm's VisionTransformer (an implementation independent of ours) in float64, with
torch's `interpolate` for the positional embedding of other grids, and a plain `nn.Sequential` head.
Weights and images come from an integer hash that the Rust tests reproduce exactly, so that only
outputs are stored.

    python tools/parity/vit.py crates/model/tests/fixtures
"""

import sys
from pathlib import Path

import torch
from hashed import parameters, tensor
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

DIM, DEPTH, HEADS, PATCH, SIDE = 128, 4, 4, 8, 32
SAMPLES = 16  # elements of each gradient that are stored


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
    """Interpolates bicubically with DINO's scale factors, (patches + 0.1) / side."""
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
    gradients(key, leaves, out)
    out[f"{key}.pos_embed"] = state["pos_embed"]


# timm's transformer passes its own activation to the layer, which is GELU by default.
SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.375}
# name, timm's options, side of the images, how positions are resized
DINOV2 = [
    ("registers", {"reg_tokens": 3, "init_values": 1.0}, (48, 32), {"antialias": True}),
    ("shrunk", {"reg_tokens": 1, "init_values": 1.0}, (16, 24), {"antialias": True}),
    ("swiglu", SWIGLU | {"init_values": 1.0}, (48, 32), {}),
]
RENAMED = [("reg_token", "register_tokens"), ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3")]


def our_name(name, options):
    for theirs, ours in RENAMED if "mlp_layer" in options else RENAMED[:1]:
        name = name.replace(theirs, ours)
    return name


def dinov2(name, options, size, resizing, out):
    """Runs timm's blocks, with tokens assembled as in DINOv2: first masks, then positions, then
    registers."""
    model = VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS,
        num_classes=0, no_embed_class=False, dynamic_img_size=True, **options,
    ).double()
    theirs = {our_name(n, options): n for n, _ in model.named_parameters()}
    side, registers = SIDE // PATCH, options.get("reg_tokens", 0)
    shapes = {ours: tuple(model.get_parameter(n).shape) for ours, n in theirs.items()}
    shapes["pos_embed"] = (1, 1 + side * side, DIM)
    shapes["mask_token"] = (1, DIM)
    leaves = {n: p.requires_grad_() for n, p in parameters(list(shapes.items())).items()}
    images = tensor((2, 3, *size), 1000, 2.0)
    rows, cols = size[0] // PATCH, size[1] // PATCH
    masks = tensor((2, rows * cols), 1003) > 0.3
    kernel, bias = leaves["patch_embed.proj.weight"], leaves["patch_embed.proj.bias"]
    x = F.conv2d(images, kernel, bias, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.where(masks[..., None], leaves["mask_token"][None], x)
    grid = leaves["pos_embed"][:, 1:].reshape(1, side, side, DIM).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(rows, cols), mode="bicubic", **resizing)
    x = x + grid.permute(0, 2, 3, 1).reshape(1, -1, DIM)
    cls = leaves["cls_token"] + leaves["pos_embed"][:, :1]
    tokens = [cls.expand(2, -1, -1)]
    if registers:
        tokens.append(leaves["register_tokens"].expand(2, -1, -1))
    x = torch.cat([*tokens, x], 1)
    for i, block in enumerate(model.blocks):
        prefix = f"blocks.{i}."
        own = {theirs[n].removeprefix(prefix): p for n, p in leaves.items() if n.startswith(prefix)}
        x = torch.func.functional_call(block, own, (x,), strict=True)
    x = F.layer_norm(x, (DIM,), leaves["norm.weight"], leaves["norm.bias"], 1e-6)
    found = [x[:, 0], x[:, 1 + registers :], x[:, 1 : 1 + registers]]
    weights = [tensor(tuple(t.shape), 1001 + i) for i, t in enumerate(found[:2])]
    loss = (found[0] * weights[0]).sum() + (found[1] * weights[1]).sum() / found[1].shape[1]
    loss.backward()
    out[f"{name}.cls"], out[f"{name}.patches"], out[f"{name}.registers"] = found
    out[f"{name}.masks"], out[f"{name}.loss"] = masks.double(), loss
    gradients(name, leaves, out)


def gradients(key, leaves, out):
    for name, leaf in leaves.items():
        flat = leaf.grad.flatten()
        stride = max(1, flat.numel() // SAMPLES)
        out[f"{key}.grad.{name}"] = flat[::stride][:SAMPLES]
        out[f"{key}.grad_norm.{name}"] = flat.norm()


def prototype_head(out):
    dim, hidden, width, prototypes = 24, 40, 16, 30
    layers = [nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
    mlp = nn.ModuleDict({"mlp": nn.Sequential(*layers, nn.Linear(hidden, width))}).double()
    last = nn.utils.parametrizations.weight_norm(nn.Linear(width, prototypes, bias=False)).double()
    shapes = [(n, tuple(p.shape)) for n, p in mlp.named_parameters()]
    shapes += [("last_layer.weight_g", (prototypes, 1)), ("last_layer.weight_v", (prototypes, width))]
    values = parameters(shapes)
    with torch.no_grad():
        last.parametrizations.weight.original0.copy_(values.pop("last_layer.weight_g"))
        last.parametrizations.weight.original1.copy_(values.pop("last_layer.weight_v"))
    mlp.load_state_dict(values)
    features = tensor((10, dim), 1010, 2.0).requires_grad_()
    scores = last(F.normalize(mlp["mlp"](features), dim=-1, eps=1e-12))
    (scores * tensor(tuple(scores.shape), 1011)).sum().backward()
    out["prototypes.scores"], out["prototypes.grad"] = scores, features.grad
    for i, part in enumerate(["g", "v"]):
        grad = getattr(last.parametrizations.weight, f"original{i}").grad
        out[f"prototypes.grad_{part}"] = grad


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
    for case in DINOV2:
        dinov2(*case, out)
    prototype_head(out)
    out = {k: v.detach().float().contiguous().clone() for k, v in out.items()}
    save_file(out, Path(folder) / "vit.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
