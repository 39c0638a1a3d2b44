"""Writes a fixture of the eval crate: the head, losses, and errors of depth estimation,
reimplemented with torch and numpy in float64.

    python tools/parity/depth.py crates/eval/tests/fixtures
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

SEED = 20267
BINS, MIN_DEPTH, MAX_DEPTH = 16, 1e-3, 10.0


def depths(weight, bias, maps):
    """Enlarges the features first, as in the reference; then applies the layer, the weights, and
    their mean."""
    features = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    logits = F.conv2d(features, weight, bias)
    weights = torch.relu(logits) + 0.1
    weights = weights / weights.sum(1, keepdim=True)
    bins = torch.linspace(MIN_DEPTH, MAX_DEPTH, BINS, dtype=torch.float64)
    return torch.einsum("bnhw,n->bhw", weights, bins)


def losses(predicted, truth, variance):
    """Computes the loss pixel by pixel."""
    g = torch.log(predicted + 1e-3) - torch.log(truth + 1e-3)
    errors = g[truth > 0]
    inside = 0.15 * errors.mean() ** 2
    if variance:
        inside = inside + errors.var()
    loss = torch.sqrt(inside)
    for step in (1, 2, 4, 6):
        some, measured = g[:, ::step, ::step], truth[:, ::step, ::step] > 0
        total = torch.zeros((), dtype=torch.float64)
        images, height, width = some.shape
        for i in range(images):
            for y in range(height):
                for x in range(width):
                    if not measured[i, y, x]:
                        continue
                    if y + 2 < height and measured[i, y + 2, x]:
                        total = total + abs(some[i, y, x] - some[i, y + 2, x])
                    if x + 2 < width and measured[i, y, x + 2]:
                        total = total + abs(some[i, y, x] - some[i, y, x + 2])
        loss = loss + 0.5 * total / measured.sum()
    return loss


def head(rng):
    """Takes three steps of torch's AdamW from the same weights; the norm of some gradients exceeds
    the limit."""
    maps = rng.standard_normal((3, 2, 6, 3, 4)).astype(np.float32)
    truth = rng.uniform(0.5, 9.0, (3, 2, 20, 24)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.2] = 0.0
    weight = (0.5 * rng.standard_normal((BINS, 6, 1, 1))).astype(np.float32)
    bias = (0.1 * rng.standard_normal(BINS)).astype(np.float32)
    params = [torch.from_numpy(p).double().requires_grad_() for p in (weight, bias)]
    optimizer = torch.optim.AdamW(params, betas=(0.9, 0.999), weight_decay=0.1)
    first = depths(*params, torch.from_numpy(maps[0]).double()).detach().numpy()
    values, norms = [], []
    for i, (x, y) in enumerate(zip(maps, truth)):
        y = torch.from_numpy(y).double()
        predicted = depths(*params, torch.from_numpy(x).double())
        predicted = F.interpolate(predicted[:, None], y.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        loss = losses(predicted, y, variance=i >= 1)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, 0.12).item())
        cosine = 0.5 * (1 + np.cos(np.pi * i / 38_400))
        optimizer.param_groups[0]["lr"] = 0.02 * (1e-8 + (1 - 1e-8) * cosine)
        optimizer.step()
        values.append(loss.item())
    assert min(norms) < 0.12 < max(norms), norms
    return {
        "head.maps": maps, "head.truth": truth, "head.weight": weight, "head.bias": bias, "head.depths": first,
        "head.losses": np.array(values), "head.last_weight": params[0].detach().numpy(),
    }


def errors(rng):
    """Computes the errors of three images, and their means. One image has unmeasured pixels, and
    one has some out of range."""
    truth = rng.uniform(0.2, 9.5, (3, 12, 15)).astype(np.float32)
    predicted = (truth * np.exp(0.3 * rng.standard_normal(truth.shape) + 0.1)).astype(np.float32)
    truth[0][rng.random(truth[0].shape) < 0.3] = 0.0
    truth[1, :3] = 12.0
    predicted[2, 0], predicted[2, 1] = -1.0, 40.0
    rows = []
    for p, t in zip(predicted.astype(np.float64), truth.astype(np.float64)):
        kept = (t > MIN_DEPTH) & (t < MAX_DEPTH)
        p, t = np.clip(p, MIN_DEPTH, MAX_DEPTH)[kept], t[kept]
        ratio = np.maximum(p / t, t / p)
        log = np.log(p) - np.log(t)
        rows.append([
            (ratio < 1.25).mean(), (ratio < 1.25**2).mean(), (ratio < 1.25**3).mean(), (abs(p - t) / t).mean(),
            np.sqrt(((p - t) ** 2).mean()), np.sqrt((log**2).mean()), abs(np.log10(p) - np.log10(t)).mean(),
            np.sqrt((log**2).mean() - log.mean() ** 2),
        ])
    rows = np.array(rows)
    return {
        "errors.truth": truth, "errors.predicted": predicted, "errors.images": rows, "errors.mean": rows.mean(0),
    }


def main(folder):
    rng = np.random.default_rng(SEED)
    save_file(head(rng) | errors(rng), Path(folder) / "depth.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
