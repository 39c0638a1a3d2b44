"""The SimDINO training step in PyTorch and timm, which `simdino bench step` is compared with.

It does the same work, written as is usual in Python today: timm's VisionTransformer with
scaled_dot_product_attention, one pass of the backbone per resolution, the MLP head, the loss of the
published code (cosines, Cholesky of the covariance, autograd) in groups of the batch, per-tensor
clipping and the moving average with foreach kernels, fused AdamW, and optionally bf16 autocast and
torch.compile of backbone and head. As in `simdino bench step`, the input is random and drawn on the
device in every step.

    python step.py --config-json JSON [--mode eager|compile] [--device auto|cpu|cuda] [--steps N]

JSON is the resolved config, as `simdino bench step CONFIG --json` prints it under "config", or the
name of a file after an @. The last line printed is a JSON object. Without timm, a plain ViT with
the same operations takes its place, which the JSON states in "peer".
"""

import argparse
import copy
import json
import math
import platform
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# embed_dim, depth, num_heads; as in crates/model/src/config.rs
ARCHS = {
    "vit_nano": (128, 4, 4),
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
}


class PlainBlock(nn.Module):
    """Pre-norm block with drop path, used if timm is missing."""

    def __init__(self, dim, heads, drop_path):
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def dropped(self, x):
        if self.drop_path == 0 or not self.training:
            return x
        keep = 1 - self.drop_path
        mask = x.new_empty(x.shape[0], 1, 1).bernoulli_(keep)
        return x * mask / keep

    def forward(self, x):
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, T, D/H]
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = x + self.dropped(self.proj(attended))
        return x + self.dropped(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class PlainVit(nn.Module):
    """DINO's ViT; returns the normalized CLS token, [B, D]."""

    def __init__(self, dim, depth, heads, patch, image, drop_path):
        super().__init__()
        self.grid = image // patch
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid**2, dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.Sequential(*[PlainBlock(dim, heads, rate) for rate in rates])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def positions(self, rows, cols):
        if rows == self.grid and cols == self.grid:
            return self.pos_embed
        cls, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        patches = patches.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        patches = F.interpolate(patches.float(), (rows, cols), mode="bicubic", antialias=False)
        return torch.cat([cls, patches.flatten(2).transpose(1, 2)], 1)

    def forward(self, images):
        x = self.patch_embed(images)
        rows, cols = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return self.norm(self.blocks(x + self.positions(rows, cols)))[:, 0]


class Head(nn.Module):
    """The SimDINO head: an MLP and unit rows."""

    def __init__(self, in_dim, config):
        super().__init__()
        inner = [config["hidden_dim"]] * (config["num_layers"] - 1)
        widths = [in_dim, *inner, config["out_dim"]]
        layers = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            layers.append(nn.Linear(a, b))
            if i + 2 < len(widths):
                layers += [nn.BatchNorm1d(b)] if config["use_bn"] else []
                layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers)

    def forward(self, x):
        return F.normalize(self.mlp(x).float(), dim=-1)


class Network(nn.Module):
    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, views):
        """Returns [V B, d]; `views` has one tensor per resolution."""
        return self.head(torch.cat([self.backbone(view) for view in views]))


def make_backbone(config):
    """Returns the backbone, its width, and "timm" or "torch"."""
    model = config["model"]
    dim, depth, heads = ARCHS[model["arch"]]
    image, patch, drop_path = model["image_size"], model["patch_size"], model["drop_path_rate"]
    try:
        from timm.models.vision_transformer import VisionTransformer
    except (ImportError, RuntimeError):  # timm is missing, or incompatible with this torch
        return PlainVit(dim, depth, heads, patch, image, drop_path), dim, "torch"
    backbone = VisionTransformer(
        img_size=image,
        patch_size=patch,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        global_pool="token",
        drop_path_rate=drop_path,
        dynamic_img_size=True,
    )
    return backbone, dim, "timm"


def loss_of(student, teacher, objective, groups, batch_size):
    """Returns the negative sum of similarity and weighted coding rate, for student [V, B, d] and
    teacher [2, B, d] in fp32."""
    views, rows, width = student.shape
    similarity = F.cosine_similarity(teacher.unsqueeze(1), student.unsqueeze(0), dim=-1)
    same_view = torch.zeros(2, views, 1, device=student.device, dtype=torch.bool)
    same_view[0, 0], same_view[1, 1] = True, True
    similarity = similarity.masked_fill(same_view, 0)  # [2, V, B]
    compression = similarity.mean(-1).sum() / (2 * views - 2)

    features = student[:2]
    if objective["expa_source"] == "mean_student_teacher":
        features = (features + teacher) / 2
    features = features.reshape(2 * groups, rows // groups, width)
    covariance = features.transpose(1, 2) @ features  # [2 G, d, d]
    eps = objective["eps"] ** 2 if objective["eps_semantics"] == "paper" else objective["eps"]
    alpha = width / (batch_size * eps)
    eye = torch.eye(width, device=student.device)
    factor = torch.linalg.cholesky_ex(eye + alpha * covariance)[0]
    rate = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1).mean()
    gamma = 1 / batch_size + 1 / width
    return -objective["coeff"] * compression - gamma * rate


def groups_of(objective, train):
    """Returns the number of groups in a micro-batch, and the batch size of the formulas, which is
    that of a group with `group_rows`."""
    batch, rows = train["batch_size"], objective.get("group_rows")
    if rows is None:
        return objective["rate_groups"] // train["accumulate"], batch
    rows = min(rows, batch)
    return batch // train["accumulate"] // rows, rows


class Step:
    """Networks, optimizer, and a call that performs a step."""

    def __init__(self, config, device, mode):
        torch.manual_seed(config["run"]["seed"])
        self.config, self.device = config, device
        backbone, dim, self.peer = make_backbone(config)
        student = Network(backbone, Head(dim, config["head"])).to(device)
        teacher = copy.deepcopy(student).eval().requires_grad_(False)
        self.params = list(student.parameters())
        self.teacher_params = list(teacher.parameters())
        decayed = [p for p in self.params if p.ndim >= 2]
        others = [p for p in self.params if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4,
            betas=(config["optim"]["beta1"], config["optim"]["beta2"]),
            eps=config["optim"]["adam_eps"],
            weight_decay=0.04,
            fused=True,
        )
        if mode == "compile":  # one graph per resolution
            for network in (student, teacher):
                network.backbone = torch.compile(network.backbone, dynamic=False)
                network.head = torch.compile(network.head, dynamic=False)
        self.student, self.teacher = student.train(), teacher
        self.bf16 = config["train"]["precision"] == "bf16"
        if config["train"]["precision"] == "tf32":
            torch.set_float32_matmul_precision("high")

    def views(self, batch):
        augment = self.config["augment"]
        shapes = [(2, augment["global_crops_size"])]
        if augment["local_crops_number"] > 0:
            shapes.append((augment["local_crops_number"], augment["local_crops_size"]))
        return [torch.randn(n * batch, 3, s, s, device=self.device) for n, s in shapes]

    def __call__(self):
        train, objective = self.config["train"], self.config["simdino"]
        parts = train["accumulate"]
        batch, width = train["batch_size"] // parts, self.config["head"]["out_dim"]
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(parts):
            views = self.views(batch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                with torch.no_grad():
                    teacher = self.teacher(views[:1])
                student = self.student(views)
            student = student.float().view(-1, batch, width)
            teacher = teacher.float().view(2, batch, width)
            loss = loss_of(student, teacher, objective, *groups_of(objective, train))
            (loss / parts).backward()
        self.clip(self.config["optim"]["clip_grad"])
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.teacher_params, self.params, 1 - 0.996)
        return loss.detach()

    def clip(self, most):
        """Clips each gradient tensor to an L2 norm of at most `most`, without waiting for the
        device."""
        if not most:
            return
        grads = [p.grad for p in self.params if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(grads))
        torch._foreach_mul_(grads, list((most / (norms + 1e-6)).clamp(max=1.0).unbind()))


def time_steps(step, device, warmup, steps):
    """Returns the milliseconds of each timed step, and the peak memory in bytes."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    for _ in range(warmup):
        loss = step()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        wait()
        start = time.perf_counter()
        loss = step()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    if not math.isfinite(loss.item()):
        sys.exit("step.py: the loss is not finite")
    if device.type == "cuda":
        return times, torch.cuda.max_memory_allocated()
    return times, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo") as file:
            lines = (line.partition(":") for line in file)
            return next(value.strip() for key, _, value in lines if key.strip() == "model name")
    except (OSError, StopIteration):
        return platform.machine()


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-json", required=True, help="resolved config, or @FILE with it")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--device", help="instead of the config's run.device")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    text = arguments.config_json
    if text.startswith("@"):
        with open(text[1:]) as file:
            text = file.read()
    config = json.loads(text)
    # Also accepts the JSON line of `simdino bench step` itself.
    return arguments, config.get("config", config)


def main():
    arguments, config = read_arguments()
    name = arguments.device or config["run"]["device"]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("step.py: this torch sees no CUDA device; use --device cpu")
    if config["run"]["threads"]:
        torch.set_num_threads(config["run"]["threads"])
    step = Step(config, device, arguments.mode)
    times, peak = time_steps(step, device, arguments.warmup, arguments.steps)
    step_ms = statistics.median(times)
    answer = {
        "peer": step.peer,
        "mode": arguments.mode,
        "torch": torch.__version__,
        "device": device_name(device),
        "batch_size": config["train"]["batch_size"],
        "precision": config["train"]["precision"],
        "step_ms": step_ms,
        "img_s": 1e3 * config["train"]["batch_size"] / step_ms,
        "peak_memory_bytes": peak,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in step.params),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
