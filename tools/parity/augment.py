"""Makes crates/augment/tests/fixtures/augment.safetensors with torchvision and Pillow.

It contains a small image, the outputs of every augmentation on it, and quantiles of the boxes that
RandomResizedCrop draws. See README.md beside this file.
"""

import json
import math
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

SEED = 20262
WIDTH, HEIGHT = 64, 48
DRAWS = 20_000
OUT = Path(__file__).parents[2] / "crates/augment/tests/fixtures/augment.safetensors"


def picture() -> Image.Image:
    """Returns an image with smooth colors, fine texture, noise, hard edges, and clipped corners."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    base = np.stack(
        [
            128 + 110 * np.sin(x / 11 + 0.4) * np.cos(y / 17),
            120 + 100 * np.cos(x / 23 - y / 13),
            140 + 90 * np.sin((x + 2 * y) / 19),
        ],
        axis=-1,
    )
    texture = 35 * np.sin(x * 1.9 + y * 0.6)[..., None] * (x > 30)[..., None]
    image = base + texture + rng.normal(0, 6, base.shape)
    image[8:20, 6:18] = [250, 20, 30]
    image[30:44, 10:26] = rng.integers(0, 256, (14, 16, 3))
    image[2:6, 40:60] = 255
    image[40:46, 50:62] = 0
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def crop(image, left, top, width, height, side):
    return F.resized_crop(image, top, left, height, width, [side, side], InterpolationMode.BICUBIC)


OPS = {
    "brightness": lambda image, p: F.adjust_brightness(image, p["factor"]),
    "contrast": lambda image, p: F.adjust_contrast(image, p["factor"]),
    "saturation": lambda image, p: F.adjust_saturation(image, p["factor"]),
    "hue": lambda image, p: F.adjust_hue(image, p["factor"]),
    "gray": lambda image, p: F.to_grayscale(image, 3),
    "flip": lambda image, p: F.hflip(image),
    "solarize": lambda image, p: ImageOps.solarize(image, p["factor"]),
    "pillow_blur": lambda image, p: image.filter(ImageFilter.GaussianBlur(p["factor"])),
    "kernel9_blur": lambda image, p: F.gaussian_blur(image, [9, 9], [p["factor"]] * 2),
    "crop": lambda image, p: crop(image, *p["box"], p["side"]),
    "eval": lambda image, p: F.center_crop(
        F.resize(image, p["resize"], InterpolationMode.BICUBIC), p["side"]
    ),
    "chain": lambda image, p: chain(image, p),
}


def chain(image, p):
    """Computes a complete crop in the order of the published pipeline."""
    image = F.hflip(crop(image, *p["box"], p["side"]))
    for op, factor in p["jitter"]:
        image = OPS[op](image, {"factor": factor})
    image = image.filter(ImageFilter.GaussianBlur(p["factor"]))
    return ImageOps.solarize(image, 128)


CASES = [
    *({"op": "brightness", "factor": f} for f in (0.6, 0.87, 1.4)),
    *({"op": "contrast", "factor": f} for f in (0.6, 1.13, 1.4)),
    *({"op": "saturation", "factor": f} for f in (0.3, 0.8, 1.2)),
    *({"op": "hue", "factor": f} for f in (-0.1, 0.031, 0.1)),
    {"op": "gray"},
    {"op": "flip"},
    {"op": "solarize", "factor": 128},
    *({"op": "pillow_blur", "factor": f} for f in (0.1, 0.7, 1.5, 2.0, 5.0)),
    *({"op": "kernel9_blur", "factor": f} for f in (0.1, 0.8, 2.0)),
    {"op": "crop", "box": [5, 3, 40, 40], "side": 32},
    {"op": "crop", "box": [0, 0, WIDTH, HEIGHT], "side": 20},
    {"op": "crop", "box": [27, 8, 15, 11], "side": 32},
    {"op": "crop", "box": [8, 1, 32, 40], "side": 32},
    {"op": "eval", "resize": 36, "side": 32},
    {"op": "eval", "resize": 24, "side": 30},
    {
        "op": "chain",
        "box": [3, 2, 55, 44],
        "side": 40,
        "jitter": [["saturation", 1.17], ["hue", 0.06], ["brightness", 0.8], ["contrast", 1.3]],
        "factor": 1.1,
    },
    {
        "op": "chain",
        "box": [20, 10, 30, 30],
        "side": 40,
        "jitter": [["contrast", 0.7], ["brightness", 1.3], ["hue", -0.08], ["saturation", 0.85]],
        "factor": 0.4,
    },
]

BOXES = [
    {"width": 500, "height": 375, "scale": [0.05, 0.4]},
    {"width": 500, "height": 375, "scale": [0.4, 1.0]},
    {"width": 200, "height": 600, "scale": [0.4, 1.0]},
]


def box_quantiles(case) -> np.ndarray:
    """Returns [4, 101]: quantiles of the relative area, the log ratio, and the relative left and
    top."""
    width, height = case["width"], case["height"]
    image = torch.empty(1, height, width)
    rows = []
    for _ in range(DRAWS):
        top, left, h, w = RandomResizedCrop.get_params(image, case["scale"], [3 / 4, 4 / 3])
        rows.append((w * h / (width * height), math.log(w / h), left / width, top / height))
    return np.quantile(np.array(rows), np.linspace(0, 1, 101), axis=0, method="inverted_cdf").T


def main():
    torch.manual_seed(SEED)
    image = picture()
    tensors = {"image": np.array(image)}
    for i, case in enumerate(CASES):
        tensors[f"case.{i}"] = np.array(OPS[case["op"]](image, case))
    for i, case in enumerate(BOXES):
        tensors[f"boxes.{i}"] = np.ascontiguousarray(box_quantiles(case))
    metadata = {
        "cases": json.dumps(CASES),
        "boxes": json.dumps(BOXES),
        "seed": str(SEED),
        "versions": f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}, "
        f"torch {torch.__version__}, numpy {np.__version__}",
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT, metadata)
    print(OUT, OUT.stat().st_size, metadata["versions"])


if __name__ == "__main__":
    main()
