"""The peers of crates/objects, for `cargo xtask bench objects`: SciPy's eigensolvers, pydensecrf,
and torch.

    python objects.py prepare FOLDER [PHOTO]
    python objects.py run FOLDER

`prepare` writes the input that both sides read: a photograph (or a drawing) of 480 x 480 pixels,
the raw pixels of its patches of 16 and 8 pixels as features, and features of a video. `run` reads
the results of `bench_objects` in the same folder, and compares its own with them. Everything runs
on one thread. The last line is JSON with CPU times in seconds, and differences of results.
"""

import json
import os
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

SIDE, TAU, EPS = 480, 0.15, 1e-5
VIDEO_GRID, VIDEO_CHANNELS, CONTEXT, CLASSES = (30, 52), 384, 8, 3
RADIUS, TOPK, TEMPERATURE = 12, 5, 0.1


def drawing():
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    noise = np.random.default_rng(0).normal(0, 6, (SIDE, SIDE, 3))
    image = np.stack([90 + 60 * y / SIDE, 120 + 50 * x / SIDE, 140 + 0 * x], axis=2)
    for cy, cx, radius, color in [(180, 160, 90, (210, 70, 40)), (320, 340, 70, (40, 60, 30))]:
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = color
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def photograph(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.LANCZOS))


def patches(image, size):
    """Returns features of raw pixels: the pixels of each patch minus the mean of the image."""
    n = SIDE // size
    pixels = image.astype(np.float32) - image.reshape(-1, 3).mean(0, dtype=np.float64).astype(np.float32)
    return pixels.reshape(n, size, n, size, 3).transpose(0, 2, 1, 3, 4).reshape(n * n, -1)


def prepare(folder, photo):
    folder.mkdir(parents=True, exist_ok=True)
    image = photograph(photo) if photo else drawing()
    image.tofile(folder / "image.u8")
    for name, size in (("900", 16), ("3600", 8)):
        patches(image, size).astype(np.float32).tofile(folder / f"features_{name}.f32")
    height, width = VIDEO_GRID
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for k, (cy, cx) in enumerate([(240, 240), (160, 160), (330, 320)]):
        disk = (y - cy) ** 2 + (x - cx) ** 2 < 100**2
        coarse = disk[8::16, 8::16]
        np.kron(coarse, np.ones((16, 16), bool)).astype(np.uint8).tofile(folder / f"mask_{k}.u8")
    rng = np.random.default_rng(1)
    still = rng.normal(size=(height * width, VIDEO_CHANNELS))
    video = still + 0.5 * rng.normal(size=(CONTEXT + 1, height * width, VIDEO_CHANNELS))
    video.astype(np.float32).tofile(folder / "video.f32")


def timed(work, times=3):
    """Returns the shortest of several CPU times in seconds, so that a busy machine matters less."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def graph(features):
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T > TAU
    affinity = np.where(alike, 1.0, EPS)
    return affinity, affinity.sum(1)


def dense(affinity, sums):
    from scipy.linalg import eigh

    _, vectors = eigh(np.diag(sums) - affinity, np.diag(sums), subset_by_index=[1, 2])
    return vectors[:, 0]


def lanczos(affinity, sums):
    from scipy.sparse.linalg import eigsh

    root = 1 / np.sqrt(sums)
    start = np.random.default_rng(0).normal(size=len(sums))
    values, vectors = eigsh(affinity * root[:, None] * root[None, :], k=2, which="LA", v0=start)
    return vectors[:, np.argsort(values)[0]] * root


def difference(theirs, ours):
    """Returns the largest difference of two vectors up to sign, relative to the largest entry."""
    sign = np.sign(theirs @ ours)
    return float(np.abs(theirs * sign - ours).max() / np.abs(theirs).max())


def cuts(folder, result):
    for name, times in (("900", 3), ("3600", 1)):
        features = np.fromfile(folder / f"features_{name}.f32", np.float32).reshape(int(name), -1)
        seconds, (affinity, sums) = timed(lambda: graph(features))
        result[f"graph_{name}"] = seconds
        for solver in (lanczos, dense):
            key = f"{solver.__name__}_{name}"
            result[key], vector = timed(lambda: solver(affinity, sums), times)
            ours = folder / f"ours_{name}.f64"
            if ours.exists():
                result[f"difference_{key}"] = difference(vector, np.fromfile(ours))


def crf(folder, result):
    import pydensecrf.densecrf as densecrf
    from pydensecrf.utils import unary_from_softmax

    image = np.fromfile(folder / "image.u8", np.uint8).reshape(SIDE, SIDE, 3)
    mask = np.fromfile(folder / "mask_0.u8", np.uint8).reshape(SIDE, SIDE).astype(np.float64)
    logits = np.stack([1 - mask, mask])
    softmax = np.exp(logits) / np.exp(logits).sum(0)

    def infer():
        field = densecrf.DenseCRF2D(SIDE, SIDE, 2)
        field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(softmax)))
        field.addPairwiseGaussian(sxy=3, compat=7)
        field.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(image), compat=10)
        return np.array(field.inference(10))[1]

    result["crf"], marginal = timed(infer)
    ours = folder / "ours_crf.f32"
    if ours.exists():
        result["difference_crf"] = float(np.abs(np.fromfile(ours, np.float32) - marginal).max())


def video(folder, result):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    height, width = VIDEO_GRID
    cells = height * width
    frames = torch.from_numpy(np.fromfile(folder / "video.f32", np.float32)).view(CONTEXT + 1, cells, -1)
    ids = torch.arange(cells) * CLASSES // cells
    labels = F.one_hot(ids, CLASSES).float().T.expand(CONTEXT, CLASSES, cells)
    y, x = torch.arange(cells) // width, torch.arange(cells) % width
    near = ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)
    near = near.float().expand(CONTEXT, cells, cells)

    def step():
        sources = F.normalize(frames[:CONTEXT], dim=2)
        target = F.normalize(frames[CONTEXT], dim=1).T
        weights = torch.exp(torch.bmm(sources, target.expand(CONTEXT, -1, -1)) / TEMPERATURE) * near
        weights = weights.reshape(-1, cells)
        least = torch.topk(weights, TOPK, dim=0).values.min(dim=0).values
        weights[weights < least] = 0
        weights = weights / weights.sum(0, keepdim=True)
        return labels.permute(1, 0, 2).reshape(CLASSES, -1) @ weights

    with torch.no_grad():
        result["vos"], soft = timed(step)
    ours = folder / "ours_vos.f32"
    if ours.exists():
        found = np.fromfile(ours, np.float32).reshape(cells, CLASSES)
        result["difference_vos"] = float(np.abs(found - soft.T.numpy()).max())


def main(command, folder, photo=None):
    if command == "prepare":
        return prepare(Path(folder), photo)
    result = {}
    for part in (crf, video, cuts):
        part(Path(folder), result)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
