"""Writes a fixture of training: twenty steps of each method by plain formulas in torch, in float64.

A small vision transformer, its heads, AdamW, clipping, schedules, layer-wise decay, the teacher's
moving average, and the centers are written out one by one; losses are those of objectives.py and
methods.py. Weights, crops, and masks come from the integer hash of hashed.py, which the Rust test
reproduces, so that only losses and a few numbers about each parameter are stored.

    python tools/parity/training.py        (torch 2.11.0)

Writes crates/trainer/tests/fixtures/training.safetensors. For each method, it has the loss of each
step, and for each parameter of student and teacher after the last step, its norm and its inner
products with hashed numbers. All numbers are in float64.
"""

import math
import platform
from pathlib import Path

import torch
from methods import PROTOTYPES, cross_entropy, dino_term, koleo, moved, patch_term, targets
from methods import temperature
from objectives import DEFAULTS, save, simdino
from torch.nn import functional as F
from torch.nn.functional import cosine_similarity
from hashed import parameters, tensor

OUT = Path(__file__).parents[2] / "crates/trainer/tests/fixtures/training.safetensors"
DIM, DEPTH, HEADS, PATCH, SIDE, LOCAL = 128, 4, 4, 8, 32, 16
HIDDEN, WIDTH, PROTOS = 32, 16, 24
BATCH, VIEWS, STEPS, EPOCH, TOTAL = 6, 4, 20, 5, 40
GRID = SIDE // PATCH
PROJECTIONS = 3

OPTIM = {
    "base_lr": 5e-4, "scale": lambda n: n / 256, "min_lr": 1e-6, "warmup": 2, "start_lr": 0.0,
    "inclusive": True, "layer_decay": 1.0, "patch_mult": 1.0, "wd": (0.04, 0.4), "by_name": False,
    "clip": 3.0, "by_module": False, "frozen_epochs": 1, "freeze_lr": False, "momentum": (0.996, 1.0),
}
SECOND = OPTIM | {
    "base_lr": 4e-3, "scale": lambda n: math.sqrt(n / 1024), "layer_decay": 0.9, "patch_mult": 0.2,
    "by_name": True, "by_module": True, "freeze_lr": True,
}  # fmt: skip
# Norms for clipping that the gradients of such a small network reach.
METHODS = {
    "simdino": {"optim": OPTIM | {"clip": 0.02}, "registers": 0, "scale": None, "patches": False},
    "dino": {"optim": OPTIM | {"clip": 0.02}, "registers": 0, "scale": None, "patches": False},
    "simdinov2": {
        "optim": SECOND | {"start_lr": 1e-6, "inclusive": False, "momentum": (0.9, 1.0), "clip": 0.2},
        "registers": 4, "scale": 0.1, "patches": True,
    },
    "dinov2": {
        "optim": SECOND | {"momentum": (0.992, 1.0), "clip": 0.2},
        "registers": 0, "scale": 1e-5, "patches": True,
    },
}  # fmt: skip


def shapes(method):
    spec = METHODS[method]
    out = {
        "cls_token": (1, 1, DIM), "pos_embed": (1, 1 + GRID * GRID, DIM),
        "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,), "norm.bias": (DIM,),
    }  # fmt: skip
    if spec["registers"]:
        out["register_tokens"] = (1, spec["registers"], DIM)
    if spec["patches"]:
        out["mask_token"] = (1, DIM)
    for i in range(DEPTH):
        block = {
            "norm1": (DIM,), "norm2": (DIM,), "attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM),
            "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM),
        }  # fmt: skip
        for name, shape in block.items():
            out[f"blocks.{i}.{name}.weight"] = shape
            out[f"blocks.{i}.{name}.bias"] = shape[:1]
        if spec["scale"]:
            out[f"blocks.{i}.ls1.gamma"] = out[f"blocks.{i}.ls2.gamma"] = (DIM,)
    out = {f"backbone.{name}": shape for name, shape in out.items()}
    for i, (into, width) in enumerate([(DIM, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, WIDTH)]):
        out[f"head.mlp.{2 * i}.weight"], out[f"head.mlp.{2 * i}.bias"] = (width, into), (width,)
    if method in ("dino", "dinov2"):
        out["head.last_layer.weight_v"] = (PROTOS, WIDTH)
        out["head.last_layer.weight_g"] = (PROTOS, 1)
    return out


def positions(p, side, spec):
    grid = p["backbone.pos_embed"]
    if side == GRID:
        return grid[:, :1], grid[:, 1:]
    square = grid[:, 1:].reshape(1, GRID, GRID, DIM).permute(0, 3, 1, 2)
    if spec["registers"]:  # SimDINOv2
        square = F.interpolate(square, size=(side, side), mode="bicubic", antialias=True)
    else:
        factor = (side + 0.1) / GRID
        square = F.interpolate(square, scale_factor=(factor, factor), mode="bicubic")
    return grid[:, :1], square.permute(0, 2, 3, 1).reshape(1, side * side, DIM)


def norm(p, name, x):
    return F.layer_norm(x, (DIM,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(p, name, x):
    b, t, _ = x.shape
    q, k, v = linear(p, f"{name}.qkv", x).reshape(b, t, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(DIM // HEADS)).softmax(-1)
    return linear(p, f"{name}.proj", (weights @ v).transpose(1, 2).reshape(b, t, DIM))


def backbone(p, images, masks, spec):
    """Returns class tokens and patch tokens."""
    kernel, bias = p["backbone.patch_embed.proj.weight"], p["backbone.patch_embed.proj.bias"]
    x = F.conv2d(images, kernel, bias, stride=PATCH).flatten(2).transpose(1, 2)
    if masks is not None:
        x = torch.where(masks[..., None], p["backbone.mask_token"][None], x)
    of_cls, of_patches = positions(p, images.shape[-1] // PATCH, spec)
    tokens = [(p["backbone.cls_token"] + of_cls).expand(len(x), -1, -1)]
    if spec["registers"]:
        tokens.append(p["backbone.register_tokens"].expand(len(x), -1, -1))
    x = torch.cat([*tokens, x + of_patches], 1)
    for i in range(DEPTH):
        at = f"backbone.blocks.{i}"
        scale = [p.get(f"{at}.ls{j}.gamma", 1.0) for j in (1, 2)]
        x = x + scale[0] * attention(p, f"{at}.attn", norm(p, f"{at}.norm1", x))
        hidden = F.gelu(linear(p, f"{at}.mlp.fc1", norm(p, f"{at}.norm2", x)))
        x = x + scale[1] * linear(p, f"{at}.mlp.fc2", hidden)
    x = norm(p, "backbone.norm", x)
    return x[:, 0], x[:, 1 + spec["registers"] :]


def head(p, x):
    x = F.gelu(linear(p, "head.mlp.0", x))
    x = F.gelu(linear(p, "head.mlp.2", x))
    x = F.normalize(linear(p, "head.mlp.4", x), dim=-1, eps=1e-12)
    if "head.last_layer.weight_v" not in p:
        return x
    v = p["head.last_layer.weight_v"]
    return x @ (p["head.last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True)).T


def crops(step):
    """Returns the views of the images, each with different noise."""
    def view(stream, count, side):
        noise = tensor((count, BATCH, 3, side, side), 5000 + 10 * step + stream)
        image = tensor((BATCH, 3, side, side), 5005 + 10 * step + stream)
        return (image + 0.5 * noise).flatten(0, 1)

    return view(0, 2, SIDE), view(1, VIEWS - 2, LOCAL)


def masks(step):
    """Masks about a third of the patches of every second crop."""
    chosen = tensor((2 * BATCH, GRID * GRID), 5008 + 10 * step) > 0.3
    chosen[1::2] = False
    return chosen


def loss_of(method, student, teacher, step, centers):
    """Returns the loss, and the teacher's rows that the centers are computed from."""
    spec = METHODS[method]
    hidden = masks(step) if spec["patches"] else None
    index = hidden.flatten().nonzero().flatten() if spec["patches"] else None
    globals_, locals_ = crops(step)
    with torch.no_grad():
        cls, patches = backbone(teacher, globals_, None, spec)
        t = head(teacher, cls).view(2, BATCH, -1)
        t_patches = head(teacher, patches.flatten(0, 1)[index]) if spec["patches"] else None
    cls, patches = backbone(student, globals_, hidden, spec)
    local, _ = backbone(student, locals_, None, spec)
    s = head(student, torch.cat([cls, local])).view(VIEWS, BATCH, -1)
    if method in ("simdino", "simdinov2"):
        loss = simdino(s, t, DEFAULTS | {"rate_groups": 2}, (step / TOTAL, 2, BATCH))[0]
    else:
        options = PROTOTYPES | {"teacher_temp": 0.07, "teacher_temp_warmup_epochs": 2}
        temp = temperature(method, options, step, EPOCH)
        q = targets(t.flatten(0, 1), temp, options, centers["center"]).view_as(t)
        loss = dino_term(s, q, 0.1)
    if spec["patches"]:
        s_patches = head(student, patches.flatten(0, 1)[index])
        counts = hidden.sum(1)
        weights = [1 / c for c in counts.tolist() for _ in range(c)]
        if method == "simdinov2":
            similarity = cosine_similarity(s_patches, t_patches, dim=-1)
        else:
            q = targets(t_patches, temp, options, centers["patch_center"])
            similarity = -cross_entropy(q, s_patches, 0.1)
        loss = loss + patch_term(similarity, weights, 2 * BATCH)
    if method == "dinov2":
        loss = loss + 0.1 * koleo(cls.view(2, BATCH, -1))
    return loss, t.flatten(0, 1), t_patches


def cosine(start, end, step):
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / TOTAL))


def learning_rate(optim, step):
    peak, warm = optim["base_lr"] * optim["scale"](BATCH), optim["warmup"] * EPOCH
    if step < warm:
        length = warm - 1 if optim["inclusive"] else warm
        return optim["start_lr"] + (peak - optim["start_lr"]) * step / length
    passed = (step - warm) / (TOTAL - warm)
    return optim["min_lr"] + 0.5 * (peak - optim["min_lr"]) * (1 + math.cos(math.pi * passed))


def multiplier(name, optim):
    if not name.startswith("backbone."):
        return 1.0
    name = name.removeprefix("backbone.")
    if name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    elif name.startswith("norm."):
        layer = DEPTH + 1
    else:
        layer = 0
    mult = optim["layer_decay"] ** (DEPTH + 1 - layer)
    return mult * optim["patch_mult"] if name.startswith("patch_embed.") else mult


def decayed(name, p, optim):
    if optim["by_name"]:
        return not (name.endswith(".bias") or "norm" in name or "gamma" in name)
    return p.dim() >= 2 and not name.endswith(".bias")


def clip(grads, optim):
    def factor(group):
        total = torch.stack([g.norm() for g in group]).norm()
        return min(1.0, optim["clip"] / (total.item() + 1e-6))

    if not optim["by_module"]:
        return {name: g * factor([g]) for name, g in grads.items()}
    modules = {name.split(".")[0] for name in grads}
    factors = {m: factor([g for n, g in grads.items() if n.split(".")[0] == m]) for m in modules}
    return {name: g * factors[name.split(".")[0]] for name, g in grads.items()}


def adamw(p, g, state, lr, wd):
    state["t"] += 1
    state["m"] = 0.9 * state["m"] + 0.1 * g
    state["v"] = 0.999 * state["v"] + 0.001 * g * g
    m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
    return p - lr * wd * p - lr * m / (v.sqrt() + 1e-8)


def update(student, grads, states, optim, step):
    lr, frozen = learning_rate(optim, step), step < optim["frozen_epochs"] * EPOCH
    wd = cosine(*optim["wd"], step)
    for name, g in clip(grads, optim).items():
        rate = lr * multiplier(name, optim)
        if frozen and "last_layer" in name:
            if not optim["freeze_lr"]:
                continue
            rate = 0.0
        decay = wd if decayed(name, g, optim) else 0.0
        student[name] = adamw(student[name].detach(), g, states[name], rate, decay)


def train(method):
    """Returns the losses, and student and teacher after the last step."""
    optim = METHODS[method]["optim"]
    student = parameters(list(shapes(method).items()))
    if method == "dino":  # prototypes of length 1, frozen
        student["head.last_layer.weight_g"] = torch.ones(PROTOS, 1, dtype=torch.float64)
    teacher = {name: p.clone() for name, p in student.items()}
    fixed = {"head.last_layer.weight_g"} if method == "dino" else set()
    zero = {name: torch.zeros_like(p) for name, p in student.items()}
    states = {name: {"t": 0, "m": zero[name], "v": zero[name]} for name in student}
    options = PROTOTYPES
    centers = {name: torch.zeros(1, PROTOS, dtype=torch.float64) for name in ["center", "patch_center"]}
    losses = []
    for step in range(STEPS):
        leaves = {n: p.requires_grad_(n not in fixed) for n, p in student.items()}
        loss, rows, patches = loss_of(method, leaves, teacher, step, centers)
        losses.append(loss.item())
        names = [n for n in leaves if n not in fixed]
        grads = dict(zip(names, torch.autograd.grad(loss, [leaves[n] for n in names])))
        with torch.no_grad():
            update(student, grads, states, optim, step)
            momentum = cosine(*optim["momentum"], step)
            teacher = {n: momentum * p + (1 - momentum) * student[n] for n, p in teacher.items()}
            if method in ("dino", "dinov2"):
                centers["center"] = moved(centers["center"], rows, options)
            if method == "dinov2":
                centers["patch_center"] = moved(centers["patch_center"], patches, options)
    return losses, student, teacher


def fingerprint(p):
    """Returns the norm of a parameter, and its inner products with hashed numbers."""
    flat = p.detach().flatten()
    products = [flat @ tensor((len(flat),), 9000 + i) for i in range(PROJECTIONS)]
    return torch.stack([flat.norm(), *products])


def main():
    out = {}
    for method in METHODS:
        losses, student, teacher = train(method)
        print(method, losses[0], losses[-1])
        out[f"{method}/losses"] = torch.tensor(losses, dtype=torch.float64)
        for side, weights in [("student", student), ("teacher", teacher)]:
            for name, p in weights.items():
                out[f"{method}/{side}/{name}"] = fingerprint(p)
    metadata = {
        "script": "tools/parity/training.py",
        "seed": "none: the hash of tools/parity/hashed.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    OUT.parent.mkdir(exist_ok=True)
    save(OUT, out, metadata)
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
