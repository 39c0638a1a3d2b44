"""Writes fixtures of the crate objects: MaskCut, its eigenvectors, the dense CRF, and label
propagation.

    python tools/parity/maskcut.py crates/objects/tests/fixtures
    python tools/parity/maskcut.py crates/objects/tests/fixtures CAMVID_FOLDER     # photos.json alone
    python tools/parity/maskcut.py signs FOLDER_OF_IMAGES

The published algorithms are reimplemented in a simple way: with SciPy's dense generalized
eigensolver and connected components, pydensecrf, and the full similarity matrix of a video in
numpy. Inputs are not stored, because both sides compute them from an integer hash (`hashed`), or
from the raw pixels of photographs of the pack CamVid; of those, only masks are stored.

`signs` counts how often the masks of images depend on the sign of the eigenvector, which the published code leaves to
its solver.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads would only wait for each other

import numpy as np
from scipy import ndimage
from scipy.linalg import eigh

TAU, EPS, MASKS, EQUAL = 0.15, 1e-5, 3, 1e-8


def hashed(which, count):
    """Returns numbers in (-1, 1) that depend only on `which` and their index."""
    z = np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (z + np.uint64((which << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 52) - 1.0


# --- MaskCut ---


def second_eigenvector(features):
    """Returns the second eigenvector, and the second and third eigenvalues, of features in double
    precision."""
    length = np.linalg.norm(features, axis=1)
    alike = features @ features.T > TAU * length[:, None] * length[None, :]
    affinity = np.where(alike, 1.0, EPS)
    sums = affinity.sum(1)
    values, vectors = eigh(np.diag(sums) - affinity, np.diag(sums), subset_by_index=[1, 2])
    return vectors[:, 0], values


def first_largest(x):
    """Returns the index of the first entry that is the largest, up to rounding."""
    return int(np.argmax(x >= x.max() - EQUAL * np.abs(x).max()))


def mask_of(vector, grid, sign):
    """Performs one round. `sign` is "seed" for the rule of the crate, or "solver" for that of the
    published code."""
    seed = first_largest(np.abs(vector))
    if sign == "seed" and vector[seed] < 0:
        vector = -vector
    side = vector - vector.mean() > (EQUAL * np.abs(vector).max() if sign == "seed" else 0)
    corners = side.reshape(grid)[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    if corners >= 3 or not side[seed]:
        vector, side = -vector, ~side
    seed = first_largest(vector)
    parts, _ = ndimage.label(side.reshape(grid))
    return parts == parts.reshape(-1)[seed]


def iou(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 0.0


def maskcut(features, grid, sign="seed"):
    """Returns masks of patches, and the eigenvector and eigenvalues of each round."""
    features = features.astype(np.float64)
    masks, cuts = [], []
    for i in range(MASKS):
        if i > 0:
            features = features * ~masks[-1].reshape(-1, 1)
        vector, values = second_eigenvector(features)
        mask = mask_of(vector, grid, sign)
        if i > 0 and (iou(masks[-1], mask) > 0.5 or mask.mean() <= 0.01):
            mask = np.zeros_like(mask)
        masks.append(mask)
        cuts.append((vector, values))
    return masks, cuts


def runs(mask):
    """Returns run lengths in row-major order, starting with cells outside the mask."""
    cells = np.concatenate([[0], mask.reshape(-1).astype(int), [-1]])
    ends = np.flatnonzero(np.diff(cells) != 0) + 1
    starts = np.concatenate([[0], ends - 1])
    lengths = np.diff(starts)
    return [int(n) for n in lengths]


def drawn(which, grid, channels):
    """Returns features of a drawn scene: a varying background, and three objects."""
    height, width = grid
    noise = hashed(which, height * width * channels).reshape(height, width, channels)
    axes = hashed(which + 100, 4 * channels).reshape(4, channels)
    y, x = np.mgrid[0:height, 0:width]
    part = np.zeros(grid, int)
    for k, (cy, cx, ry, rx) in enumerate([(0.3, 0.3, 0.2, 0.15), (0.7, 0.65, 0.18, 0.2), (0.25, 0.75, 0.1, 0.12)]):
        inside = ((y + 0.5) / height - cy) ** 2 / ry**2 + ((x + 0.5) / width - cx) ** 2 / rx**2 < 1
        part[inside] = k + 1
    slope = ((x + 0.5) / width)[..., None] * axes[0]
    return (axes[part] + 0.5 * slope + 0.9 * noise).reshape(-1, channels).astype(np.float32)


def pixels(path, grid):
    """Returns the raw pixels of the patches of a photograph minus 128, which are integers."""
    from PIL import Image

    image = np.asarray(Image.open(path).convert("RGB")).astype(np.float32) - 128
    rows, columns = image.shape[0] // grid[0], image.shape[1] // grid[1]
    patches = image.reshape(grid[0], rows, grid[1], columns, 3)
    return patches.transpose(0, 2, 1, 3, 4).reshape(grid[0] * grid[1], -1)


def case(name, features, grid):
    masks, cuts = maskcut(features, grid)
    rounds = []
    for mask, (vector, values) in zip(masks, cuts):
        n = len(vector)
        probes = [hashed(200 + k, n) @ vector / np.linalg.norm(vector) for k in range(6)]
        sign = np.sign(vector[first_largest(np.abs(vector))])
        rounds.append({
            "runs": runs(mask),
            "value": values[0],
            "gap": values[1] - values[0],
            "norm": float(np.linalg.norm(vector)),
            "probes": [float(sign * probe) for probe in probes],
        })
    return {"name": name, "grid": list(grid), "rounds": rounds}


# --- dense CRF ---


def crf_input(height, width):
    """Returns an image of two colors with noise, and an inaccurate probability map."""
    noise = hashed(300, height * width * 3).reshape(height, width, 3)
    y, x = np.mgrid[0:height, 0:width]
    inside = (2 * y - height) ** 2 * 4 + (2 * x - width) ** 2 * 3 < width**2
    color = np.where(inside[..., None], [180, 90, 40], [60, 100, 150])
    image = np.floor(color + 20 * noise).astype(np.uint8)
    foreground = np.where((x > width // 4) & (y > height // 5), 0.73, 0.27)
    return image, (foreground + 0.2 * hashed(301, height * width).reshape(height, width)).astype(np.float32)


def crf(height, width, iterations, options):
    import pydensecrf.densecrf as densecrf
    from pydensecrf.utils import unary_from_softmax

    image, foreground = crf_input(height, width)
    field = densecrf.DenseCRF2D(width, height, 2)
    softmax = np.stack([1 - foreground, foreground])
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(softmax)))
    gaussian_xy, gaussian_weight, bilateral_xy, bilateral_rgb, bilateral_weight = options
    field.addPairwiseGaussian(sxy=gaussian_xy, compat=gaussian_weight)
    field.addPairwiseBilateral(
        sxy=bilateral_xy, srgb=bilateral_rgb, rgbim=np.ascontiguousarray(image), compat=bilateral_weight)
    marginal = np.array(field.inference(iterations))[1]
    quantized = np.round(marginal * 65535).astype(int).tolist()
    return {"size": [height, width], "iterations": iterations, "options": options, "marginal": quantized}


# --- label propagation ---


def propagate(grid, channels, classes, steps, frames, radius, topk, temperature):
    height, width = grid
    cells = height * width
    still = hashed(400, cells * channels)
    video = [(still + 0.6 * hashed(401 + t, cells * channels)).astype(np.float32) for t in range(steps + 1)]
    video = [frame.reshape(cells, channels).astype(np.float64) for frame in video]
    ids = np.arange(cells) * classes // cells
    labels = [np.eye(classes)[ids]]
    y, x = np.divmod(np.arange(cells), width)
    near = (abs(y[:, None] - y) <= radius) & (abs(x[:, None] - x) <= radius)
    unit = [frame / np.linalg.norm(frame, axis=1, keepdims=True) for frame in video]
    for t in range(1, steps + 1):
        context = [0] + [k for k in range(t - frames, t) if k > 0]
        weights = np.concatenate([np.exp(unit[k] @ unit[t].T / temperature) * near for k in context])
        least = np.sort(weights, axis=0)[-topk]
        weights[weights < least] = 0
        weights /= weights.sum(0)
        labels.append((np.concatenate([labels[k] for k in context]).T @ weights).T)
    quantized = np.round(labels[-1] * 65535).astype(int).reshape(-1).tolist()
    return {
        "grid": list(grid), "channels": channels, "classes": classes, "steps": steps, "frames": frames,
        "radius": radius, "topk": topk, "temperature": temperature, "labels": quantized,
    }


# --- resizing ---


def resized(height, width, to_height, to_width, channels, name):
    from PIL import Image

    noise = hashed(500 + height, height * width * channels).reshape(height, width, channels)
    y, x = np.mgrid[0:height, 0:width]
    image = np.floor(128 + 100 * noise * ((x + y) % 7 > 2)[..., None]).astype(np.uint8)
    picture = Image.fromarray(image if channels == 3 else image[..., 0])
    out = np.asarray(picture.resize((to_width, to_height), getattr(Image, name)))
    return {"from": [height, width], "to": [to_height, to_width], "channels": channels, "filter": name,
            "bytes": out.reshape(-1).tolist()}


def signs(folder):
    """Prints how often masks depend on the sign that the solver returns."""
    images = sorted(Path(folder).glob("*.jpg")) + sorted(Path(folder).glob("*.png"))
    different = 0
    for path in images:
        from PIL import Image

        image = Image.open(path).convert("RGB").resize((480, 480), Image.LANCZOS)
        image = np.asarray(image).astype(np.float64)
        image -= image.reshape(-1, 3).mean(0)
        features = image.reshape(30, 16, 30, 16, 3).transpose(0, 2, 1, 3, 4).reshape(900, -1)
        vector, _ = second_eigenvector(features)
        masks = [mask_of(sign * vector, (30, 30), "solver") for sign in (1, -1)]
        different += not np.array_equal(*masks)
    print(f"{different} of {len(images)} images have another first mask with the other sign")


def main(out, camvid=None):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if camvid:
        photos = []
        for path in sorted(Path(camvid).glob("val/images/*.png"))[:12:4]:
            for grid in ((30, 30), (60, 60)):
                photos.append(case(path.name, pixels(path, grid), grid))
        (out / "photos.json").write_text(json.dumps(photos) + "\n")
        return
    cases = [case(f"drawn {which}", drawn(which, grid, channels), grid) | {"which": which, "channels": channels}
             for which, grid, channels in [(1, (30, 30), 24), (2, (12, 48), 16), (3, (6, 7), 8), (4, (60, 60), 12)]]
    (out / "maskcut.json").write_text(json.dumps(cases) + "\n")
    fields = [crf(40, 52, 10, (3, 7, 50, 5, 10)), crf(23, 31, 5, (2, 3, 20, 12, 4)), crf(30, 30, 0, (3, 7, 50, 5, 10))]
    (out / "crf.json").write_text(json.dumps(fields) + "\n")
    sizes = [resized(19, 33, 24, 24, 3, "LANCZOS"), resized(61, 47, 13, 20, 3, "LANCZOS"),
             resized(24, 24, 17, 40, 1, "BICUBIC"), resized(50, 64, 50, 20, 1, "BICUBIC")]
    (out / "resize.json").write_text(json.dumps(sizes) + "\n")
    videos = [propagate((12, 17), 12, 3, 10, 7, 12, 5, 0.1), propagate((9, 30), 8, 2, 4, 2, 3, 4, 0.2)]
    (out / "propagate.json").write_text(json.dumps(videos) + "\n")


if __name__ == "__main__":
    signs(sys.argv[2]) if sys.argv[1] == "signs" else main(*sys.argv[1:])
